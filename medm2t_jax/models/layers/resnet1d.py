"""Pre-activation residual network over time, with two tracks (paper, Table B1).

Channels are last, the layout that XLA convolves fastest on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from medm2t_jax.models.layers.batch_norm import BatchNorm
from medm2t_jax.models.layers.dropout import Dropout

Plan = Sequence[tuple[int, int]]


class ResNet1d(nn.Module):
  """Stem, then one residual unit per entry of the plan.

  Attributes:
    plan: (channels, length) after each unit; each length divides the one before it,
      and the first one the input's.
    kernel: width of the convolutions in steps.
    dropout: rate.
    axis_name: of BatchNorm.
    dtype: of the computation.
  """

  plan: Plan
  kernel: int
  dropout: float
  axis_name: str | None = None
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b s l'], mask: Bool[Array, ' b'], *, train: bool
  ) -> Float[Array, 'b t e']:
    """Applies the network.

    Args:
      x: signals.
      mask: valid rows, for BatchNorm.
      train: whether to use dropout and the statistics of the batch.

    Returns:
      The last activation, length and channels of the plan's last entry.
    """
    channels, length = self.plan[0]
    stride = _stride(x.shape[1], length)
    x = self._convolution(channels, stride, 'stem')(x)
    x = BatchNorm(self.axis_name, self.dtype, name='stem_norm')(x, mask, train=train)
    skip = x
    for index, (channels, length) in enumerate(self.plan):
      stride = _stride(x.shape[1], length)
      name = f'unit_{index}'
      x = self._convolution(channels, 1, f'{name}_first')(x)
      x = self._activation(x, mask, train, f'{name}_first_norm')
      x = self._convolution(channels, stride, f'{name}_second')(x)
      if stride > 1:
        skip = nn.max_pool(skip, (stride,), (stride,))
      if skip.shape[-1] != channels:
        skip = nn.Conv(
          channels, (1,), use_bias=False, dtype=self.dtype, name=f'{name}_skip'
        )(skip)
      skip = x + skip
      x = self._activation(skip, mask, train, f'{name}_second_norm')
    return x

  def _convolution(self, channels: int, stride: int, name: str) -> nn.Conv:
    pad = max(0, (self.kernel - stride + 1) // 2)
    return nn.Conv(
      channels,
      (self.kernel,),
      strides=(stride,),
      padding=[(pad, pad)],
      use_bias=False,
      dtype=self.dtype,
      name=name,
    )

  def _activation(
    self, x: Float[Array, 'b t e'], mask: Bool[Array, ' b'], train: bool, name: str
  ) -> Float[Array, 'b t e']:
    x = BatchNorm(self.axis_name, self.dtype, name=name)(x, mask, train=train)
    return Dropout(self.dropout)(nn.relu(x), deterministic=not train)


def _stride(length_in: int, length_out: int) -> int:
  if length_in % length_out:
    raise ValueError(
      f'ResNet1d cannot go from length {length_in} to {length_out}: the plan needs '
      'lengths that divide the ones before them'
    )
  return length_in // length_out
