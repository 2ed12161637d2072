"""Hierarchical Time-Aware Fusion (paper section 3.2).

Micro encoders read short overlapping segments of a sequence at several scales; a macro
encoder reads the sequence of segment vectors. The sequence is a grid of regularly sampled
signals (`GridEncoder`), or the time windows of irregular events
(`medm2t_jax.models.events.sparse_time_series`).

Letters: b rows, g steps, f features of a step, t segments, s steps of a segment, u segments
of all rows, v signals, e embedding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from medm2t_jax.models.encoded import Encoded, summary_as_token
from medm2t_jax.models.layers.attention import CrossAttentionBlock
from medm2t_jax.models.layers.mlp import Mlp
from medm2t_jax.models.layers.resnet1d import ResNet1d
from medm2t_jax.models.options import AttendOver, GridLevels


@dataclasses.dataclass(frozen=True)
class MicroConfig:
  """Micro encoder of one segment length.

  Attributes:
    length: steps of a segment.
    linear: channels after the self-attention.
    plan: of the ResNet1d.
    mlp: width of the segment's vector.
  """

  length: int
  linear: int
  plan: tuple[tuple[int, int], ...]
  mlp: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class HierarchyConfig:
  """Sizes and options of the fusion of one sequence.

  Attributes:
    steps: of the sequence.
    features: of a step; of a grid, its signals.
    segments: overlapping segments per scale.
    levels: 'both', or a single level. 'micro': the mean of all segments with an
      observation replaces the macro encoder. 'macro': the mean of each segment's steps
      replaces self-attention and ResNet1d.
    micro: one per segment length.
    heads: of the self-attention over a segment's steps.
    plan: of the macro ResNet1d.
    mlp: width of the summary.
    kernel: of all convolutions.
    resnet_dropout: of all ResNet1d.
    attention_dropout: of the self-attention.
    dropout: of all MLPs.
  """

  steps: int
  features: int
  segments: int
  levels: GridLevels
  micro: tuple[MicroConfig, ...]
  heads: int
  plan: tuple[tuple[int, int], ...]
  mlp: int
  kernel: int
  resnet_dropout: float
  attention_dropout: float
  dropout: float

  def starts(self, length: int) -> np.ndarray:
    """First step of each segment: evenly spread, the last ends with the sequence."""
    order = np.arange(self.segments)
    return order * (self.steps - length) // max(self.segments - 1, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridConfig(HierarchyConfig):
  """Sizes and options of one grid modality.

  Attributes:
    segment_decoders: hidden widths of the decoders of the segment stages.
    decoder: hidden width of the macro stage's decoder.
    decoder_dropout: of all decoders.
  """

  segment_decoders: tuple[int, ...]
  decoder: int
  decoder_dropout: float


class HierarchicalTimeAwareFusion(nn.Module):
  """A sequence of vectors to segments to one vector.

  Attributes:
    config: sizes and options.
    axis_name: of BatchNorm.
    dtype: of the computation.
  """

  config: HierarchyConfig
  axis_name: str | None = None
  dtype: DTypeLike = jnp.float32

  def setup(self):
    config = self.config
    shared = {'axis_name': self.axis_name, 'dtype': self.dtype}
    self.micro = {
      str(micro.length): SegmentMean(micro, config.dropout, **shared)
      if config.levels == 'macro'
      else MicroEncoder(
        micro,
        config.heads,
        config.kernel,
        config.attention_dropout,
        config.resnet_dropout,
        config.dropout,
        **shared,
      )
      for micro in config.micro
    }
    if config.levels != 'micro':
      self.macro = ResNet1d(config.plan, config.kernel, config.resnet_dropout, **shared)
    self.mlp = Mlp((config.mlp,), config.dropout, **shared)
    self.token_linear = nn.Dense(config.mlp, dtype=self.dtype)

  def fuse(
    self,
    x: Float[Array, 'b g f'],
    known: Bool[Array, 'b g'] | None,
    seen: Bool[Array, 'b g'],
    present: Bool[Array, ' b'],
    valid: Bool[Array, ' b'],
    *,
    train: bool,
    attend_over: AttendOver,
  ) -> Encoded:
    """Both levels: the segments of each scale (`read`), then their sequence.

    Args:
      x: the sequence.
      known: steps that may be read; None: all of them.
      seen: whether there was an observation in this step or before it.
      present: rows with an observation.
      valid: rows that are not padding.
      train: whether to use dropout and the statistics of the batch.
      attend_over: whether tokens are the segments, or only the summary.
    """
    config, units = self.config, valid & present
    vectors = [
      self.read(x, known, units, length=micro.length, train=train) for micro in config.micro
    ]
    x = jnp.concatenate(vectors, axis=-1)
    # A segment before the first observation contains nothing.
    ends = [config.starts(micro.length) + micro.length - 1 for micro in config.micro]
    token_mask = seen[:, np.max(ends, axis=0)]
    if config.levels == 'micro':
      known = token_mask[:, :, jnp.newaxis]
      count = jnp.maximum(jnp.sum(known, axis=1), 1).astype(x.dtype)
      y = jnp.sum(x * known.astype(x.dtype), axis=1) / count
    else:
      y = self.macro(x, units, train=train)
    summary = self.mlp(y.reshape(y.shape[0], -1), units, train=train)
    if attend_over == 'summary':
      return summary_as_token(summary, present)
    return Encoded(self.token_linear(x), token_mask, summary, present)

  def read(
    self,
    x: Float[Array, 'b g f'],
    known: Bool[Array, 'b g'] | None,
    units: Bool[Array, ' b'],
    *,
    length: int,
    train: bool,
  ) -> Float[Array, 'b t e']:
    """The micro level: vectors of the segments of one scale.

    Args:
      x: the sequence.
      known: steps that may be read; None: all of them.
      units: rows that count for BatchNorm.
      length: of the segments.
      train: whether to use dropout and the statistics of the batch.
    """
    index = self.config.starts(length)[:, np.newaxis] + np.arange(length)
    pieces = x[:, index]
    rows, segments = pieces.shape[:2]
    pieces = pieces.reshape(rows * segments, length, x.shape[-1])
    if known is not None:
      known = known[:, index].reshape(rows * segments, length)
    vectors = self.micro[str(length)](
      pieces, known, jnp.repeat(units, segments), train=train
    )
    return vectors.reshape(rows, segments, -1)


class GridEncoder(HierarchicalTimeAwareFusion):
  """Grid to segments to one vector.

  Fitted variables `center` (median) and `scale` (signals). Values are carried forward,
  then filled with the median, then scaled.

  Attributes:
    config: sizes and options.
    axis_name: of BatchNorm.
    dtype: of the computation.
  """

  def setup(self):
    super().setup()
    shape = (self.config.features,)
    fitted = lambda name, init: self.variable('fitted', name, init, shape)
    self.center = fitted('center', jnp.zeros)
    self.scale = fitted('scale', jnp.ones)

  def __call__(
    self,
    grid: Mapping[str, Array],
    valid: Bool[Array, ' b'],
    *,
    train: bool,
    attend_over: AttendOver = 'tokens',
  ) -> Encoded:
    """Encodes `value` and `observed` (b g v).

    Args:
      grid: docs/design.md, "The batch".
      valid: rows that are not padding.
      train: whether to use dropout and the statistics of the batch.
      attend_over: whether tokens are the segments, or only the summary.
    """
    seen = jnp.cumsum(jnp.any(grid['observed'], axis=2), axis=1) > 0
    present = jnp.any(grid['observed'], axis=(1, 2))
    x = self.fill(grid)  # all steps are read, for they are filled
    return self.fuse(x, None, seen, present, valid, train=train, attend_over=attend_over)

  def segments(
    self, grid: Mapping[str, Array], valid: Bool[Array, ' b'], *, length: int, train: bool
  ) -> Float[Array, 'b t e']:
    """Vectors of the segments of one scale."""
    present = valid & jnp.any(grid['observed'], axis=(1, 2))
    return self.read(self.fill(grid), None, present, length=length, train=train)

  def fill(self, grid: Mapping[str, Array]) -> Float[Array, 'b g f']:
    """Last observed value or the median, scaled."""
    value, observed = grid['value'], grid['observed']
    step = jnp.arange(observed.shape[1])[jnp.newaxis, :, jnp.newaxis]
    last = jax.lax.cummax(jnp.where(observed, step, -1), axis=1)
    carried = jnp.take_along_axis(value, jnp.maximum(last, 0), axis=1)
    row = lambda variable: variable.value[jnp.newaxis, jnp.newaxis]
    filled = jnp.where(last >= 0, carried, row(self.center))
    scaled = (filled - row(self.center)) / row(self.scale)
    if 'value_gate' in grid:
      # A value that is carried forward keeps its gate.
      scaled = scaled * jnp.take_along_axis(
        grid['value_gate'], jnp.maximum(last, 0), axis=1
      )
    return scaled


class MicroEncoder(nn.Module):
  """Self-attention over the steps of a segment, Linear, ResNet1d, MLP."""

  config: MicroConfig
  heads: int
  kernel: int
  attention_dropout: float
  resnet_dropout: float
  dropout: float
  axis_name: str | None = None
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'u s f'],
    known: Bool[Array, 'u s'] | None,
    mask: Bool[Array, ' u'],
    *,
    train: bool,
  ) -> Float[Array, 'u e']:
    """Encodes pieces `x`, reading `known` steps; `mask`: the valid ones, for BatchNorm."""
    shared = {'axis_name': self.axis_name, 'dtype': self.dtype}
    if known is None:
      known = jnp.ones(x.shape[:2], bool)
    attention = CrossAttentionBlock(
      self.heads, self.attention_dropout, self.dtype, name='attention'
    )
    x = attention(x, x, known, train)
    x = nn.Dense(self.config.linear, dtype=self.dtype, name='linear')(x)
    x = x * known[..., jnp.newaxis].astype(x.dtype)
    resnet = ResNet1d(
      self.config.plan, self.kernel, self.resnet_dropout, **shared, name='resnet'
    )
    x = resnet(x, mask, train=train)
    mlp = Mlp((self.config.mlp,), self.dropout, **shared, name='mlp')
    return mlp(x.reshape(x.shape[0], -1), mask, train=train)


class SegmentMean(nn.Module):
  """A segment without the micro level: the mean of its steps, MLP."""

  config: MicroConfig
  dropout: float
  axis_name: str | None = None
  dtype: DTypeLike = jnp.float32

  def setup(self):
    shared = {'axis_name': self.axis_name, 'dtype': self.dtype}
    self.mlp = Mlp((self.config.mlp,), self.dropout, **shared)

  def __call__(
    self,
    x: Float[Array, 'u s f'],
    known: Bool[Array, 'u s'] | None,
    mask: Bool[Array, ' u'],
    *,
    train: bool,
  ) -> Float[Array, 'u e']:
    """Encodes pieces `x`, reading `known` steps; `mask`: the valid ones, for BatchNorm."""
    if known is None:
      mean = jnp.mean(x, axis=1)
    else:
      count = jnp.maximum(jnp.sum(known, axis=1, keepdims=True), 1).astype(x.dtype)
      mean = jnp.einsum('us,usf->uf', known.astype(x.dtype), x) / count
    return self.mlp(mean, mask, train=train)
