"""Filling of the grid against slow NumPy; segments; masks."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from medm2t_jax.models.hierarchical_fusion import GridEncoder
from tests.support import fake_batch

BASE = fake_batch.config().modality('vitals').config


def make(levels='both'):
  config = dataclasses.replace(BASE, levels=levels, micro=BASE.micro[:1], heads=4)
  config = dataclasses.replace(config, plan=((32, 24), (8, 12)))
  model = GridEncoder(config)
  grid = fake_batch.batch(rows=5)['vitals']
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), grid, np.ones(5, bool), train=False)
  )
  return model, fake_batch.variables(shapes), grid


def test_fill_matches_slow_numpy():
  model, variables, grid = make()
  x = model.apply(variables, grid, method='fill')
  fitted = variables['fitted']
  for row in (0, 2):
    for signal in range(8):
      last = fitted['center'][signal]
      for step in range(240):
        if grid['observed'][row, step, signal]:
          last = grid['value'][row, step, signal]
        scaled = (last - fitted['center'][signal]) / fitted['scale'][signal]
        np.testing.assert_allclose(x[row, step, signal], scaled, rtol=1e-5, atol=1e-5)


def test_segments_before_anything_was_observed_are_masked():
  model, variables, grid = make()
  encoded = jax.jit(lambda: model.apply(variables, grid, np.ones(5, bool), train=False))()
  # 24 segments of 12 steps: starts floor(k * 228 / 23); observed from step 30 on.
  first_seen = np.argmax(np.any(grid['observed'][0], axis=1))
  ends = np.arange(24) * 228 // 23 + 11
  assert ends[-1] == 239
  np.testing.assert_array_equal(encoded.token_mask[0], ends >= first_seen)
  assert not encoded.token_mask[2].any()
  assert encoded.present.tolist() == [True, True, False, True, False]


@pytest.mark.parametrize('levels', ['micro', 'macro'])
def test_one_level_alone_is_a_mean_in_place_of_the_other(levels):
  model, variables, grid = make(levels=levels)
  rows = np.ones(5, bool)
  run = jax.jit(
    lambda: (
      model.apply(variables, grid, rows, train=False),
      model.apply(variables, grid, rows, length=12, train=False, method='segments'),
      model.apply(variables, grid, method='fill'),
    )
  )
  encoded, vectors, filled = jax.device_get(run())
  mlp = lambda layer, x: model.apply(
    variables, x, rows, method=lambda module, *args: layer(module)(*args, train=False)
  )
  if levels == 'macro':
    assert 'attention' not in variables['params']['micro_12']
    starts = np.arange(24) * 228 // 23
    expected = [
      mlp(lambda module: module.micro['12'].mlp, filled[:, s : s + 12].mean(axis=1))
      for s in starts
    ]
    np.testing.assert_allclose(vectors, np.stack(expected, axis=1), rtol=1e-5, atol=1e-5)
  else:
    assert 'macro' not in variables['params']
    weight = encoded.token_mask[:, :, np.newaxis]
    assert 0 < weight[0].sum() < 24  # the first segments hold nothing
    mean = (vectors * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), 1)
    expected = mlp(lambda module: module.mlp, mean)
    np.testing.assert_allclose(encoded.summary, expected, rtol=1e-5, atol=1e-5)
