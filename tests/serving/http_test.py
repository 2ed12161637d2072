"""Prediction over HTTP: answers, errors, limits, token, counting, privacy, the page."""

from __future__ import annotations

import base64
import concurrent.futures
import copy
import html
import json
import logging
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from data_pipeline.format.modalities.waveform import ECG_LEADS
from tests.serving.conftest import OPTIONS
from tests.serving.hl7.fhir_test import PATIENT, observation

TOKEN = 'a-token-of-some-length'


def event(code='LAB//50912//mg/dL', time='2150-03-02T09:30:00Z', **fields):
  return {'code': code, 'time': time, **({'numeric_value': 1.4} | fields)}


def patient(identifier='a', **fields):
  return {
    'id': identifier,
    'prediction_time': '2150-03-02T10:00:00Z',
    'events': [event()],
    'static': {'age': 70, 'gender': 'F'},
  } | fields


def ecg(**fields):
  return {
    'time': '2150-03-02T08:00:00Z',
    'leads': {name: np.sin(np.arange(5000) / 50).round(3).tolist() for name in ECG_LEADS},
    'sampling_rate': 500,
    'unit': 'mV',
  } | fields


def ask(client, *patients, **fields):
  return client.post('/predict', json={'patients': list(patients), **fields})


def risk(client, *patients):
  answer = ask(client, *patients)
  assert answer.status_code == 200, answer.text
  return [one['probabilities']['died'] for one in answer.json()['patients']]


def refused(client, status, *patients, **fields):
  """The first error of a refused request."""
  answer = ask(client, *patients, **fields)
  assert answer.status_code == status, answer.text
  return answer.json()['errors'][0]


def test_a_patient_is_predicted(service, model):
  answer = ask(service, patient()).json()
  assert answer['version'] == model.version and answer['task'] == 'mortality'
  assert answer['horizon'] == 'before discharge'
  (one,) = answer['patients']
  assert one['id'] == 'a' and set(one['probabilities']) == {'survived', 'died'}
  assert sum(one['probabilities'].values()) == pytest.approx(1, abs=1e-6)
  assert set(one['modalities']) == {'static', 'labs'}
  assert one['coverage']['events'] == 1 and one['coverage']['used'] == 1
  assert any('vitals, ecg' in text for text in one['warnings'])
  assert one['explanation'] is None and one['value'] is None


def test_the_prediction_follows_from_values_and_not_from_batch_mates(service):
  alone = risk(service, patient())[0]
  others = [patient(f'p{i}', events=[event(numeric_value=i / 2.0)] * i) for i in range(12)]
  together = risk(service, *others[:5], patient(), *others[5:])
  assert together[5] == pytest.approx(alone, abs=1e-6)
  assert len({*together}) > 5


def test_requests_at_the_same_time_get_their_own_answers(service):
  asked = [patient(f'p{i}', events=[event(numeric_value=0.1 * i)]) for i in range(30)]
  alone = [risk(service, one)[0] for one in asked]
  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    found = [*pool.map(lambda one: ask(service, one).json()['patients'][0], asked)]
  assert [one['id'] for one in found] == [one['id'] for one in asked]
  risks = [one['probabilities']['died'] for one in found]
  np.testing.assert_allclose(risks, alone, atol=1e-6)


def test_nothing_after_the_prediction_time_counts(service):
  late = [event(time='2150-03-02T10:00:01Z', numeric_value=9.0)] * 3
  found = ask(service, patient(events=[event(), *late])).json()['patients'][0]
  assert found['probabilities']['died'] == risk(service, patient())[0]
  entries = found['coverage']['entries']
  assert sum(one['events'] for one in entries if 'after' in one['reason']) == 3


def test_times_without_an_offset_are_utc(service):
  bare = patient(
    prediction_time='2150-03-02 10:00:00', events=[event(time='2150-03-02T09:30')]
  )
  found = ask(service, bare).json()['patients'][0]
  assert found['probabilities']['died'] == risk(service, patient())[0]
  assert 'UTC' in found['warnings'][0]
  assert 'UTC' not in ask(service, patient()).text
  moved = patient(events=[event(time='2150-03-02T10:30:00+01:00')])
  assert risk(service, moved) == risk(service, patient())


def nested(levels):
  return '[' * levels + ']' * levels


