"""Statistics of items against slow NumPy, item by item and window by window."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import numpy as np
import pytest

from data_pipeline.format.schema import DataError
from medm2t_jax.models.events.sparse_time_series import SparseTimeSeriesEncoder
from tests.support import fake_batch

OPTIONS = {
  'value_encoding': 'piecewise_linear',
  'pooling': 'statistics',
  'sequence': 'mean_last',
}
ROWS = 5


@pytest.fixture(scope='module')
def encoder() -> Any:
  config = fake_batch.config(**OPTIONS).modality('labs').config
  model = SparseTimeSeriesEncoder(dataclasses.replace(config, width=8))
  events = fake_batch.batch(rows=ROWS, events=30)['labs']
  events['time'] = np.round(events['time'])  # some at the same time
  valid = np.ones(ROWS, bool)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), events, valid, train=False))
  variables = fake_batch.variables(shapes)
  variables['fitted']['item_seen'][1] = False
  return model, variables, events


def thermometer(fitted, item, value):
  knots = fitted['knots'][item]
  width = np.diff(knots)
  filled = np.clip((value - knots[:-1]) / np.where(width > 0, width, 1), 0, 1)
  return np.where(width > 0, filled, 0) - fitted['encoding_mean'][item]


def expected_window(config, variables, events, row, window):
  """Vector before LayerNorm, of one row's window."""
  fitted, params = variables['fitted'], variables['params']['item_statistics']
  ends = [*fitted['time_cuts'], np.inf]
  total = np.zeros(8)
  any_event = False
  for item, count in enumerate(config.categories):
    places = [
      i
      for i in np.flatnonzero(events['mask'][row] & (events['item'][row] == item))
      if np.searchsorted(ends, events['time'][row, i]) <= window
    ]
    any_event |= bool(places)
    if not fitted['item_seen'][item]:
      continue
    if count:
      places = [i for i in places if events['category'][row, i] >= 0]
      encode = lambda value, count=count: np.eye(count)[int(value)]
      value = events['category'][row]
    else:
      encode = lambda value, item=item: thermometer(fitted, item, value)
      value = events['value'][row]
    if not places:
      continue
    time = events['time'][row]
    inside = [i for i in places if np.searchsorted(ends, time[i]) == window]
    latest = max(time[i] for i in places)
    first = config.first_ids[item]
    ids = slice(first, first + (count or 11))
    every = {i: encode(value[i]) for i in places}
    found = [
      np.mean(list(every.values()), axis=0),
      np.mean([every[i] for i in inside] or [0 * every[places[0]]], axis=0),
      encode(max(value[i] for i in places if time[i] == latest)),
      encode(max(value[i] for i in places)),
      encode(min(value[i] for i in places)),
    ]
    for table, encoding in zip(params['statistic_table'], found, strict=True):
      total += encoding @ table[ids]
    end = ends[window] if window < len(ends) - 1 else 0.0
    rates = [np.log1p(len(places)), np.log1p(len(inside)), np.exp(-(end - latest) / 12)]
    for table, rate in zip(params['rate_table'], rates, strict=True):
      total += rate * table[item]
  return total, any_event


def test_windows_match_slow_numpy(encoder):
  model, variables, events = encoder
  windows, seen = jax.jit(
    lambda: model.apply(variables, events, method=SparseTimeSeriesEncoder.windows)
  )()
  norm = variables['params']['item_statistics']['norm']
  for row, window in itertools.product(range(ROWS), range(windows.shape[1])):
    total, any_event = expected_window(model.config, variables, events, row, window)
    scaled = (total - total.mean()) / np.sqrt(total.var() + 1e-6)
    expected = scaled * norm['scale'] + norm['bias']
    np.testing.assert_allclose(windows[row, window], expected, atol=1e-5)
    assert seen[row, window] == any_event


def test_mean_and_last_ignore_windows_without_events(encoder):
  model, variables, events = encoder
  late = {**events, 'mask': events['mask'] & (events['time'] > -6)}
  valid = np.ones(ROWS, bool)
  encode = lambda bound: (bound.windows(late), bound(late, valid, train=False))
  (windows, seen), encoded = jax.jit(lambda: encode(model.bind(variables)))()
  assert not seen[:, 0].any() and seen.any()
  mlp = jax.jit(
    lambda pooled: model.bind(variables).mlp(pooled, np.ones(1, bool), train=False)
  )
  for row in np.flatnonzero(seen.any(axis=1)):
    pooled = np.concatenate([windows[row][seen[row]].mean(0), windows[row][-1]])
    np.testing.assert_allclose(encoded.summary[row], mlp(pooled[None])[0], atol=1e-5)


