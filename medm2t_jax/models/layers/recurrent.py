"""Bidirectional LSTM and GRU over time windows (paper section 3.1).

Every row has all w windows, so there are no lengths. The input projections of all
steps and of both directions are one matrix product; only the recurrence is scanned.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

Cell = Literal['lstm', 'gru']
GATES = {'lstm': 4, 'gru': 3}
# Steps in one turn of the compiled loop: a tenth to a fifth faster (docs/performance.md).
_UNROLL = 5


class BidirectionalRecurrent(nn.Module):
  """Stacked bidirectional layers.

  Attributes:
    features: width per direction.
    layers: number of layers.
    cell: 'lstm' (gates in the order i, f, g, o) or 'gru' (r, z, n).
    dtype: of the computation.
  """

  features: int
  layers: int = 2
  cell: Cell = 'lstm'
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b w e']
  ) -> tuple[Float[Array, 'b w f'], Float[Array, 'b f']]:
    """Runs the layers.

    Returns:
      Outputs of the last layer, forward beside backward (f = 2 features), and the
      readout: forward at the last window with backward at the first, so that both
      directions have seen all windows.
    """
    final = x[:, -1]
    for layer in range(self.layers):
      x, final = _BidirectionalLayer(
        self.features, self.cell, self.dtype, name=f'layer_{layer}'
      )(x)
    return x, final


class _BidirectionalLayer(nn.Module):
  """One layer; parameters of both directions are stacked on axis 0.

  Parameters `input_kernel` (2 e g), `recurrent_kernel` (2 f g), `bias` (2 g), and for
  the GRU `candidate_bias` (2 f), which the reset gate multiplies.
  """

  features: int
  cell: Cell
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b w e']
  ) -> tuple[Float[Array, 'b w f'], Float[Array, 'b f']]:
    features, width = self.features, GATES[self.cell] * self.features
    initializer = _symmetric_uniform(features**-0.5)
    shapes = {
      'input_kernel': (2, x.shape[-1], width),
      'recurrent_kernel': (2, features, width),
      'bias': (2, width),
    }
    if self.cell == 'gru':
      shapes['candidate_bias'] = (2, features)
    weights = {
      name: self.param(name, initializer, shape).astype(self.dtype)
      for name, shape in shapes.items()
    }
    inputs = jnp.einsum('bwe,deg->wdbg', x.astype(self.dtype), weights['input_kernel'])
    inputs = inputs + weights['bias'][jnp.newaxis, :, jnp.newaxis]
    # The backward direction reads the windows in reverse.
    inputs = jnp.stack([inputs[:, 0], jnp.flip(inputs[:, 1], 0)], axis=1)
    zeros = jnp.zeros((2, x.shape[0], features), self.dtype)
    step = _lstm_step if self.cell == 'lstm' else _gru_step
    (final, _), outputs = jax.lax.scan(
      lambda carry, gates: step(carry, gates, weights),
      (zeros, zeros),
      inputs,
      unroll=_UNROLL,
    )
    outputs = jnp.concatenate([outputs[:, 0], jnp.flip(outputs[:, 1], 0)], axis=-1)
    return outputs.swapaxes(0, 1), jnp.concatenate([final[0], final[1]], axis=-1)


def _lstm_step(carry, inputs, weights):
  hidden, cell = carry
  gates = inputs + jnp.einsum('dbf,dfg->dbg', hidden, weights['recurrent_kernel'])
  i, f, g, o = jnp.split(gates, 4, axis=-1)
  cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
  hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
  return (hidden, cell), hidden


def _gru_step(carry, inputs, weights):
  hidden, unused = carry
  recurrent = jnp.einsum('dbf,dfg->dbg', hidden, weights['recurrent_kernel'])
  reset_in, update_in, candidate_in = jnp.split(inputs, 3, axis=-1)
  reset_rec, update_rec, candidate_rec = jnp.split(recurrent, 3, axis=-1)
  reset = jax.nn.sigmoid(reset_in + reset_rec)
  update = jax.nn.sigmoid(update_in + update_rec)
  inner = candidate_rec + weights['candidate_bias'][:, jnp.newaxis]
  candidate = jnp.tanh(candidate_in + reset * inner)
  hidden = (1 - update) * candidate + update * hidden
  return (hidden, unused), hidden


def _symmetric_uniform(bound: float):
  def initialize(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return initialize
