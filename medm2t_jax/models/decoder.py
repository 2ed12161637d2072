"""Decoder of every stage: one hidden layer, then a Linear to the outputs."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from medm2t_jax.models.layers.mlp import Mlp


class Decoder(nn.Module):
  """Hidden layer and outputs.

  Fitted variable `offset` (outputs): log class prior, or mean label in days; it is
  added to the outputs, so that training starts at the prior.

  Attributes:
    hidden: width of the hidden layer.
    outputs: number of classes, or 1.
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
    """Args: x encoded units; mask valid units, for BatchNorm; train."""
    mlp = Mlp((self.hidden,), self.dropout, self.axis_name, self.dtype, name='hidden')
    return OutputLayer(self.outputs, name='output')(mlp(x, mask, train=train))


class OutputLayer(nn.Module):
  """Linear to the outputs plus the fitted `offset`, in float32."""

  outputs: int

  @nn.compact
  def __call__(self, x: Float[Array, 'u e']) -> Float[Array, 'u c']:
    offset = self.variable('fitted', 'offset', jnp.zeros, (self.outputs,))
    y = nn.Dense(self.outputs, dtype=jnp.float32, name='linear')(x.astype(jnp.float32))
    return y + offset.value[jnp.newaxis]