@pytest.mark.parametrize(
  ('body', 'status', 'said'),
  [
    ('{"patients": [', 422, 'not JSON at line 1'),
    ('{"patients": [], "patients": []}', 422, 'a key is repeated at line 1'),
    ('{"patients": NaN}', 422, 'not JSON'),
    ('{"patients": [-Infinity]}', 422, 'not JSON'),
    (nested(17), 422, '17 levels deep; at most 16'),
    (nested(5000), 422, '5000 levels deep'),
    ('{"a": "' + ']' * 50 + '"' + ', "b": ' + nested(40) + '}', 422, '41 levels deep'),
    (b'"\\ud800"', 422, 'not JSON'),
    (b'\xff\xfe', 422, 'not JSON'),
    ('', 422, 'not JSON'),
    ('"' + 'x' * 2**20 + '"', 413, 'larger than 1048576 bytes'),
  ],
)
def test_bodies_that_are_no_proper_json_are_refused(service, body, status, said):
  answer = service.post(
    '/predict', content=body, headers={'Content-Type': 'application/json'}
  )
  assert answer.status_code == status and said in answer.json()['detail']


def test_a_body_without_a_length_is_measured_while_it_arrives(service):
  sent = []

  def chunks():
    for _ in range(1000):
      sent.append(1)
      yield b' ' * 2**14

  answer = service.post(
    '/predict', content=chunks(), headers={'Content-Type': 'application/json'}
  )
  assert answer.status_code == 413


def test_another_content_type_is_refused(service):
  answer = service.post('/predict', content=b'{}', headers={'Content-Type': 'text/plain'})
  assert answer.status_code == 415 and 'application/json' in answer.json()['detail']


SECRET = 'SECRET'


@pytest.mark.parametrize(
  ('change', 'field', 'said'),
  [
    ({'events': [event(numeric_value=SECRET)]}, 'events[0].numeric_value', 'number'),
    ({'events': [event(numeric_value=True)]}, 'events[0].numeric_value', 'number'),
    ({'events': [event(numeric_value=1e39)]}, 'events[0].numeric_value', 'less than'),
    ({'events': [event(code='')]}, 'events[0].code', 'at least 1 character'),
    ({'events': [event(code=f'{SECRET}\x1f')]}, 'events[0].code', 'match'),
    ({'events': [event(time=SECRET)]}, 'events[0].time', 'match'),
    ({'events': [event(time='2150-02-30T10:00:00Z')]}, 'events[0].time', 'calendar'),
    ({'events': [event(time=1700000000)]}, 'events[0].time', 'string'),
    ({'events': [event(numeric_valeu=SECRET)]}, 'events[0]', "mean 'numeric_value'"),
    ({'events': [event(**{SECRET: 1})]}, 'events[0]', 'unknown field'),
    ({'events': [SECRET]}, 'events[0]', 'dictionary'),
    ({'events': [event()] * 51}, 'events', '51 are given; at most 50'),
    ({'prediction_time': SECRET}, 'prediction_time', 'match'),
    ({'prediction_time': '2150-13-01T00:00:00Z'}, 'prediction_time', 'calendar'),
    ({'static': {'agee': SECRET}}, 'static', "mean 'age'"),
    ({'static': {'age': SECRET}}, 'static.age', 'a number'),
    ({'static': {'gender': SECRET}}, 'static.gender', 'one of F, M'),
    ({'ecgs': [ecg(unit=None)]}, 'ecgs[0]', 'either leads'),
    ({'ecgs': [ecg(hea='SGk=')]}, 'ecgs[0]', 'either leads'),
    ({'ecgs': [ecg(sampling_rate=0)]}, 'ecgs[0].sampling_rate', 'greater than 0'),
    ({'ecgs': [ecg(leads={'I': [1.0], 'II': [1.0, 2.0]})]}, 'ecgs[0]', 'same length'),
    ({'ecgs': [ecg(leads={'I': [SECRET]})]}, 'ecgs[0].leads.I', 'numbers'),
    ({'ecgs': [ecg(leads={SECRET: [1.0]})]}, 'ecgs[0].leads', 'unknown lead'),
    ({'ecgs': [ecg(leads={'I': [0] * 70_001})]}, 'ecgs[0].leads', 'at most 70000'),
    ({'ecgs': [ecg(measurements={'qrs': 1.0})]}, 'ecgs[0].measurements', 'unknown'),
    ({'ecgs': [{'time': '2150-03-02T08:00:00Z', 'hea': '!', 'dat': 'SGk='}]},
     'ecgs[0].hea', 'base64'),
    ({'ecgs': [{'time': '2150-03-02T08:00:00Z', 'hea': 'SGk=', 'dat': 'SGk='}] * 4},
     'ecgs', '4 are given; at most 3'),
  ],
)  # fmt: skip
def test_an_error_names_patient_field_and_what_is_allowed(service, change, field, said):
  answer = ask(service, patient('b'), patient('who', **change))
  assert answer.status_code == 422, answer.text
  found = answer.json()['errors'][0]
  assert found['field'] == f'patients[1].{field}' and said in found['message']
  assert found['patient'] == 1 and found['id'] == 'who'
  assert found.get('event') == (0 if 'events[0]' in field else None)
  assert SECRET not in answer.text


