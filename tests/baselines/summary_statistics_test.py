"""Summary statistics against a slow oracle, sample by sample."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipeline.format.modalities.waveform import ECG_MEASUREMENTS
from medm2t_jax.baselines.summary_statistics import summarise
from medm2t_jax.models.trunk.column_statistics import SEGMENT_STEPS, STATISTICS
from tests.support import fake_batch, kinds

SCHEMA = fake_batch.schema('mortality')
MODALITIES = fake_batch.config('mortality').modalities


def _of_numbers(pairs):
  """STATISTICS of (time, value) pairs in the order of their times."""
  if not pairs:
    return dict.fromkeys(STATISTICS, np.nan) | {'count': 0}
  time, value = np.array(pairs, np.float64).T
  slope = np.nan if len(set(time)) == 1 else np.polyfit(time, value, 1)[0]
  return {
    'first': value[0], 'last': value[-1], 'min': min(value), 'max': max(value),
    'mean': np.mean(value), 'variance': np.var(value), 'slope': slope,
    'count': len(value), 'hours_since_last': -time[-1],
  }  # fmt: skip


def _spread(steps, values):
  """Standard deviation inside segments, pooled: a free observation less a segment."""
  squares, free = 0.0, 0
  for segment in set(steps // SEGMENT_STEPS):
    inside = values[steps[steps // SEGMENT_STEPS == segment]].astype(np.float64)
    squares += np.sum((inside - inside.mean()) ** 2)
    free += len(inside) - 1
  return np.sqrt(squares / free) if free else np.nan


def _oracle(batch, row):
  """Column name -> value of one sample."""
  result = {}
  for name, items in kinds.events(SCHEMA).items():
    events = {
      key: values[row][batch[name]['mask'][row]] for key, values in batch[name].items()
    }
    for index, item in enumerate(items):
      own = np.flatnonzero(events['item'] == index)
      if not item.categories:
        pairs = [(events['time'][i], events['value'][i]) for i in own]
        for key, value in _of_numbers(pairs).items():
          result[f'{name}/{item.itemid}/{key}'] = value
        continue
      seen = [int(events['category'][i]) for i in own]
      for level, category in enumerate(item.categories):
        result[f'{name}/{item.itemid}={category}/last'] = seen[-1:] == [level]
        result[f'{name}/{item.itemid}={category}/count'] = seen.count(level)
      since = -events['time'][own[-1]] if len(own) else np.nan
      result[f'{name}/{item.itemid}/hours_since_last'] = since
  grid = SCHEMA.modalities['vitals']
  for index, item in enumerate(grid.items):
    steps = np.flatnonzero(batch['vitals']['observed'][row, :, index])
    pairs = [
      (
        (step + 0.5 - grid.steps) * grid.step_hours,
        batch['vitals']['value'][row, step, index],
      )
      for step in steps
    ]
    for key, value in _of_numbers(pairs).items():
      result[f'vitals/{item.itemid}/{key}'] = value
    values = batch['vitals']['value'][row, :, index]
    result[f'vitals/{item.itemid}/spread'] = _spread(steps, values)
  ecg = batch['ecg']
  own = [m for m in range(len(ecg['mask'])) if ecg['mask'][m] and ecg['owner'][m] == row]
  for index, measurement in enumerate(ECG_MEASUREMENTS):
    values = [
      ecg['measurements'][m, index] for m in own if ecg['measurements_mask'][m, index]
    ]
    result[f'ecg/{measurement}/last'] = values[-1] if values else np.nan
    result[f'ecg/{measurement}/mean'] = np.mean(values) if values else np.nan
  for index, term in enumerate(SCHEMA.modalities['ecg'].terms):
    result[f'ecg/{term}/ever'] = any(ecg['terms'][m, index] for m in own)
  result['ecg/recordings'] = len(own)
  result['ecg/hours_since_last'] = min([-ecg['time'][m] for m in own], default=np.nan)
  static = batch['static']
  for index, item in enumerate(SCHEMA.modalities['static'].numeric):
    known = static['numeric_mask'][row, index]
    result[f'static/{item.itemid}'] = static['numeric'][row, index] if known else np.nan
  level = static['categorical'][row, 0]
  for index, category in enumerate(SCHEMA.modalities['static'].categorical[0].categories):
    result[f'static/gender={category}'] = level == index if level >= 0 else np.nan
  return result


def _batch(seed=0, **sizes):
  batch = fake_batch.batch(12, recordings=20, samples=1, seed=seed, **sizes)
  # A pipeline's recordings are sorted by time within a sample.
  ecg = batch['ecg']
  order = np.lexsort((ecg['time'], ecg['owner'], ~ecg['mask']))
  batch['ecg'] = {key: values[order] for key, values in ecg.items()}
  # Two values at one time, and an item whose values all have one time.
  batch['labs']['time'][0, :4] = batch['labs']['time'][0, 0]
  return batch


@pytest.mark.parametrize('seed', [0, 1])
def test_statistics_equal_the_oracle(seed):
  batch = _batch(seed, events=20)
  table = summarise([batch], MODALITIES)
  assert len(set(table.names)) == len(table.names) == table.value.shape[1]
  np.testing.assert_array_equal(table.row, np.arange(11))
  for row in range(11):
    expected = _oracle(batch, row)
    assert set(expected) == set(table.names)
    np.testing.assert_allclose(
      table.value[row],
      np.array([expected[name] for name in table.names], np.float32),
      rtol=1e-4,
      atol=1e-4,
    )


def test_padding_changes_nothing():
  batch = _batch(events=20)
  expected = summarise([batch], MODALITIES)
  for name in kinds.events(SCHEMA):
    padded = {
      key: np.pad(values, ((0, 3), (0, 7)), constant_values=1)
      for key, values in batch[name].items()
    }
    padded['mask'][12:], padded['mask'][:, 20:] = False, False
    batch[name] = padded
  for key in ('label', 'weight'):
    batch[key] = np.pad(batch[key], (0, 3), constant_values=9)
  batch['row'] = np.pad(batch['row'], (0, 3), constant_values=-1)
  rows = lambda values: np.pad(values, ((0, 3), *[(0, 0)] * (values.ndim - 1)))
  batch['static'] = {key: rows(values) for key, values in batch['static'].items()}
  batch['vitals'] = {key: rows(values) for key, values in batch['vitals'].items()}
  found = summarise([batch], MODALITIES)
  np.testing.assert_array_equal(found.value, expected.value)
  np.testing.assert_array_equal(found.row, expected.row)
  np.testing.assert_array_equal(found.label, expected.label)
