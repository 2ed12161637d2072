"""Pair vectors that start from 0."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medm2t_jax.models.encoded import Encoded
from medm2t_jax.models.multimodal_fusion import MultimodalFusion
from tests.support import fake_batch

ROWS, TOKENS, WIDTH, MODALITIES, PAIRS = 4, 5, 64, 3, 3
RNG = np.random.default_rng(0)
PRESENT = np.ones((MODALITIES, ROWS), bool)
PRESENT[1, 2] = False
ENCODED = {
  f'modality_{index}': Encoded(
    jnp.asarray(RNG.normal(size=(ROWS, TOKENS, 6)), jnp.float32),
    jnp.asarray(RNG.random((ROWS, TOKENS)) < 0.7),
    jnp.asarray(RNG.normal(size=(ROWS, 6)), jnp.float32),
    jnp.asarray(PRESENT[index]),
  )
  for index in range(MODALITIES)
}


def make(fusion, shared_encoder, **changes):
  config = fake_batch.config(fusion=fusion, shared_encoder=shared_encoder).fusion
  return MultimodalFusion(dataclasses.replace(config, **changes))


def initial(model):
  """Random parameters, and the factor as it is at first: the only one that is compiled."""
  init = lambda encoded: model.init(jax.random.key(0), encoded, train=False)
  params = fake_batch.variables(jax.eval_shape(init, ENCODED))['params']
  factor = jax.jit(lambda encoded: init(encoded)['params']['pair_factor'])(ENCODED)
  return {'params': {**params, 'pair_factor': factor}}


def apply(model):
  compiled = jax.jit(
    lambda variables, encoded: model.apply(variables, encoded, train=False)
  )
  return lambda variables: compiled(variables, ENCODED)


@pytest.mark.parametrize('shared_encoder', ['before', 'after'])
@pytest.mark.parametrize(('fusion', 'vectors'), [('add', 1), ('concat', 2)])
def test_pair_vectors_are_multiplied_by_a_learnt_factor_from_0(
  fusion, vectors, shared_encoder
):
  plain = make(fusion, shared_encoder)
  from_zero = make(fusion, shared_encoder, pairs_from_zero=True)
  variables = initial(from_zero)
  factor = variables['params']['pair_factor']
  np.testing.assert_array_equal(factor, np.zeros(PAIRS))
  others = {k: v for k, v in variables['params'].items() if k != 'pair_factor'}
  expected = apply(plain)({'params': others})
  applied = apply(from_zero)
  out = lambda factor: applied({'params': {**others, 'pair_factor': factor}})
  assert out(factor).shape == expected.shape == (ROWS, WIDTH * (3 + PAIRS * vectors))
  modalities = WIDTH * MODALITIES
  np.testing.assert_array_equal(out(factor)[:, :modalities], expected[:, :modalities])
  assert np.any(expected[:, modalities:]) and not np.any(out(factor)[:, modalities:])
  factors = np.array([1.0, -2.0, 0.5], np.float32)
  by_pair = np.repeat(factors, WIDTH * vectors)
  np.testing.assert_allclose(
    out(factors)[:, modalities:], np.asarray(expected)[:, modalities:] * by_pair, rtol=1e-5
  )
  # It leaves 0 by itself: its own gradient does not vanish there.
  towards = RNG.normal(size=expected.shape).astype(np.float32)
  gradient = jax.grad(lambda factor: jnp.sum(out(factor) * towards))(factor)
  assert np.all(gradient != 0)


def test_without_pairs_there_is_no_factor():
  model = make('none', 'before', pairs_from_zero=True)
  variables = jax.eval_shape(lambda: model.init(jax.random.key(0), ENCODED, train=False))
  assert 'pair_factor' not in variables['params']
