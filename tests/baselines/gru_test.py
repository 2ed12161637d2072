"""The GRU's windows, and that a sample's prediction is its own."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from medm2t_jax.baselines import gru
from medm2t_jax.baselines.windows import window_ends, windowed
from tests.support import fake_batch, kinds

SCHEMA = fake_batch.schema('mortality')
MODALITIES = fake_batch.config('mortality').modalities
ENDS = (-3.0, -1.0, 0.0)


def test_windows_hold_the_means_of_their_hours():
  batch = fake_batch.batch(6, events=40, samples=1)
  batch['labs']['time'][0, -1] = 0.0  # the prediction time is in the last window
  found = windowed([batch], MODALITIES, 24.0)
  labs, rhythm = (
    SCHEMA.modalities['labs'].items,
    SCHEMA.modalities['vitals_categorical'].items,
  )
  levels = [max(1, len(item.categories)) for item in (*labs, *rhythm)]
  assert found.shape == (5, 24, sum(levels) + 8)
  for row in range(5):
    for hour in range(24):
      column = 0
      for name, items in kinds.events(SCHEMA).items():
        events = batch[name]
        start = hour - 24
        inside = events['mask'][row] & (events['time'][row] >= start)
        inside &= (events['time'][row] < start + 1) | (hour == 23)
        for index, item in enumerate(items):
          own = inside & (events['item'][row] == index)
          for level in range(max(1, len(item.categories))):
            values = events['value'][row][own]
            if item.categories:
              values = events['category'][row][own] == level
            expected = values.mean() if len(values) else np.nan
            np.testing.assert_allclose(found[row, hour, column], expected, rtol=1e-4)
            column += 1
      for signal in range(8):
        cells = slice(10 * hour, 10 * hour + 10)
        observed = batch['vitals']['observed'][row, cells, signal]
        values = batch['vitals']['value'][row, cells, signal][observed]
        expected = values.mean() if len(values) else np.nan
        np.testing.assert_allclose(found[row, hour, column + signal], expected, rtol=1e-4)


def test_windows_of_a_whole_history_widen_into_the_past():
  ends = window_ends(None)
  assert ends[-1] == 0 and ends[-2] == pytest.approx(-1)
  assert (np.diff(np.diff(ends[:-1])) < 0).all()
  batch = fake_batch.batch(3, events=1, samples=1)
  batch['labs'] |= {
    'item': np.zeros((3, 1), np.int32),
    'category': np.full((3, 1), -1, np.int32),
    'mask': np.array([[True], [True], [False]]),
    'time': np.array([[-1e6], [-0.5], [0.0]], np.float32),
  }
  observed = ~np.isnan(windowed([batch], MODALITIES, None)[:, :, 0])
  assert observed[0].tolist() == [True] + [False] * (len(ends) - 1)
  assert observed[1].tolist() == [False] * (len(ends) - 1) + [True]


def test_the_network_sees_last_values_masks_and_gaps():
  nan = np.nan
  windows = np.array([[[nan, 2.0], [1.0, nan], [nan, nan]]], np.float32)
  found = np.asarray(gru.with_gaps(windows, np.array(ENDS, np.float32)))[0]
  log = lambda hours: np.log1p(hours) / np.log1p(4)
  expected = [
    [0, 2, 0, 1, log(4), log(0)],
    [1, 2, 1, 0, log(0), log(2)],
    [1, 2, 0, 0, log(1), log(3)],
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_predictions_do_not_depend_on_batch_mates():
  rng = np.random.default_rng(0)
  windows = rng.normal(size=(7, 3, 4)).astype(np.float32)
  windows[rng.random(windows.shape) < 0.5] = np.nan
  static = np.where(rng.random((7, 2)) < 0.3, np.nan, rng.normal(size=(7, 2)))
  label, weight = np.zeros(7, np.float32), np.array([1, 1, 1, 1, 0.5, 1, 0.25], np.float32)
  samples = gru.Samples(windows, static.astype(np.float32), label, weight)
  network = gru.Gru(8, 2, ENDS, 0.3)
  params = network.init(jax.random.key(0), windows, samples.columns, train=False)
  apply = jax.jit(lambda *given: network.apply(params, *given, train=False))
  together = np.asarray(apply(windows, samples.columns))
  assert np.isfinite(together).all()
  batches = list(samples.steps(np.arange(7), 3))
  assert [batch['weight'].sum() for batch in batches] == [3, 2.5, 0.25]
  parts = np.concatenate([apply(b['windows'], b['columns']) for b in batches])
  np.testing.assert_allclose(parts[:7], together, atol=1e-6)
  assert np.ptp(together[:, 0]) > 1e-3
