"""Encoders of static columns and grids."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from benchmarks.torch_model.blocks import CrossAttention, ResNet1d, mlp
from benchmarks.torch_model.fusion import Encoded, of_summary
from medm2t_jax.models.hierarchical_fusion import GridConfig, MicroConfig
from medm2t_jax.models.static_encoder import StaticConfig

Tensors = Mapping[str, torch.Tensor]
Fitted = Mapping[str, np.ndarray]


class StaticEncoder(nn.Module):
  """Scaled numbers with observed flags, one-hot levels, MLP."""

  center: torch.Tensor
  scale: torch.Tensor

  def __init__(self, config: StaticConfig, fitted: Fitted):
    super().__init__()
    self.levels = config.levels
    self.register_buffer('center', torch.tensor(fitted['center']))
    self.register_buffer('scale', torch.tensor(fitted['scale']))
    width = 2 * config.numeric + sum(levels + 1 for levels in config.levels)
    self.mlp = mlp(width, config.mlp, config.dropout)

  def forward(self, static: Tensors, tokens: bool = True) -> Encoded:
    del tokens  # the summary is the only token
    observed, categorical = static['numeric_mask'], static['categorical'].long()
    scaled = (static['numeric'] - self.center) / self.scale * observed
    parts = [scaled, observed.float()]
    for column, levels in enumerate(self.levels):
      level = categorical[:, column]
      level = torch.where(level >= 0, level, levels)
      parts.append(nn.functional.one_hot(level, levels + 1).float())
    present = observed.any(dim=1) | (categorical >= 0).any(dim=1)
    return of_summary(self.mlp(torch.cat(parts, dim=1)), present)


class GridEncoder(nn.Module):
  """Segments of a grid at several scales, then the sequence of their vectors."""

  center: torch.Tensor
  scale: torch.Tensor

  def __init__(self, config: GridConfig, fitted: Fitted):
    super().__init__()
    self.config = config
    self.register_buffer('center', torch.tensor(fitted['center']))
    self.register_buffer('scale', torch.tensor(fitted['scale']))
    self.micro = nn.ModuleDict(
      {str(micro.length): _MicroEncoder(micro, config) for micro in config.micro}
    )
    width = sum(micro.mlp for micro in config.micro)
    self.macro = ResNet1d(
      width, config.segments, config.plan, config.kernel, config.resnet_dropout
    )
    channels, length = config.plan[-1]
    self.mlp = mlp(channels * length, [config.mlp], config.dropout)
    self.token_linear = nn.Linear(width, config.mlp)

  def forward(self, grid: Tensors, tokens: bool = True) -> Encoded:
    x = torch.cat([self.segments(grid, one.length) for one in self.config.micro], dim=2)
    y = self.macro(x.transpose(1, 2))
    summary, present = self.mlp(_time_first(y)), grid['observed'].any(dim=2).any(dim=1)
    if not tokens:
      return of_summary(summary, present)
    ends = [self._starts(one.length) + one.length - 1 for one in self.config.micro]
    seen = grid['observed'].any(dim=2).cumsum(dim=1) > 0
    return Encoded(
      self.token_linear(x), seen[:, torch.stack(ends).amax(dim=0)], summary, present
    )

  def segments(self, grid: Tensors, length: int) -> torch.Tensor:
    """Vectors of the segments of one scale (b t e)."""
    starts = self._starts(length)
    index = starts[:, None] + torch.arange(length, device=starts.device)
    pieces = self.fill(grid)[:, index]
    rows, segments = pieces.shape[:2]
    return self.micro[str(length)](pieces.flatten(0, 1)).view(rows, segments, -1)

  def fill(self, grid: Tensors) -> torch.Tensor:
    """Last observed value or the median, scaled (b g v)."""
    value, observed = grid['value'], grid['observed']
    step = torch.arange(value.shape[1], device=value.device)[None, :, None]
    last = torch.where(observed, step, -1).cummax(dim=1).values
    carried = value.gather(1, last.clamp(min=0))
    return (torch.where(last >= 0, carried, self.center) - self.center) / self.scale

  def _starts(self, length: int) -> torch.Tensor:
    order = torch.arange(self.config.segments, device=self.center.device)
    return order * (self.config.steps - length) // max(self.config.segments - 1, 1)


class _MicroEncoder(nn.Module):
  def __init__(self, micro: MicroConfig, config: GridConfig):
    super().__init__()
    self.attention = CrossAttention(config.features, config.heads, config.attention_dropout)
    self.linear = nn.Linear(config.features, micro.linear)
    self.resnet = ResNet1d(
      micro.linear, micro.length, micro.plan, config.kernel, config.resnet_dropout
    )
    channels, length = micro.plan[-1]
    self.mlp = mlp(channels * length, [micro.mlp], config.dropout)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    x = self.linear(self.attention(x, x))
    return self.mlp(_time_first(self.resnet(x.transpose(1, 2))))


def _time_first(x: torch.Tensor) -> torch.Tensor:
  """Channels first to flat rows with the channels last, as our weights have it."""
  return x.transpose(1, 2).flatten(1)
