"""A parameter-efficient ensemble: members share all matrices and differ by their scales
(after TabM, Gorishniy et al. 2025, arXiv 2410.24210).

Every member multiplies every chunk by a number of its own, random at the start, before the
first layer that mixes chunks: without these random numbers the members would all learn the
same.

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

# Adam moves a parameter by about its rate in a step: tables of size 1 would hardly move.
_TABLE_SCALE = 0.02
_MANY = 16  # numbers of a chunk; the vectors of encoders have more


@dataclasses.dataclass(frozen=True)
class EnsembleConfig:
  """Sizes of an ensemble trunk.

  Attributes:
    members: of the ensemble; one has no scales of its own.
    width: of all layers.
    hidden: layers after the one that adds up the chunks.
    dropout: after every layer.
    chunk_dropout: share of the chunks hidden from a member, anew for every sample.
  """

  members: int
  width: int
  hidden: int
  dropout: float
  chunk_dropout: float


class EnsembleTrunk(nn.Module):
  """Outputs of every member from the chunks of a sample.

  The vector of a chunk is computed once for all members, which differ only from there on.
  Fitted variable `offset` (outputs): log class prior, or mean label in days; training
  starts there.

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
      vectors: of encoders, each times a learnt gate that is 0 at first, so that training
        starts from the chunks alone.
      train: with dropout.
    """
    config = self.config
    members, width = config.members, config.width
    dropout = lambda x: Dropout(config.dropout)(x, deterministic=not train)
    cast = lambda x: x.astype(self.dtype)

    x = self._project('chunk_table', chunks)
    if vectors is not None:
      gate = self.param('vector_gate', nn.initializers.zeros, vectors.shape[1:2])
      gate = cast(gate)[jnp.newaxis, :, jnp.newaxis]
      x = jnp.concatenate([x, self._project('vector_table', vectors) * gate], axis=1)
    rows, count = x.shape[:2]
    scale = jnp.ones((1, count))
    if members > 1:
      scale = self.param('chunk_scale', nn.initializers.normal(1.0), (members, count))
    if train and config.chunk_dropout:
      keep = 1 - config.chunk_dropout
      shape = (members, rows, count)
      kept = jax.random.bernoulli(self.make_rng('dropout'), keep, shape)
      kept = kept.astype(jnp.float32) / keep
      x = jnp.einsum('bnw,kbn->kbw', x, cast(kept * scale[:, jnp.newaxis]))
    else:
      x = jnp.einsum('bnw,kn->kbw', x, cast(scale))
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

  def _project(self, name: str, x: Float[Array, 'b n p']) -> Float[Array, 'b n w']:
    """Each chunk by a table of its own."""
    shape = (*x.shape[1:], self.config.width)
    table = self.param(name, nn.initializers.normal(_TABLE_SCALE), shape)
    x, table = x.astype(self.dtype), table.astype(self.dtype)
    if x.shape[2] > _MANY:
      return jnp.einsum('bnp,npw->bnw', x, table)
    return each_by_its_table(x, table)

  def _own(self, name: str, start) -> Float[Array, 'k 1 w']:
    """Numbers that each member has for itself."""
    shape = (self.config.members, self.config.width)
    return self.param(name, start, shape).astype(self.dtype)[:, jnp.newaxis]


@jax.custom_vjp
def each_by_its_table(
  x: Float[Array, 'b n p'], table: Float[Array, 'n p w']
) -> Float[Array, 'b n w']:
  """`einsum('bnp,npw->bnw')`, seven times faster on CPUs.

  XLA has no good product of many small matrices there. A sum of p products of vectors is
  one loop; its own gradient would be a slow one, so that is a product of matrices.
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
