"""The ensemble trunk against a slow oracle, member by member."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medm2t_jax.models.trunk.ensemble_trunk import (
  EnsembleConfig,
  EnsembleTrunk,
  each_by_its_table,
  sum_of_chunks,
)
from tests.support import fake_batch

ROWS, COUNT, SIZE, VECTORS, EMBEDDING = 5, 7, 10, 2, 6


def make(members=3, outputs=2, **changes):
  options = {'width': 8, 'hidden': 2, 'dropout': 0.1, 'chunk_dropout': 0.3, **changes}
  return EnsembleTrunk(EnsembleConfig(members=members, **options), outputs)


def inputs(seed=0):
  rng = np.random.default_rng(seed)
  chunks = rng.normal(size=(ROWS, COUNT, SIZE)).astype(np.float32)
  chunks[1, 2:] = 0
  return chunks, rng.normal(size=(ROWS, VECTORS, EMBEDDING)).astype(np.float32)


def variables_of(trunk, *given):
  shapes = jax.eval_shape(
    lambda: trunk.init(jax.random.key(0, impl='unsafe_rbg'), *given, train=False)
  )
  return fake_batch.variables(shapes)


def oracle(variables, chunks, vectors=None):
  """Outputs (k b c), in float64, one member after the other."""
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables['params'])
  members = len(p['head'])
  result = []
  for k in range(members):
    rows = []
    for b in range(len(chunks)):
      pieces = [chunks[b, n] @ p['chunk_table'][n] for n in range(COUNT)]
      if vectors is not None:
        pieces += [
          p['vector_gate'][v] * (vectors[b, v] @ p['vector_table'][v])
          for v in range(VECTORS)
        ]
      scale = p['chunk_scale'][k] if members > 1 else np.ones(len(pieces))
      x = sum(s * piece for s, piece in zip(scale, pieces, strict=True)) + p['chunk_bias']
      x = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
      x = np.maximum(x * p['norm']['scale'] + p['norm']['bias'], 0)
      for layer in range(2):
        x = (x * p[f'scale_in_{layer}'][k]) @ p[f'hidden_{layer}']['kernel']
        x = np.maximum(x * p[f'scale_out_{layer}'][k] + p[f'bias_{layer}'][k], 0)
      y = x @ p['head'][k] + p['head_bias'][k]
      fitted = variables['fitted']
      rows.append(y * fitted['output_scale'] + fitted['offset'])
    result.append(rows)
  return np.array(result)


@pytest.mark.parametrize('members', [1, 3])
@pytest.mark.parametrize('with_vectors', [False, True])
def test_every_member_equals_the_oracle(members, with_vectors):
  chunks, vectors = inputs()
  given = (chunks, vectors) if with_vectors else (chunks,)
  trunk = make(members)
  variables = variables_of(trunk, *given)
  found = jax.jit(lambda *x: trunk.apply(variables, *x, train=False))(*given)
  assert found.shape == (members, ROWS, 2)
  np.testing.assert_allclose(found, oracle(variables, *given), rtol=1e-4, atol=1e-4)


def test_members_differ_from_the_start_and_vectors_add_nothing_at_first():
  chunks, vectors = inputs()
  trunk = make(members=4)
  key = jax.random.key(0, impl='unsafe_rbg')
  init = jax.jit(lambda: trunk.init(key, chunks, vectors, train=False))
  variables = init()
  apply = jax.jit(lambda v: trunk.apply(variables, chunks, v, train=False))
  found = np.asarray(apply(vectors))
  assert np.abs(found - found[:1]).max(axis=(1, 2))[1:].min() > 1e-3
  np.testing.assert_array_equal(apply(100 * vectors), found)


def test_each_member_is_hidden_other_chunks_and_a_row_keeps_its_mean():
  """The sum of the chunks over many draws is on average that without dropout."""
  chunks, _ = inputs()
  draws = 3000
  trunk = make(members=2, hidden=0, dropout=0.0, chunk_dropout=0.5)
  variables = variables_of(trunk, chunks)
  # The normed sum is a line in one number where the width is 2: look at one chunk alone.
  one = np.zeros_like(chunks[:1])
  one[0, 0] = chunks[0, 0]
  many = np.repeat(one, draws, axis=0)
  key = jax.random.key(0, impl='unsafe_rbg')
  apply = jax.jit(
    lambda x, key: trunk.apply(variables, x, train=True, rngs={'dropout': key})
  )
  found = np.asarray(apply(many, key))[:, :, 0]
  without = jax.jit(lambda x: trunk.apply(variables, x, train=False))
  hidden = np.asarray(without(np.zeros_like(one)))[:, 0, 0]
  shown = np.asarray(without(2 * one))[:, 0, 0]  # what is kept counts twice
  for member in range(2):
    is_hidden = np.isclose(found[member], hidden[member], atol=1e-5)
    is_shown = np.isclose(found[member], shown[member], atol=1e-5)
    assert (is_hidden ^ is_shown).all()
    assert abs(is_hidden.mean() - 0.5) < 0.05
  together = np.isclose(found[0], hidden[0], atol=1e-5) == np.isclose(
    found[1], hidden[1], atol=1e-5
  )
  assert abs(together.mean() - 0.5) < 0.05


def test_training_reaches_every_parameter():
  chunks, vectors = inputs()
  trunk = make(members=3, dropout=0.0, chunk_dropout=0.0)
  variables = variables_of(trunk, chunks, vectors)

  def loss(params):
    out = trunk.apply({**variables, 'params': params}, chunks, vectors, train=True)
    return (out**2).sum()

  for path, gradient in jax.tree_util.tree_leaves_with_path(
    jax.jit(jax.grad(loss))(variables['params'])
  ):
    assert np.abs(gradient).max() > 0, path


def test_the_product_by_tables_and_its_gradients_are_those_of_einsum():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(ROWS, COUNT, SIZE)).astype(np.float32)
  table = rng.normal(size=(COUNT, SIZE, 4)).astype(np.float32)
  plain = lambda x, table: jnp.einsum('bnp,npw->bnw', x, table)
  value = lambda product: jax.jit(
    jax.value_and_grad(lambda *given: jnp.sin(product(*given)).sum(), argnums=(0, 1))
  )
  found, expected = (value(each)(x, table) for each in (each_by_its_table, plain))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected
  )


# Fewer than a block, whole blocks alone, and both.
@pytest.mark.parametrize('count', [COUNT, 64, 70])
def test_the_sum_by_blocks_and_its_gradients_are_those_of_einsum(count):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(ROWS, count, SIZE)).astype(np.float32)
  table = rng.normal(size=(count, SIZE, 4)).astype(np.float32)
  scale = rng.normal(size=(3, count)).astype(np.float32)
  expected = np.einsum('bnp,npw,kn->kbw', *map(np.float64, (x, table, scale)))
  found = jax.jit(sum_of_chunks)(x, table, scale)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
  # Integrated gradients go through it.
  plain = lambda *given: jnp.einsum('bnp,npw,kn->kbw', *given)
  gradient = lambda function: jax.jit(
    jax.grad(lambda x: (function(x, table, scale) ** 2).sum())
  )
  np.testing.assert_allclose(
    gradient(sum_of_chunks)(x), gradient(plain)(x), rtol=1e-4, atol=1e-2
  )
