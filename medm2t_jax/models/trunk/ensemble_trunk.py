"""A parameter-efficient ensemble: members share all matrices and differ by their scales.

Source: TabM, Gorishniy et al. 2025, arXiv 2410.24210.

Every member multiplies every chunk by its own factor, random at the start, before the first
layer that mixes chunks: without these factors, all members would learn the same.

Letters: b rows, n chunks of p numbers, v vectors of e numbers, k members, w width,
c outputs.
"""

from __future__ import annotations

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from medm2t_jax.models.layers.dropout import Dropout

# Adam moves a parameter by about the learning rate per step, so tables of size 1 would
# hardly move.
_TABLE_SCALE = 0.02
_BLOCK = 32  # chunks whose vectors for a batch stay in the cache of a core


@dataclasses.dataclass(frozen=True)
class EnsembleConfig:
  """Sizes of an ensemble trunk.

  Attributes:
    members: number of members; a single one has no scales.
    width: of all layers.
    hidden: number of layers after the one that adds up the chunks.
    dropout: after every layer.
    chunk_dropout: share of the chunks hidden from a member, drawn for every sample.
  """

  members: int
  width: int
  hidden: int
  dropout: float
  chunk_dropout: float


class EnsembleTrunk(nn.Module):
  """Outputs of every member from the chunks of a sample.

  The vector of a chunk is computed once for all members, which only differ after it.
  Fitted variable `offset` (outputs): log class prior, or mean label; training starts there.

  Attributes:
    config: sizes.
    outputs: number of classes, or 1.
    dtype: of the computation; outputs are float32.
  """

  config: EnsembleConfig
  outputs: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    chunks: Float[Array, 'b n p'],
    vectors: Float[Array, 'b v e'] | None = None,
    *,
    train: bool,
  ) -> Float[Array, 'k b c']:
    """Outputs of the members.

    Args:
      chunks: 0 where absent.
      vectors: of encoders, each times a learnt gate that starts at 0, so that training
        starts from the chunks alone.
      train: whether to use dropout.
    """
    config = self.config
    members, width = config.members, config.width
    dropout = lambda x: Dropout(config.dropout)(x, deterministic=not train)
    cast = lambda x: x.astype(self.dtype)

    count = chunks.shape[1]
    chunks, table = cast(chunks), cast(self._table('chunk_table', chunks))
    gated = None
    if vectors is not None:
      count += vectors.shape[1]
      gate = self.param('vector_gate', nn.initializers.zeros, vectors.shape[1:2])
      of_vectors = cast(self._table('vector_table', vectors))
      gated = jnp.einsum('bvp,vpw->bvw', cast(vectors), of_vectors)
      gated = gated * cast(gate)[jnp.newaxis, :, jnp.newaxis]
    scale = jnp.ones((1, count))
    if members > 1:
      scale = self.param('chunk_scale', nn.initializers.normal(1.0), (members, count))
    if train:
      x = each_by_its_table(chunks, table)
      x = x if gated is None else jnp.concatenate([x, gated], axis=1)
      x = self._kept(x, scale)
    else:
      x = sum_of_chunks(chunks, table, cast(scale[:, : chunks.shape[1]]))
      if gated is not None:
        x = x + jnp.einsum('bvw,kv->kbw', gated, cast(scale[:, chunks.shape[1] :]))
    bias = cast(self.param('chunk_bias', nn.initializers.zeros, (width,)))
    x = x + bias[jnp.newaxis, jnp.newaxis]
    x = dropout(nn.relu(nn.LayerNorm(dtype=self.dtype, name='norm')(x)))

    for layer in range(config.hidden):
      x = x * self._own(f'scale_in_{layer}', nn.initializers.ones)
      x = nn.Dense(width, use_bias=False, dtype=self.dtype, name=f'hidden_{layer}')(x)
      x = x * self._own(f'scale_out_{layer}', nn.initializers.ones)
      x = x + self._own(f'bias_{layer}', nn.initializers.zeros)
      x = dropout(nn.relu(x))
    head = self.param(
      'head',
      nn.initializers.lecun_normal(in_axis=1, out_axis=2, batch_axis=0),
      (members, width, self.outputs),
    )
    head_bias = self.param('head_bias', nn.initializers.zeros, (members, self.outputs))
    offset = self.variable('fitted', 'offset', jnp.zeros, (self.outputs,)).value
    scale = self.variable('fitted', 'output_scale', jnp.ones, ()).value
    outputs = jnp.einsum('kbw,kwc->kbc', x, cast(head)).astype(jnp.float32)
    return outputs * scale + (head_bias * scale + offset[jnp.newaxis])[:, jnp.newaxis]

  def _table(self, name: str, x: Float[Array, 'b n p']) -> Float[Array, 'n p w']:
    """A parameter with a table for each chunk."""
    shape = (*x.shape[1:], self.config.width)
    return self.param(name, nn.initializers.normal(_TABLE_SCALE), shape)

  def _kept(
    self, x: Float[Array, 'b n w'], scale: Float[Array, 'k n']
  ) -> Float[Array, 'k b w']:
    """Sums the chunks, scaled by each member, without those that dropout hides."""
    if not self.config.chunk_dropout:
      return jnp.einsum('bnw,kn->kbw', x, scale.astype(self.dtype))
    keep = 1 - self.config.chunk_dropout
    shape = (len(scale), *x.shape[:2])
    kept = jax.random.bernoulli(self.make_rng('dropout'), keep, shape)
    kept = kept.astype(jnp.float32) / keep
    kept = (kept * scale[:, jnp.newaxis]).astype(self.dtype)
    return jnp.einsum('bnw,kbn->kbw', x, kept)

  def _own(self, name: str, start) -> Float[Array, 'k 1 w']:
    """A parameter with separate values for each member."""
    shape = (self.config.members, self.config.width)
    return self.param(name, start, shape).astype(self.dtype)[:, jnp.newaxis]