def test_errors_of_the_whole_request(service):
  error = refused(service, 422)
  assert error['field'] == 'patients'
  error = refused(service, 422, *(patient(f'p{i}') for i in range(21)))
  assert '21 are given; at most 20' in error['message']
  error = refused(service, 422, patient(), patient('b'), explain=True)
  assert '2 are given; at most 1' in error['message']
  error = refused(service, 422, patient(), patient())
  assert error['field'] == 'patients[1].id' and 'patients[0]' in error['message']
  error = refused(service, 422, patient(), patients_=SECRET)
  assert "mean 'patients'" in error['message'] and error['field'] == ''
  error = refused(service, 422, patient(f'{SECRET} of a person'))
  assert error['field'] == 'patients[0].id' and 'id' not in error
  answer = service.post('/predict', json=[SECRET])
  assert answer.status_code == 422 and SECRET not in answer.text


def test_many_errors_are_counted_and_the_first_listed(service):
  answer = ask(service, patient(events=[event(numeric_value=SECRET)] * 40))
  assert '40 errors' in answer.json()['detail'] and len(answer.json()['errors']) == 20


def test_unknown_paths_and_methods_are_refused_in_the_same_form(service):
  assert service.get(f'/{SECRET}').json() == {'detail': 'Not Found'}
  assert service.get('/predict').status_code == 405


def wfdb():
  signal = np.sin(np.arange(5000) / 50)[:, None] * np.linspace(0.5, 1.5, 12)
  lines = ['rec 12 500 5000']
  lines += [f'rec.dat 16 1000/mV 16 0 0 0 0 {name}' for name in ECG_LEADS]
  stored = (signal * 1000).astype('<i2')
  files = ('\n'.join(lines).encode(), stored.tobytes())
  hea, dat = (base64.b64encode(each).decode() for each in files)
  leads = {name: (stored[:, place] / 1000).tolist() for place, name in enumerate(ECG_LEADS)}
  return {'hea': hea, 'dat': dat}, leads


def test_an_ecg_comes_as_arrays_or_as_a_wfdb_pair(service):
  files, leads = wfdb()
  time = {'time': '2150-03-02T08:00:00Z'}
  both = [patient(ecgs=[ecg(leads=leads)]), patient('b', ecgs=[{**time, **files}])]
  answer = ask(service, *both)
  assert answer.status_code == 200, answer.text
  first, second = answer.json()['patients']
  assert 'ecg' in first['modalities'] and 'ecg' in second['modalities']
  assert first['probabilities']['died'] == pytest.approx(
    second['probabilities']['died'], abs=1e-6
  )
  assert first['probabilities']['died'] != risk(service, patient())[0]


def test_many_recordings_are_more_batches_and_the_same_answers(service):
  """A program of eight rows holds fewer recordings than eight patients have."""
  short = {name: [0.1 * i for i in range(200)] * 10 for name in ECG_LEADS}
  ecgs = [ecg(leads=short, sampling_rate=200)]
  alone = risk(service, patient(ecgs=ecgs))[0]
  found = [
    risk(service, *(patient(f'p{k}{i}', ecgs=ecgs) for i in range(3))) for k in (0, 1)
  ]
  np.testing.assert_allclose(found, alone, atol=1e-6)


def test_an_explanation_adds_up(service):
  answer = ask(service, patient(ecgs=[ecg()]), explain=True)
  assert answer.status_code == 200, answer.text
  found = answer.json()['patients'][0]['explanation']
  assert found['completeness']['complete']
  assert {one['modality'] for one in found['variables']} >= {'labs', 'static'}
  assert set(found['without']) == {'static', 'labs', 'vitals', 'ecg'}
  assert set(found['ecg'][0]['seconds']) == set(ECG_LEADS)
  assert len(found['ecg'][0]['seconds']['I']) == 10
  assert any(one['code'] == '50912' for one in found['events'])


