"""MLP of the paper: per hidden size Linear, BatchNorm, ReLU, Dropout."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from medm2t_jax.models.layers.batch_norm import BatchNorm
from medm2t_jax.models.layers.dropout import Dropout


class Mlp(nn.Module):
  """Linear (no bias: BatchNorm has one), BatchNorm, ReLU, Dropout per width.

  Attributes:
    widths: hidden sizes.
    dropout: rate.
    axis_name: of BatchNorm.
    dtype: of the computation.
  """

  widths: Sequence[int]
  dropout: float
  axis_name: str | None = None
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b e'], mask: Bool[Array, ' b'], *, train: bool
  ) -> Float[Array, 'b f']:
    """Applies all layers to `x`; `mask` marks the valid rows, for BatchNorm."""
    for width in self.widths:
      x = nn.Dense(width, use_bias=False, dtype=self.dtype)(x)
      x = BatchNorm(self.axis_name, self.dtype)(x, mask, train=train)
      x = Dropout(self.dropout)(nn.relu(x), deterministic=not train)
    return x