def sum_of_chunks(
  x: Float[Array, 'b n p'], table: Float[Array, 'n p w'], scale: Float[Array, 'k n']
) -> Float[Array, 'k b w']:
  """`einsum('bnp,npw,kn->kbw')`: for each member the scaled sum of the chunks' vectors.

  On CPUs the vectors of one block of chunks are added up before those of the next are
  computed. Together they do not fit into a core's cache, which takes three times the
  processor time (docs/performance.md, "Serving").
  """
  # Chunks first in every product, so that no result is transposed.
  given = x.swapaxes(0, 1), table, scale
  return jax.lax.platform_dependent(*given, cpu=_by_blocks, default=_sum)


def _sum(x: Array, table: Array, scale: Array) -> Array:
  return jnp.einsum('kn,nbw->kbw', scale, jnp.einsum('nbp,npw->nbw', x, table))


def _by_blocks(x: Array, table: Array, scale: Array) -> Array:
  whole = x.shape[0] // _BLOCK

  def add(block: Array, total: Array) -> Array:
    part = lambda array, axis: jax.lax.dynamic_slice_in_dim(
      array, block * _BLOCK, _BLOCK, axis
    )
    return total + _sum(part(x, 0), part(table, 0), part(scale, 1))

  rest = slice(whole * _BLOCK, None)
  total = _sum(x[rest], table[rest], scale[:, rest])
  return jax.lax.fori_loop(0, whole, add, total) if whole else total


@jax.custom_vjp
def each_by_its_table(
  x: Float[Array, 'b n p'], table: Float[Array, 'n p w']
) -> Float[Array, 'b n w']:
  """`einsum('bnp,npw->bnw')` of training, where it is seven times faster on CPUs.

  A sum of p products of vectors is one loop; its gradient would be slow, so that is
  computed as a product of matrices.
  """
  parts = (x[:, :, i, jnp.newaxis] * table[jnp.newaxis, :, i] for i in range(x.shape[2]))
  return functools.reduce(jnp.add, parts)


def _forward(x, table):
  return each_by_its_table(x, table), (x, table)


def _backward(kept, gradient):
  x, table = kept
  of_x = jnp.einsum('bnw,npw->bnp', gradient, table)
  return of_x, jnp.einsum('bnw,bnp->npw', gradient, x)


each_by_its_table.defvjp(_forward, _backward)
