"""Bidirectional LSTM over time windows (paper section 3.1).

Every row has all w windows, so there are no lengths. The input projections of all
steps and of both directions are one matrix product; only the recurrence is scanned.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

GATES = 4  # in the order i, f, g, o
# Steps per iteration of the compiled loop: a tenth to a fifth faster (docs/performance.md).
_UNROLL = 5


class BidirectionalRecurrent(nn.Module):
  """Stacked bidirectional layers.

  Attributes:
    features: width per direction.
    layers: number of layers.
    dtype: of the computation.
  """

  features: int
  layers: int = 2
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b w e']
  ) -> tuple[Float[Array, 'b w f'], Float[Array, 'b f']]:
    """Runs the layers.

    Returns:
      Outputs of the last layer, forward and backward concatenated (f = 2 features), and
      the readout: forward at the last window with backward at the first, so that both
      directions have seen all windows.
    """
    final = x[:, -1]
    for layer in range(self.layers):
      x, final = _BidirectionalLayer(self.features, self.dtype, name=f'layer_{layer}')(x)
    return x, final


class _BidirectionalLayer(nn.Module):
  """One layer; parameters of both directions are stacked on axis 0.

  Parameters `input_kernel` (2 e g), `recurrent_kernel` (2 f g) and `bias` (2 g).
  """

  features: int
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b w e']
  ) -> tuple[Float[Array, 'b w f'], Float[Array, 'b f']]:
    features, width = self.features, GATES * self.features
    initializer = _symmetric_uniform(features**-0.5)
    shapes = {
      'input_kernel': (2, x.shape[-1], width),
      'recurrent_kernel': (2, features, width),
      'bias': (2, width),
    }
    weights = {
      name: self.param(name, initializer, shape).astype(self.dtype)
      for name, shape in shapes.items()
    }
    inputs = jnp.einsum('bwe,deg->wdbg', x.astype(self.dtype), weights['input_kernel'])
    inputs = inputs + weights['bias'][jnp.newaxis, :, jnp.newaxis]
    # The backward direction reads the windows in reverse.
    inputs = jnp.stack([inputs[:, 0], jnp.flip(inputs[:, 1], 0)], axis=1)
    zeros = jnp.zeros((2, x.shape[0], features), self.dtype)
    (final, _), outputs = jax.lax.scan(
      lambda carry, gates: _step(carry, gates, weights),
      (zeros, zeros),
      inputs,
      unroll=_UNROLL,
    )
    outputs = jnp.concatenate([outputs[:, 0], jnp.flip(outputs[:, 1], 0)], axis=-1)
    return outputs.swapaxes(0, 1), jnp.concatenate([final[0], final[1]], axis=-1)


def _step(carry, inputs, weights):
  hidden, cell = carry
  gates = inputs + jnp.einsum('dbf,dfg->dbg', hidden, weights['recurrent_kernel'])
  i, f, g, o = jnp.split(gates, 4, axis=-1)
  cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
  hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
  return (hidden, cell), hidden


def _symmetric_uniform(bound: float):
  def initialize(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return initialize
