"""Rate, scale, independence of places, of calls and of keys."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medm2t_jax.models.layers.dropout import Dropout

SHAPE = (256, 256)


def dropped(rate=0.3, seed=0, dtype=jnp.float32, shape=SHAPE) -> Any:
  key = jax.random.key(seed, impl='unsafe_rbg')
  x = jnp.ones(shape, dtype)
  return Dropout(rate).apply({}, x, deterministic=False, rngs={'dropout': key})


@pytest.mark.parametrize('rate', [0.05, 0.3, 0.75])
def test_rate_and_scale(rate):
  out = np.asarray(dropped(rate))
  kept = out != 0
  np.testing.assert_allclose(out[kept], 1 / (1 - rate), rtol=1e-6)
  # Five standard deviations of the share of kept entries.
  bound = 5 * (rate * (1 - rate) / kept.size) ** 0.5
  assert abs(kept.mean() - (1 - rate)) < bound
  # Rows and columns are not favoured: the variance of their shares is binomial.
  for axis in (0, 1):
    spread = kept.mean(axis=axis).var() * SHAPE[axis] / (rate * (1 - rate))
    assert 0.6 < spread < 1.5


def test_neighbours_calls_and_keys_are_independent():
  masks = [np.asarray(dropped(0.5, seed)) != 0 for seed in range(3)]
  first = masks[0]
  shifts = [1, 2, 3, 4, 16, 255, 256, 257, 4096]
  others = [np.roll(first.ravel(), shift).reshape(SHAPE) for shift in shifts]
  others += [*masks[1:], first.T, first[::-1]]
  for other in others:
    agreement = (first == other).mean()
    assert abs(agreement - 0.5) < 5 * 0.5 / first.size**0.5


def test_two_layers_of_one_shape_differ_and_one_key_repeats():
  class Two(Dropout):
    def __call__(self, x, *, deterministic):
      return jnp.stack([Dropout.__call__(self, x, deterministic=False) for _ in range(2)])

  key = {'dropout': jax.random.key(0)}
  two: Any = Two(0.5).apply({}, jnp.ones((64, 64)), deterministic=False, rngs=key)
  first, second = two
  assert abs(float((first == second).mean()) - 0.5) < 0.05
  np.testing.assert_array_equal(dropped(seed=1), dropped(seed=1))


def test_gradient_takes_the_same_mask_and_inference_changes_nothing():
  key = {'dropout': jax.random.key(0)}
  dropout: Any = Dropout(0.3).apply
  apply = lambda x, off=False: dropout({}, x, deterministic=off, rngs=key)
  x = jax.random.normal(jax.random.key(1), (32, 8))
  gradient = jax.jit(jax.grad(lambda x: jnp.sum(apply(x))))(x)
  np.testing.assert_allclose(gradient * x, apply(x), rtol=1e-6)
  np.testing.assert_array_equal(apply(x, True), x)
  assert dropped(dtype=jnp.bfloat16).dtype == jnp.bfloat16
