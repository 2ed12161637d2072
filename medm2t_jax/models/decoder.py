"""Decoder of every stage: one hidden layer, then a Linear to the outputs."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from medm2t_jax.models.layers.mlp import Mlp


class Decoder(nn.Module):
  """Hidden layer and outputs.

  Fitted variables, from the training labels: `offset` (outputs), the outputs that predict
  their shares or mean; it is added, so that training starts there. `output_scale` (), a
  factor on the layer's numbers: 1 unless the spread of the labels is far from 1.

  Attributes:
    hidden: width of the hidden layer.
    outputs: number of classes or labels, or 1.
    dropout: rate.
    axis_name: of BatchNorm.
    dtype: of the hidden layer; outputs are float32.
  """

  hidden: int
  outputs: int
  dropout: float
  axis_name: str | None = None
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'u e'], mask: Bool[Array, ' u'], *, train: bool
  ) -> Float[Array, 'u c']:
    """Outputs for encoded units `x`; `mask` marks the valid ones, for BatchNorm."""
    mlp = Mlp((self.hidden,), self.dropout, self.axis_name, self.dtype, name='hidden')
    return OutputLayer(self.outputs, name='output')(mlp(x, mask, train=train))


class OutputLayer(nn.Module):
  """Linear to the outputs, with the fitted `output_scale` and `offset`, in float32."""

  outputs: int

  @nn.compact
  def __call__(self, x: Float[Array, 'u e']) -> Float[Array, 'u c']:
    offset = self.variable('fitted', 'offset', jnp.zeros, (self.outputs,))
    scale = self.variable('fitted', 'output_scale', jnp.ones, ())
    y = nn.Dense(self.outputs, dtype=jnp.float32, name='linear')(x.astype(jnp.float32))
    return y * scale.value + offset.value[jnp.newaxis]
