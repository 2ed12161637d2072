"""Bi-Modal Attention of all pairs of modalities at once (paper section 3.3).

For a pair (i, j) the summary of i queries the tokens of j and vice versa, each with its
own block. The parameters of all directions are stacked as [j, r]: target j, and r counts
the other modalities, which query it. All directions are one batched computation, and
tokens are not copied per query.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from medm2t_jax.models.layers.attention import CrossAttentionBlock

Join = Literal['add', 'mul', 'concat']


def pairs(modalities: int) -> list[tuple[int, int]]:
  """Pairs (i, j), i < j, in the order of the pair vectors."""
  return list(itertools.combinations(range(modalities), 2))


class BiModalAttention(nn.Module):
  """Pair vectors of k modalities.

  Attributes:
    heads: number of heads of every block.
    dropout: rate inside the blocks.
    fusion: how both directions form the pair's vector: sum, product, or concatenation.
    dtype: of the computation.
  """

  heads: int
  dropout: float
  fusion: Join = 'add'
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    summaries: Float[Array, 'k b e'],
    tokens: Float[Array, 'k b t e'],
    token_mask: Bool[Array, 'k b t'],
    present: Bool[Array, 'k b'],
    *,
    train: bool,
  ) -> Float[Array, 'p b f e']:
    """Fuses every pair.

    Args:
      summaries: the querying vectors.
      tokens: to attend to, padded to one length.
      token_mask: valid tokens.
      present: a pair is 0 if either modality is absent.
      train: whether to use dropout.

    Returns:
      One vector per pair (f = 1), or two with fusion 'concat'; pairs as in `pairs`.
    """
    count, batch, width = summaries.shape
    index = pairs(count)
    vectors = 2 if self.fusion == 'concat' else 1
    if not index:
      return jnp.zeros((0, batch, vectors, width), summaries.dtype)
    others = [[i for i in range(count) if i != j] for j in range(count)]
    queries = jnp.asarray(summaries)[jnp.array(others)][:, :, :, jnp.newaxis]
    valid = token_mask & present[:, :, jnp.newaxis]
    stacked: dict[str, Any] = {
      'variable_axes': {'params': 0, 'intermediates': 0},
      'split_rngs': {'params': True, 'dropout': True},
    }
    query_axes: Any = (0, None, None, None)
    target_axes: Any = (0, 0, 0, None)
    per_query = nn.vmap(CrossAttentionBlock, in_axes=query_axes, **stacked)
    per_target = nn.vmap(per_query, in_axes=target_axes, **stacked)
    attend = per_target(self.heads, self.dropout, self.dtype, name='block_0')
    attended = attend(queries, tokens, valid, train)[:, :, :, 0]
    # Direction (query i, target j) is row j, at the index of i among the others.
    first = jnp.stack([attended[j, others[j].index(i)] for i, j in index])
    second = jnp.stack([attended[i, others[i].index(j)] for i, j in index])
    fused = self._fuse(first, second)
    both = jnp.stack([present[i] & present[j] for i, j in index])
    return jnp.where(both[:, :, jnp.newaxis, jnp.newaxis], fused, 0.0)

  def _fuse(
    self, first: Float[Array, 'p b e'], second: Float[Array, 'p b e']
  ) -> Float[Array, 'p b f e']:
    if self.fusion == 'concat':
      return jnp.stack([first, second], axis=2)
    fused = first + second if self.fusion == 'add' else first * second
    return fused[:, :, jnp.newaxis]