def test_order_and_padding_change_nothing(encoder):
  model, variables, events = encoder
  order = np.random.default_rng(0).permutation(events['mask'].shape[1])
  shuffled = {name: array[:, order] for name, array in events.items()}
  padded = {name: np.pad(array, ((0, 0), (0, 9))) for name, array in events.items()}
  valid = np.ones(ROWS, bool)
  encode = jax.jit(lambda given: model.apply(variables, given, valid, train=False))
  expected = encode(events)
  for given in (shuffled, padded):
    found = encode(given)
    np.testing.assert_allclose(found.summary, expected.summary, atol=1e-5)
    np.testing.assert_allclose(found.tokens, expected.tokens, atol=1e-5)


def test_gradients_are_finite_and_input_dropout_drops_items(encoder):
  model, variables, events = encoder
  config = dataclasses.replace(model.config, input_dropout=0.5, window_dropout=0.5)
  dropping = SparseTimeSeriesEncoder(config)

  def loss(params, key):
    out, _ = dropping.apply(
      {**variables, 'params': params}, events, np.ones(ROWS, bool), train=True,
      mutable=['batch_stats'], rngs={'dropout': key},
    )  # fmt: skip
    return (out.summary**2).sum()

  values, gradient_of = [], jax.jit(jax.value_and_grad(loss))
  for seed in range(2):
    value, gradient = gradient_of(variables['params'], jax.random.key(seed))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    values.append(float(value))
  assert values[0] != values[1]
  same, expected = (
    jax.jit(
      lambda one=one: one.apply(variables, events, np.ones(ROWS, bool), train=False)
    )()
    for one in (dropping, model)
  )
  np.testing.assert_array_equal(same.summary, expected.summary)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'value_encoding': 'bins'}, "needs config.model.value_encoding='piecewise_linear'"),
    ({'accumulation': 'none'}, "needs config.model.accumulation='mean'"),
    ({'pooling': 'tokens', 'input_dropout': 0.1}, 'window_dropout need'),
    ({'window_dropout': 1.0}, 'at least 0 and below 1'),
  ],
)
def test_options_that_do_not_suit_are_refused(options, message):
  with pytest.raises(DataError, match=message):
    fake_batch.config(**{**OPTIONS, **options})


def test_gates_close_values_and_leave_counts(encoder):
  model, variables, events = encoder
  apply = jax.jit(
    lambda given, variables: model.apply(
      variables, given, method=SparseTimeSeriesEncoder.windows
    )[0]
  )
  windows = lambda given, variables=variables: apply(given, variables)
  gates = np.ones(events['mask'].shape, np.float32)
  np.testing.assert_allclose(
    windows({**events, 'token_gate': gates}), windows(events), atol=1e-6
  )
  params = variables['params']
  tables = params['item_statistics']
  without = {**tables, 'statistic_table': 0 * tables['statistic_table']}
  counts_only = {**variables, 'params': {**params, 'item_statistics': without}}
  closed = windows({**events, 'token_gate': 0 * gates})
  np.testing.assert_allclose(closed, windows(events, counts_only), atol=1e-6)
  # The gate of an event counts where its value does: of the last one, of the largest.
  chosen = {name: array[:1, :2] for name, array in events.items()}
  chosen.update(
    item=np.zeros((1, 2), np.int32), mask=np.ones((1, 2), bool),
    value=np.array([[1.0, -1.0]], np.float32), time=np.array([[-0.2, -0.1]], np.float32),
  )  # fmt: skip
  for place, statistics in ((0, [0, 1, 3]), (1, [0, 1, 2, 4])):
    gate = np.where(np.arange(2) == place, 0.0, 1.0).astype(np.float32)
    moved = []
    for index in range(len(tables['statistic_table'])):
      kept = np.arange(len(tables['statistic_table'])) == index
      only = {**tables, 'statistic_table': tables['statistic_table'] * kept[:, None, None]}
      given = {**variables, 'params': {**params, 'item_statistics': only}}
      closed = windows({**chosen, 'token_gate': gate[np.newaxis]}, given)
      if np.abs(closed - windows(chosen, given)).max() > 1e-4:
        moved.append(index)
    assert moved == statistics
