"""BatchNorm over valid rows, synchronised over devices (docs/design.md, "The model").

Sums and counts over the valid rows of all devices are added by a psum and divided once, so
that devices with different numbers of valid rows agree with one device.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

MOMENTUM = 0.9
EPSILON = 1e-5


class BatchNorm(nn.Module):
  """Normalises the last axis with the statistics of valid rows.

  The running variance uses the unbiased estimate, as in PyTorch. A batch without any valid
  row does not change the running statistics and is normalised with them.

  Attributes:
    axis_name: mapped axis over which statistics are shared, None for one device.
    dtype: of the output; statistics are float32.
  """

  axis_name: str | None = None
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, '*rows e'], mask: Bool[Array, '*b'], *, train: bool
  ) -> Float[Array, '*rows e']:
    """Normalises `x`.

    Args:
      x: features on the last axis.
      mask: valid rows; its shape is a prefix of x's.
      train: whether to use the statistics of this batch, which also update the running
        ones; else the running statistics are used.
    """
    features = x.shape[-1]
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (features,))
    running_var = self.variable('batch_stats', 'var', jnp.ones, (features,))
    scale = self.param('scale', nn.initializers.ones, (features,))
    bias = self.param('bias', nn.initializers.zeros, (features,))
    mean, var = running_mean.value, running_var.value
    if train:
      axis_name = None if self.is_initializing() else self.axis_name
      batch_mean, batch_var, count = _moments(x, mask, axis_name)
      some = count > 0
      if not self.is_initializing():
        unbiased = batch_var * (count / jnp.maximum(count - 1, 1))
        move = lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new
        running_mean.value = jnp.where(some, move(mean, batch_mean), mean)
        running_var.value = jnp.where(some, move(var, unbiased), var)
      mean, var = jnp.where(some, batch_mean, mean), jnp.where(some, batch_var, var)
    gain = scale * jax.lax.rsqrt(var + EPSILON)
    as_row = lambda vector: vector.reshape((1,) * (x.ndim - 1) + (features,))
    y = x.astype(jnp.float32) * as_row(gain) + as_row(bias - mean * gain)
    return y.astype(self.dtype)


def _moments(
  x: Float[Array, '*rows e'], mask: Bool[Array, '*b'], axis_name: str | None
) -> tuple[Float[Array, ' e'], Float[Array, ' e'], Float[Array, '']]:
  """Mean, biased variance and count of the valid rows of all devices, float32."""
  total = lambda value: value if axis_name is None else jax.lax.psum(value, axis_name)
  over = tuple(range(x.ndim - 1))
  valid = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
  zero = jnp.zeros((), jnp.float32)
  x = x.astype(jnp.float32)
  entries = math.prod(x.shape[mask.ndim : -1])
  count, summed = total(
    (
      jnp.sum(mask, dtype=jnp.float32) * entries,
      jnp.sum(jnp.where(valid, x, zero), over),
    )
  )
  some = jnp.maximum(count, 1)
  mean = summed / some
  # A second pass, since E[x^2] - E[x]^2 cancels for features far from 0.
  centered = x - mean.reshape((1,) * (x.ndim - 1) + (-1,))
  squares = jnp.sum(jnp.where(valid, jnp.square(centered), zero), over)
  return mean, total(squares) / some, count
