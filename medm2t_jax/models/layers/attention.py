"""Cross attention block, post-norm, with a mask per key (paper section 3.3)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from medm2t_jax.models.layers.dropout import Dropout

LAYER_NORM_EPSILON = 1e-6
LEAKY_SLOPE = 0.01
FFN_FACTOR = 4


class MultiHeadAttention(nn.Module):
  """Scaled dot-product attention.

  Queries, values and outputs have a bias. Keys have none: it would add the same to
  all logits of a query, which the softmax ignores, and Adam would let it drift.

  With one query per row, the same products are computed in a cheaper order: the key
  projection is applied to the query and the value projection to the attended tokens, so no
  token is projected. `key_kernel` (h d e) and `value_kernel` (h e d) have the head first,
  as this order needs them; with another layout XLA would transpose kernels and results
  in every step.

  The attention weights (b h q t) are stored in 'intermediates' as `attention`.

  Attributes:
    heads: number of heads; divides the width of the query.
    dtype: of the computation; the softmax is float32.
  """

  heads: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    query: Float[Array, 'b q e'],
    tokens: Float[Array, 'b t e'],
    token_mask: Bool[Array, 'b t'],
  ) -> Float[Array, 'b q e']:
    """Attends from `query` to `tokens`; if no token is valid, weights are 0."""
    width = query.shape[-1]
    if width % self.heads:
      raise ValueError(f'width {width} is not a multiple of {self.heads} heads')
    depth = width // self.heads
    kernel = nn.initializers.xavier_uniform
    zeros = nn.initializers.zeros
    weight = lambda name, init, shape: self.param(name, init, shape).astype(self.dtype)
    split = (self.heads, depth)
    query_kernel = weight('query_kernel', kernel(0, (1, 2)), (width, *split))
    key_kernel = weight('key_kernel', kernel(2, (0, 1)), (*split, width))
    value_kernel = weight('value_kernel', kernel(1, (0, 2)), (self.heads, width, depth))
    query_bias = weight('query_bias', zeros, split)
    value_bias = weight('value_bias', zeros, split)
    out_kernel = weight('out_kernel', nn.initializers.lecun_normal((0, 1)), (*split, width))
    out_bias = weight('out_bias', zeros, (width,))
    head_row = lambda bias: bias[jnp.newaxis, jnp.newaxis]

    query, tokens = query.astype(self.dtype), tokens.astype(self.dtype)
    q = jnp.einsum('bqe,ehd->bqhd', query, query_kernel) + head_row(query_bias)
    q = q * depth**-0.5
    single = query.shape[1] == 1
    # Plain batched products with explicit transposes, because einsum chooses slower ones.
    if single:
      scores = jnp.matmul(q[:, 0].swapaxes(0, 1), key_kernel).swapaxes(0, 1)
      logits = jnp.matmul(scores, tokens.swapaxes(1, 2))[:, :, jnp.newaxis]
    else:
      keys = jnp.einsum('bte,hde->bthd', tokens, key_kernel)
      logits = jnp.matmul(q.swapaxes(1, 2), jnp.moveaxis(keys, 1, 3))
    weights = _masked_softmax(logits, token_mask[:, jnp.newaxis, jnp.newaxis])
    self.sow('intermediates', 'attention', weights)
    weights = weights.astype(self.dtype)
    if single:
      attended = jnp.matmul(weights[:, :, 0], tokens).swapaxes(0, 1)
      attended = jnp.matmul(attended, value_kernel).swapaxes(0, 1)[:, jnp.newaxis]
      mass = jnp.sum(weights, -1).swapaxes(1, 2)[..., jnp.newaxis]
      attended = attended + mass * head_row(value_bias)
    else:
      values = jnp.einsum('bte,hed->bthd', tokens, value_kernel) + head_row(value_bias)
      attended = jnp.matmul(weights, values.swapaxes(1, 2)).swapaxes(1, 2)
    out = jnp.einsum('bqhd,hde->bqe', attended, out_kernel)
    return out + out_bias[jnp.newaxis, jnp.newaxis]


class CrossAttentionBlock(nn.Module):
  """h = LN(x + drop(MHA(x, tokens))); LN(h + drop(FFN(h))), FFN 4x LeakyReLU.

  Attributes:
    heads: number of heads.
    dropout: rate.
    dtype: of the computation; LayerNorm statistics are float32.
  """

  heads: int
  dropout: float
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    query: Float[Array, 'b q e'],
    tokens: Float[Array, 'b t e'],
    token_mask: Bool[Array, 'b t'],
    train: bool,
  ) -> Float[Array, 'b q e']:
    """Lets `query` attend to the valid tokens; `train` turns dropout on."""
    width = query.shape[-1]
    drop = lambda x: Dropout(self.dropout)(x, deterministic=not train)
    norm = lambda name: nn.LayerNorm(LAYER_NORM_EPSILON, dtype=self.dtype, name=name)
    attention = MultiHeadAttention(self.heads, self.dtype, name='attention')
    attended = drop(attention(query, tokens, token_mask)).astype(query.dtype)
    h = norm('attention_norm')(query + attended)
    y = nn.Dense(FFN_FACTOR * width, dtype=self.dtype, name='ffn_in')(h)
    y = nn.Dense(width, dtype=self.dtype, name='ffn_out')(nn.leaky_relu(y, LEAKY_SLOPE))
    return norm('ffn_norm')(h + drop(y))


def _masked_softmax(
  logits: Float[Array, 'b h q t'], mask: Bool[Array, 'b 1 1 t']
) -> Float[Array, 'b h q t']:
  """Softmax over valid keys in float32; zeros if there are none."""
  lowest = jnp.finfo(jnp.float32).min
  weights = jax.nn.softmax(jnp.where(mask, logits.astype(jnp.float32), lowest))
  return jnp.where(mask, weights, 0.0)
