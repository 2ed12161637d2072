"""Hundreds of generated requests: no error of the service, no traceback, no echo."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving.fhir_test import PATIENT, observation
from tests.serving.http_test import event, patient

QUICK = settings(
  max_examples=200,
  deadline=None,
  derandomize=True,
  suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
PATHS = ('/predict', '/fhir/RiskAssessment', '/cds-services/medm2t-mortality')
MARK = 'MARK-7531'
SCALARS = st.one_of(
  st.none(),
  st.booleans(),
  st.integers(),
  st.integers(10**300, 10**301),
  st.floats(allow_nan=False, allow_infinity=False),
  st.text(max_size=8),
  st.sampled_from(
    [MARK, '', '\x00', '\ud7ff\U0001f600', '2150-03-02T10:00:00Z',
     '0001-01-01T00:00:00+14:00', '9999-12-31T23:59:59-14:00', '2150-02-30T10:00:00Z',
     'LAB//50912//mg/dL',
     'LAB//50912//furlongs', 1e39, -1e39, 1e-320, 2**63, -(2**63) - 1]
  ),
)  # fmt: skip
VALUES = st.recursive(
  SCALARS,
  lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
  ),
  max_leaves=6,
)


def places(value, at=()):
  """Paths of everything inside a JSON value."""
  yield at
  if isinstance(value, dict | list):
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in inner:
      yield from places(each, (*at, key))


def changed(value, at, new, *, removed):
  """A copy with another value at a place, or without it."""
  if not at:
    return new
  copy = dict(value) if isinstance(value, dict) else list(value)
  if len(at) == 1 and removed:
    del copy[at[0]]
  else:
    copy[at[0]] = changed(copy[at[0]], at[1:], new, removed=removed)
  return copy


@st.composite
def damaged(draw, whole):
  """A good request with one to three damages."""
  for _ in range(draw(st.integers(1, 3))):
    at = draw(st.sampled_from([*places(whole)]))
    whole = changed(whole, at, draw(VALUES), removed=draw(st.booleans()))
    if draw(st.booleans()) and isinstance(whole, dict):
      whole = {**whole, draw(st.text(max_size=6)): draw(VALUES)}
  return whole


GOOD = {
  'patients': [
    patient(events=[event(), event('LAB//50813//mmol/L', text_value='<0.5', unit='x')]),
    patient('b', ecgs=[{
      'time': '2150-03-02T08:00:00Z', 'leads': {'I': [0.1, None], 'II': [1, 2]},
      'sampling_rate': 500, 'unit': 'mV', 'measurements': {'rr_interval': 800.0},
      'report': ['Sinus rhythm'],
    }, {'time': '2150-03-02T08:00:00Z', 'hea': 'cmVjIDEy', 'dat': 'AAAA'}]),
  ],
  'explain': False,
}  # fmt: skip
BUNDLE = {
  'resourceType': 'Bundle',
  'entry': [{'resource': PATIENT}, {'resource': observation()}],
}


def sent(client, path, body):
  answer = client.post(path, content=body, headers={'Content-Type': 'application/json'})
  assert answer.status_code in (200, 413, 422), (answer.status_code, answer.text)
  assert 'Traceback' not in answer.text and '.py' not in answer.text
  if answer.status_code != 200:
    assert answer.json()['detail'] and MARK not in answer.text.replace(f'"id":"{MARK}"', '')
  return answer


def text_of(value):
  return json.dumps(value, ensure_ascii=True).encode()


@QUICK
@given(body=damaged(GOOD))
def test_damaged_requests(service, body):
  sent(service, '/predict', text_of(body))


@QUICK
@given(body=damaged(BUNDLE))
def test_damaged_bundles(service, body):
  sent(service, '/fhir/RiskAssessment', text_of(body))


@QUICK
@given(path=st.sampled_from(PATHS), body=st.binary(max_size=200) | VALUES.map(text_of))
def test_anything_at_all(service, path, body):
  sent(service, path, body)


def test_the_undamaged_ones_are_answered(service):
  assert sent(service, '/predict', text_of(GOOD)).status_code == 200
  assert sent(service, '/fhir/RiskAssessment', text_of(BUNDLE)).status_code == 200