def test_a_request_of_the_openapi_page_works(service):
  described = service.get('/openapi.json').json()
  of = described['paths']['/predict']['post']['requestBody']['content']['application/json']
  assert of['schema']['$ref'].rpartition('/')[2] in described['components']['schemas']
  answer = service.post('/predict', json=of['example'])
  assert answer.status_code == 200, answer.text
  (one,) = answer.json()['patients']
  assert one['coverage']['used'] == len(of['example']['patients'][0]['events'])
  assert not any('UTC' in text for text in one['warnings'])


def test_the_openapi_page_needs_no_other_server(service):
  page = service.get('/docs')
  assert page.status_code == 200 and '/openapi.json' in page.text
  links = re.findall(r'(?:src|href)="([^"]*)"', page.text)
  assert any(link.endswith('.js') for link in links)
  for link in links:
    assert link.startswith('/') and not link.startswith('//')
    assert service.get(link).status_code == 200
  assert 'https:' not in page.text and '"validatorUrl": null' in page.text


def test_the_model_tells_of_its_variables(service, model):
  found = service.get('/model').json()
  assert found['version'] == model.version and found['card'] == model.card
  labs = {one['code']: one for one in found['modalities']['labs']}
  assert labs['50912']['unit'] == 'mg/dL'
  first, *_, own = labs['50912']['request_codes']
  for code in (first, own):
    found_as = ask(service, patient(events=[event(code)])).json()['patients'][0]
    assert found_as['coverage']['used'] == 1, code
  assert found['static_columns'] == {'age': [], 'gender': ['F', 'M']}
  assert found['limits']['max_events'] == OPTIONS.max_events


def test_health_and_metrics(service):
  assert service.get('/health').json()['status'] == 'ready'
  ask(service, patient())
  ask(service, patient(events=SECRET))
  service.get(f'/{SECRET}/x')
  text = service.get('/metrics').text
  assert 'medm2t_requests_total{endpoint="/predict",status="200"}' in text
  assert 'medm2t_refused_total{reason="invalid"}' in text
  assert 'medm2t_requests_total{endpoint="other",status="404"}' in text
  assert 'medm2t_request_seconds_bucket' in text and 'medm2t_batch_rows_sum' in text
  assert SECRET not in text


@pytest.fixture(scope='module')
def guarded(make_service):
  with TestClient(make_service(token=TOKEN)) as client:
    yield client


@pytest.mark.parametrize(
  ('method', 'path'),
  [
    ('GET', '/model'), ('GET', '/metrics'), ('GET', '/docs'), ('GET', '/openapi.json'),
    ('POST', '/predict'), ('GET', '/cds-services'), ('POST', '/fhir/RiskAssessment'),
    ('GET', '/unknown'), ('GET', '/health/'), ('GET', '//health'),
  ],
)  # fmt: skip
def test_every_endpoint_but_health_asks_for_the_token(guarded, method, path):
  for header in ({}, {'Authorization': 'Bearer wrong'}, {'Authorization': TOKEN}):
    answer = guarded.request(method, path, headers=header)
    assert answer.status_code == 401, path
    assert answer.headers['www-authenticate'] == 'Bearer'
  given = {'Authorization': f'Bearer {TOKEN}'}
  assert guarded.request(method, path, headers=given).status_code != 401


def test_health_asks_for_no_token(guarded):
  assert guarded.get('/health').status_code == 200


def test_values_are_in_no_log(service, caplog, capfd):
  marked = patient(
    'an-id-7531',
    events=[
      event(numeric_value=86.4209, text_value='MARKED-TEXT'),
      event(code='MARKED//86.4209//x'),
      event(time='2149-07-05T01:02:03Z'),
    ],
    ecgs=[ecg(report=['MARKED report'])],
  )
  broken = copy.deepcopy(marked)
  broken['events'][0]['time'] = 'MARKED'
  with caplog.at_level(logging.DEBUG):
    assert ask(service, marked).status_code == 200
    refused = ask(service, broken)
  assert 'MARKED' not in refused.text and '86.4209' not in refused.text
  printed = capfd.readouterr()
  for text in (caplog.text, printed.out, printed.err):
    for mark in ('MARKED', '86.42', 'an-id-7531', '2149-07-05'):
      assert mark not in text


def test_an_error_of_the_service_tells_no_values(make_service, monkeypatch, caplog, capfd):
  app = make_service()
  with TestClient(app) as client:
    monkeypatch.setattr(
      'medm2t_jax.serving.application.predict_answer',
      lambda *_: (_ for _ in ()).throw(ValueError('MARKED value 86.4')),
    )
    # So that the handler of our own loggers is not in the way of the test.
    logger = logging.getLogger('medm2t_jax')
    monkeypatch.setattr(logger, 'propagate', True)
    answer = ask(client, patient())
  assert answer.status_code == 500
  assert answer.json() == {'detail': 'internal error; the log has the details'}
  assert 'ValueError at' in caplog.text
  for text in (caplog.text, *capfd.readouterr()):
    assert 'MARKED' not in text and '86.4' not in text


