"""All pairs at once against a loop over pairs with blocks of their own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medm2t_jax.models.bimodal_attention import BiModalAttention, pairs
from medm2t_jax.models.layers.attention import CrossAttentionBlock
from tests.support import fake_batch

RNG = np.random.default_rng(0)
SUMMARIES = RNG.normal(size=(3, 4, 8)).astype(np.float32)
TOKENS = RNG.normal(size=(3, 4, 5, 8)).astype(np.float32)
MASK = RNG.random((3, 4, 5)) < 0.7
MASK[:, :, 0] = True
PRESENT = np.ones((3, 4), bool)
PRESENT[1, 2] = False


def make(fusion):
  model = BiModalAttention(2, 0.1, fusion)
  apply = lambda v, *inputs: model.apply(v, *inputs, train=False)
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), SUMMARIES, TOKENS, MASK, PRESENT, train=False)
  )
  return jax.jit(apply), fake_batch.variables(shapes)


@pytest.mark.parametrize('fusion', ['add', 'mul', 'concat'])
def test_matches_a_loop_over_pairs(fusion):
  apply, variables = make(fusion)
  out = apply(variables, SUMMARIES, TOKENS, MASK, PRESENT)
  block = CrossAttentionBlock(2, 0.1)

  def direction(i, j):
    """Summary of i attends to the tokens of j."""
    x = SUMMARIES[i][:, None]
    rank = [other for other in range(3) if other != j].index(i)
    params = jax.tree.map(lambda leaf: leaf[j, rank], variables['params']['block_0'])
    return block.apply({'params': params}, x, TOKENS[j], MASK[j], False)[:, 0]

  for index, (i, j) in enumerate(pairs(3)):
    first, second = direction(i, j), direction(j, i)
    expected = {
      'add': (first + second)[:, None],
      'mul': (first * second)[:, None],
      'concat': jnp.stack([first, second], 1),
    }[fusion]
    both = (PRESENT[i] & PRESENT[j])[:, None, None]
    np.testing.assert_allclose(out[index], np.where(both, expected, 0), atol=1e-5)


def test_every_direction_trains():
  apply, variables = make('add')
  gradients = jax.grad(lambda v: jnp.sum(apply(v, SUMMARIES, TOKENS, MASK, PRESENT) ** 3))(
    variables
  )['params']['block_0']['attention']['value_kernel']
  assert np.all(np.any(gradients != 0, axis=(2, 3, 4)))
