"""A sample as it was known at an earlier moment is the sample of that moment."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipeline.format.modalities import Events, Grid, Notes, Static, Waveform
from data_pipeline.format.modalities.waveform import ECG_LEADS
from data_pipeline.format.schema import Item, Schema, Target
from data_pipeline.format.whole_record import read_sample
from data_pipeline.sources.meds.patients import PatientReader, Recording
from tests.support import staging_fixture
from tests.support.patients import request
from tests.support.toy_kind import Visits

HOUR = 3_600_000_000
MODALITIES = {
  'static': Static((Item('age', 'Age', 'years'),), (Item('sex', 'Sex', '', ('F', 'M')),)),
  'labs': Events(
    (Item('1', 'potassium', 'mEq/L'), Item('2', 'color', '', ('red', 'dark')))
  ),
  'vitals': Grid((Item('HR', 'heart rate'), Item('RR', 'resp. rate')), 24, 1.0),
  'ecg': Waveform(('426783006', '164889003')),
}


def reader():
  target = Target('binary', ('no', 'yes'))
  return PatientReader(Schema('t', 'meds', target, MODALITIES, (), 24.0), None)


def read_at(hours):
  """One patient at a prediction time, whose every event is inside the window at all."""
  rng = np.random.default_rng(3)
  # Sixty-fourths of an hour are exact in 32 bits; none of them is on the edge of a cell.
  when = lambda: round((-8 + rng.integers(0, 8 * 32) / 32 + 1 / 64) * HOUR)
  rows = [(when(), 'labs//1', rng.normal(4, 1)) for _ in range(40)]
  rows += [(when(), 'labs//2', None, rng.choice(['red', 'dark'])) for _ in range(20)]
  rows += [(when(), f'vitals//{code}', 80.0) for code in ('HR', 'RR') for _ in range(30)]
  signal = rng.normal(0, 1, (5000, 12))
  ecgs = [
    Recording(
      at * HOUR, signal * n, 500.0, 'mV', ECG_LEADS, measurements={'rr_interval': 800.0 + n}
    )
    for n, at in enumerate((-6, -3, -1), start=1)
  ]
  static = {'age': 70.0, 'sex': 'M'}
  asked = request(
    *rows, prediction_time=round(hours * HOUR), recordings=ecgs, static=static
  )
  return reader().read(asked).examples[0]


def same(found, expected):
  assert found.keys() == expected.keys()
  for key, array in expected.items():
    assert found[key].dtype == array.dtype, key
    np.testing.assert_array_equal(found[key], array, err_msg=key)


@pytest.mark.parametrize('name', MODALITIES)
@pytest.mark.parametrize('hours', [0.0, -1.0, -2.0, -5.0, -8.0])
def test_it_is_what_is_read_with_an_earlier_prediction_time(name, hours):
  now, then = read_at(0.0), read_at(hours)
  found = MODALITIES[name].known_at(now[name], hours)
  same(found, then[name])
  unchanged = all(found[key].tobytes() == now[name][key].tobytes() for key in found)
  assert unchanged == (hours == 0 or name == 'static')


def test_a_cell_that_was_not_over_is_not_known():
  grid = Grid((Item('HR', 'heart rate'),), 4, 0.1)
  arrays = {
    'value': np.array([[1], [2], [3], [4]], np.float32),
    'observed': np.ones((4, 1), np.uint8),
  }
  moved = lambda hours: grid.known_at(arrays, hours)['value'][:, 0].tolist()
  assert moved(-0.1) == [0, 1, 2, 3]
  assert moved(-0.15) == moved(-0.2) == [0, 0, 1, 2]
  assert moved(-0.3) == [0, 0, 0, 1]  # 0.3 / 0.1 is more than 3 in floating point
  assert moved(-9.0) == [0, 0, 0, 0]
  assert not grid.known_at(arrays, -9.0)['observed'].any()


def test_notes_and_a_kind_that_the_code_does_not_know():
  notes = {
    'vector': np.arange(6, dtype=np.float32).reshape(3, 2),
    'time': np.array([-9, -5, -2], np.float32),
  }
  found = Notes(2).known_at(notes, -5.0)
  same(found, {'vector': notes['vector'][:2], 'time': np.array([-4, 0], np.float32)})
  visits = {'number': np.array([1, 2, 3], np.float32), 'known': np.ones(3, np.uint8)}
  found = Visits(3).known_at(visits, -25.0)
  same(
    found,
    {'number': np.array([0, 0, 1], np.float32), 'known': np.array([0, 0, 1], np.uint8)},
  )
  same(Visits(3).known_at(visits, 0.0), visits)


def test_all_of_a_stored_sample_is_there_at_its_own_moment(dataset):
  for row in range(0, len(dataset), 11):
    sample = read_sample(dataset, row)
    for name, modality in staging_fixture.SCHEMA.modalities.items():
      same(modality.known_at(sample[name], 0.0), sample[name])