def test_more_than_may_wait_are_asked_to_come_back(make_service, monkeypatch):
  import threading

  app = make_service(OPTIONS.changed({'max_waiting': 2}))
  go = threading.Event()
  from data_pipeline.sources.meds.patients import PatientReader

  read = PatientReader.read

  def slow(self, patients):
    go.wait(20)
    return read(self, patients)

  monkeypatch.setattr(PatientReader, 'read', slow)
  with TestClient(app) as client, concurrent.futures.ThreadPoolExecutor(8) as pool:
    first = [pool.submit(ask, client, patient(f'p{i}')) for i in range(6)]
    done, _ = concurrent.futures.wait(first, timeout=10, return_when='FIRST_COMPLETED')
    refused = next(iter(done)).result()
    assert refused.status_code == 503 and refused.headers['retry-after'] == '1'
    go.set()
    statuses = sorted(one.result().status_code for one in first)
  assert statuses.count(200) == 2 and statuses.count(503) == 4


def test_one_who_cannot_be_read_costs_only_themselves(make_service, monkeypatch):
  from data_pipeline.sources.meds.patients import PatientReader

  read = PatientReader.read

  def picky(self, patients):
    if 'BROKEN' in patients.events['code'].to_pylist():
      raise RuntimeError('broken')
    return read(self, patients)

  monkeypatch.setattr(PatientReader, 'read', picky)
  with (
    TestClient(make_service()) as client,
    concurrent.futures.ThreadPoolExecutor(8) as pool,
  ):
    codes = ['BROKEN' if i % 4 == 0 else 'LAB//50912//mg/dL' for i in range(16)]
    asked = [patient(f'p{i}', events=[event(code)]) for i, code in enumerate(codes)]
    found = [*pool.map(lambda one: ask(client, one).status_code, asked)]
  assert found == [500 if code == 'BROKEN' else 200 for code in codes]


def test_the_answer_is_json_that_everyone_reads(service):
  text = ask(service, patient()).text
  assert json.loads(text, parse_constant=lambda name: pytest.fail(name))


# The page of one patient.


@pytest.fixture(scope='module')
def asked(service):
  """The request that the form holds."""
  page = service.get('/')
  assert page.status_code == 200 and page.headers['content-type'].startswith('text/html')
  found = re.search(r'<textarea[^>]*>(.*?)</textarea>', page.text, re.DOTALL)
  assert found and '<form method="post" action="/explore">' in page.text
  return json.loads(html.unescape(found[1]))


def test_the_page_of_a_request_has_its_prediction(service, asked):
  (expected,) = service.post('/predict', json=asked).json()['patients']
  answer = service.post('/explore', data={'request': json.dumps(asked)})
  assert answer.status_code == 200, answer.text
  assert answer.headers['cache-control'] == 'no-store'
  found = re.search(r'id="story">(.*?)</script>', answer.text, re.DOTALL)
  assert found
  story = json.loads(found[1])
  (output,) = story['outputs']
  risk = expected['probabilities'][output['name']]
  assert output['values'][-1] == pytest.approx(risk, abs=1e-5)
  used = expected['coverage']['used']
  assert any(each.startswith(f'{used} of the ') for each in story['notes'])
  assert asked['patients'][0]['id'] not in answer.text.replace(story['version'], '')
  assert asked['patients'][0]['prediction_time'][:10] not in answer.text


@pytest.mark.parametrize(
  ('body', 'status'),
  [
    ({'request': 'no JSON'}, 422),
    ({'other': '{}'}, 422),
    ({'request': '{}', 'more': '1'}, 422),
    ({'request': '{"patients": []}'}, 422),
    ({'request': '[' * 100}, 422),
  ],
)
def test_other_forms_are_refused(service, body, status):
  answer = service.post('/explore', data=body)
  assert answer.status_code == status and answer.json()['detail']


def test_two_patients_have_no_page(service, asked):
  two = {**asked, 'patients': [{**asked['patients'][0], 'id': name} for name in 'ab']}
  answer = service.post('/explore', data={'request': json.dumps(two)})
  assert answer.status_code == 422 and 'one patient' in answer.text
  assert service.post('/explore', json=asked).status_code == 415


# Hundreds of generated requests: no error of the service, no traceback, no echo.

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
