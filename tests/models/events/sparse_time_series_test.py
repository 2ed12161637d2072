"""The STE's tokens and windows against slow NumPy, event by event."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import numpy as np
import pytest

from medm2t_jax.models.events.sparse_time_series import SparseTimeSeriesEncoder
from tests.support import fake_batch

BASE = dataclasses.replace(fake_batch.config().modality('labs').config, width=8)


def make(encoding, accumulation='mean'):
  config = dataclasses.replace(
    BASE, value_encoding=encoding, pooling='tokens', accumulation=accumulation
  )
  model = SparseTimeSeriesEncoder(config)
  events = fake_batch.batch(rows=5, events=20)['labs']
  valid = np.ones(5, bool)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), events, valid, train=False))
  variables = fake_batch.variables(shapes)
  # Repeated knots, an unseen item and an unseen category.
  variables['fitted']['knots'][0, 8:] = variables['fitted']['knots'][0, 8]
  variables['fitted']['item_seen'][1] = False
  variables['fitted']['category_seen'][3, 1] = False
  return model, config, variables, events


def token(config, params, fitted, item, value, category):
  """Vector of one event: sum of its value vectors times its item's vector."""
  first = sum(count or 11 for count in config.categories[:item])
  none = params['value_table'][-1] * params['source_table'][-1]
  source = params['source_table'][item]
  if not fitted['item_seen'][item]:
    return none
  if config.categories[item]:
    if category < 0 or not fitted['category_seen'][item, category]:
      return none
    return params['value_table'][first + category] * source
  knots = fitted['knots'][item]
  value = min(max(value, knots[0]), knots[-1])
  if config.value_encoding == 'bins':
    place = sum(value > knot for knot in knots[1:11])
    return params['value_table'][first + place] * source
  total = np.zeros(config.width)
  for q in range(11):
    width = knots[q + 1] - knots[q]
    filled = min(max((value - knots[q]) / width, 0), 1) if width > 0 else 0
    weight = filled - fitted['encoding_mean'][item, q]
    total += weight * params['value_table'][first + q]
  return total * source


@pytest.mark.parametrize(
  ('encoding', 'accumulation'),
  [('bins', 'mean'), ('piecewise_linear', 'none'), ('piecewise_linear', 'mean')],
)
def test_windows_match_slow_numpy(encoding, accumulation):
  model, config, variables, events = make(encoding, accumulation)
  windows, seen = jax.jit(
    lambda: model.apply(variables, events, method=SparseTimeSeriesEncoder.windows)
  )()
  starts = [-np.inf, *variables['fitted']['time_cuts']]
  ends = [*variables['fitted']['time_cuts'], np.inf]
  params = variables['params']
  for row, window in itertools.product(range(5), range(len(ends))):
    vectors = []
    for i in np.flatnonzero(events['mask'][row]):
      place = np.searchsorted(ends, events['time'][row, i])
      assert starts[place] < events['time'][row, i] <= ends[place]
      if place > window or (accumulation == 'none' and place < window):
        continue
      fields = (events[key][row, i] for key in ('item', 'value', 'category'))
      vectors.append(token(config, params, variables['fitted'], *fields))
    assert seen[row, window] == bool(vectors)
    none = params['value_table'][-1] * params['source_table'][-1]
    expected = np.mean(vectors, axis=0) if vectors else none
    np.testing.assert_allclose(windows[row, window], expected, atol=1e-5)


def test_bins_are_right_closed_and_unknown_values_take_the_none_id():
  model, config, variables, _ = make('bins')
  knots = np.arange(12, dtype=np.float32)
  variables['fitted']['knots'][0] = knots
  value = np.array([[-5, 1, 1.5, 10, 99, np.nan, 0, 0]], np.float32)
  item = np.array([[0, 0, 0, 0, 0, 0, 1, 3]], np.int32)
  category = np.array([[-1] * 7 + [1]], np.int32)
  fields = {'item': item, 'value': value, 'category': category}
  tokens: Any = model.apply(variables, fields, method='tokenize')
  ids, _, known = tokens
  none = len(config.item_of_id) - 1
  assert ids[0, :, 0].tolist() == [0, 0, 1, 9, 10, none, none, none]
  assert known[0].tolist() == [True] * 5 + [False] * 3


def test_order_of_events_and_padding_change_nothing():
  model, _, variables, events = make('bins')
  order = np.random.default_rng(1).permutation(20)
  shuffled = {key: value[:, order] for key, value in events.items()}
  padded = {key: np.pad(value, ((0, 0), (0, 7))) for key, value in events.items()}
  apply = jax.jit(lambda e: model.apply(variables, e, np.ones(5, bool), train=False))
  expected = apply(events)
  for other in (shuffled, padded):
    for ours, theirs in zip(
      jax.tree.leaves(apply(other)), jax.tree.leaves(expected), strict=True
    ):
      np.testing.assert_allclose(ours, theirs, atol=1e-5)
