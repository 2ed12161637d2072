"""Sizes of Hierarchical Time-Aware Fusion, of a grid or of windows of events."""

from __future__ import annotations

import dataclasses

from data_pipeline.format.items import DataError
from medm2t_jax.modalities.fusion import ATTENTION_DROPOUT, RESNET_DROPOUT
from medm2t_jax.models.hierarchical_fusion import HierarchyConfig, MicroConfig
from medm2t_jax.models.options import GridLevels

MICRO_STEPS = 12  # segment length of `MicroSize`: the paper's shorter segments


@dataclasses.dataclass(frozen=True)
class MicroSize:
  """Widths of a micro encoder per `MICRO_STEPS` of its segments (paper, Table B1).

  Attributes:
    linear: channels after the self-attention.
    channels: of both ResNet1d units.
    mlp: width of a segment's vector.
  """

  linear: int
  channels: tuple[int, int]
  mlp: int


def hierarchy(
  option: str,
  lengths: tuple[int, ...],
  *,
  of: str,
  steps: int,
  features: int,
  segments: int,
  levels: GridLevels,
  micro: MicroSize,
  mlp: int,
) -> HierarchyConfig:
  """Sizes that follow from the sequence and the lengths of segments.

  Args:
    option: of `config.model`, that has the lengths.
    lengths: of segments, in steps.
    of: what the steps are, for messages.
    steps: of the sequence.
    features: of a step.
    segments: of each length.
    levels: of the fusion.
    micro: widths of the micro encoders.
    mlp: width of the summary.

  Raises:
    DataError: a length does not fit the sequence, or is repeated.
  """
  if not lengths or any(not 1 <= n <= steps for n in lengths):
    raise DataError(
      f'config.model.{option}={lengths}: must be numbers from 1 to {steps}, the {of}'
    )
  if len(set(lengths)) < len(lengths):
    raise DataError(f'config.model.{option}={lengths}: a length is repeated')
  channels = sum(micro.mlp * scaled(length) for length in lengths)
  return HierarchyConfig(
    steps=steps,
    features=features,
    segments=segments,
    levels=levels,
    micro=tuple(_micro(length, micro) for length in lengths),
    heads=next(heads for heads in (4, 3, 2, 1) if features % heads == 0),
    plan=((channels, segments), (channels // 2, _halved(segments))),
    mlp=mlp,
    kernel=3,
    resnet_dropout=RESNET_DROPOUT,
    attention_dropout=ATTENTION_DROPOUT,
    dropout=0.1,
  )


def scaled(length: int) -> int:
  """How many times the widths of `MICRO_STEPS` a segment of this length has."""
  return max(1, round(length / MICRO_STEPS))


def _micro(length: int, size: MicroSize) -> MicroConfig:
  first, second = size.channels
  factor = scaled(length)
  return MicroConfig(
    length=length,
    linear=size.linear * factor,
    plan=((first * factor, length), (second * factor, _halved(length))),
    mlp=size.mlp * factor,
  )


def _halved(length: int) -> int:
  """Half of an even length; an odd length unchanged, because a stride must divide it."""
  return length // 2 if length % 2 == 0 else length
