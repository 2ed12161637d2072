"""Times of requests against Python's own reader of ISO 8601."""

from __future__ import annotations

import datetime as dt
import re

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medm2t_jax.serving import times

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def expected(text):
  try:
    time = dt.datetime.fromisoformat(text)
  except ValueError:
    return None
  time = time.replace(tzinfo=time.tzinfo or dt.UTC)
  return (time - _EPOCH) // dt.timedelta(microseconds=1)


two = st.integers(0, 61).map('{:02d}'.format)
texts = st.builds(
  '{}-{}-{}{}{}:{}{}{}'.format,
  st.integers(1000, 2999),
  st.integers(0, 13).map('{:02d}'.format),
  st.integers(0, 32).map('{:02d}'.format),
  st.sampled_from('T '),
  st.integers(0, 24).map('{:02d}'.format),
  two,
  st.one_of(
    st.just(''),
    st.builds(':{}'.format, two),
    st.builds(':{}.{}'.format, two, st.from_regex('[0-9]{1,9}', fullmatch=True)),
  ),
  st.one_of(
    st.sampled_from(['', 'Z']),
    st.builds(
      '{}{}:{}'.format,
      st.sampled_from('+-'),
      st.integers(0, 23).map('{:02d}'.format),
      st.integers(0, 59).map('{:02d}'.format),
    ),
  ),
)


@settings(deadline=None)
@given(texts)
def test_an_instant_is_that_of_python(text):
  assert re.search(times.PATTERN, text)
  assert times.microseconds(text) == expected(text)


def test_many_are_read_together_and_null_stays_null():
  given = ['2150-03-02T10:00:00Z', None, '2150-03-02 10:00', '2150-03-02T10:00:00.5-02:00']
  found = times.instants(given).cast(pa.int64()).to_pylist()
  assert found == [None if text is None else expected(text) for text in given]
  with pytest.raises(pa.ArrowInvalid):
    times.instants([*given, '2150-02-30T10:00:00Z'])


@pytest.mark.parametrize(
  'text', ['2150-03-02', '0000-01-01T00:00Z', '2150-03-02T1:00Z', '']
)
def test_another_form_is_no_time(text):
  assert times.microseconds(text) is None


def test_a_time_without_an_offset_is_noticed():
  assert not times.without_offset(['2150-03-02T10:00Z', None, '2150-03-02T10:00+01:00'])
  assert times.without_offset(['2150-03-02T10:00Z', '2150-03-02T10:00:00.25'])
