"""Chunks of columns, the ensemble trunk that reads them, and late addition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.torch_model.columns import Columns
from medm2t_jax.models.trunk import chunks
from medm2t_jax.models.trunk.ensemble_trunk import EnsembleConfig


class Chunks(nn.Module):
  """For each column a thermometer, the standardised value and a flag (b n 10)."""

  low: torch.Tensor
  per_step: torch.Tensor
  mean: torch.Tensor
  center: torch.Tensor
  per_scale: torch.Tensor
  flagged: torch.Tensor

  def __init__(self, fitted: Sequence[Mapping[str, np.ndarray]]):
    """Joins the fitted constants of all modalities."""
    super().__init__()
    joined = lambda name: torch.from_numpy(np.concatenate([one[name] for one in fitted]))
    knots, scale = joined('column_knots'), joined('column_scale')
    step = torch.diff(knots)
    self.register_buffer('low', knots[:, :-1])
    self.register_buffer('per_step', torch.where(step > 0, 1 / step, 0.0))
    self.register_buffer('mean', joined('column_mean'))
    self.register_buffer('center', joined('column_center'))
    self.register_buffer('per_scale', torch.where(scale > 0, 1 / scale, 0.0))
    self.register_buffer('flagged', joined('column_flagged'))

  @torch.no_grad()
  def forward(self, columns: Columns) -> torch.Tensor:
    value, known = columns
    filled = ((value[..., None] - self.low) * self.per_step).clamp(0, 1) - self.mean
    standard = ((value - self.center) * self.per_scale).clamp(-5, 5) * 0.5
    content = torch.cat([filled, standard[..., None]], dim=-1)
    content = torch.where(known[..., None], content, 0.0)
    flag = (known & self.flagged)[..., None].float()
    return torch.cat([content, flag], dim=-1)


class EnsembleTrunk(nn.Module):
  """Members share all matrices and differ by their scales; outputs (b k c)."""

  offset: torch.Tensor

  def __init__(self, config: EnsembleConfig, columns: int, offset: np.ndarray):
    """Creates the parameters for so many columns; outputs start at `offset`."""
    super().__init__()
    members, width, outputs = config.members, config.width, len(offset)
    self.chunk_dropout = config.chunk_dropout
    self.dropout = nn.Dropout(config.dropout)
    self.chunk_table = nn.Parameter(0.02 * torch.randn(columns, chunks.SIZE, width))
    self.chunk_scale = None
    if members > 1:
      self.chunk_scale = nn.Parameter(torch.randn(members, columns))
    self.chunk_bias = nn.Parameter(torch.zeros(width))
    self.norm = nn.LayerNorm(width, eps=1e-6)
    self.layers = nn.ModuleList(_Layer(members, width) for _ in range(config.hidden))
    self.head = nn.Parameter(torch.randn(members, width, outputs) / width**0.5)
    self.head_bias = nn.Parameter(torch.zeros(members, outputs))
    self.register_buffer('offset', torch.tensor(offset))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Outputs of all members (b k c) for chunks `x` (b n p)."""
    x = torch.bmm(x.transpose(0, 1), self.chunk_table).transpose(0, 1)
    rows, count, _ = x.shape
    scale = x.new_ones(1, count) if self.chunk_scale is None else self.chunk_scale
    scale = scale.expand(rows, -1, -1)
    if self.training and self.chunk_dropout:
      scale = functional.dropout(scale, self.chunk_dropout)
    x = torch.bmm(scale, x) + self.chunk_bias
    x = self.dropout(functional.relu(self.norm(x)))
    for layer in self.layers:
      x = self.dropout(functional.relu(layer(x)))
    outputs = torch.bmm(x.transpose(0, 1), self.head).transpose(0, 1)
    return outputs + self.head_bias + self.offset


class _Layer(nn.Module):
  def __init__(self, members: int, width: int):
    super().__init__()
    self.linear = nn.Linear(width, width, bias=False)
    self.scale_in = nn.Parameter(torch.ones(members, width))
    self.scale_out = nn.Parameter(torch.ones(members, width))
    self.bias = nn.Parameter(torch.zeros(members, width))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.linear(x * self.scale_in) * self.scale_out + self.bias


class LateAddition(nn.Module):
  """The prior, plus the weighted sum of each part's difference from it."""

  offset: torch.Tensor
  part_weights: torch.Tensor

  def __init__(self, fitted: Mapping[str, np.ndarray]):
    super().__init__()
    self.register_buffer('offset', torch.tensor(fitted['offset']))
    self.register_buffer('part_weights', torch.tensor(fitted['part_weights']))

  def forward(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Adds log probabilities, or days, (b c) of all parts."""
    beyond = torch.stack(list(parts)) - self.offset
    total = self.offset + torch.einsum('m,mbc->bc', self.part_weights, beyond)
    return log_probabilities(total)


def log_probabilities(outputs: torch.Tensor) -> torch.Tensor:
  """Class scores as log probabilities; numbers unchanged (b c)."""
  return outputs if outputs.shape[-1] == 1 else outputs.log_softmax(dim=-1)


def ensemble_mean(members: torch.Tensor) -> torch.Tensor:
  """Logarithm of the members' mean probability, or mean days; members (b k c)."""
  if members.shape[-1] == 1:
    return members.mean(dim=1)
  total = members.log_softmax(dim=-1).logsumexp(dim=1)
  return total - np.log(members.shape[1])
