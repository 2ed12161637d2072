"""Layers that all parts share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional


def mlp(width: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
  """Linear, BatchNorm, ReLU, Dropout per hidden width."""
  layers: list[nn.Module] = []
  for size in hidden:
    layers += [
      nn.Linear(width, size),
      nn.BatchNorm1d(size),
      nn.ReLU(),
      nn.Dropout(dropout),
    ]
    width = size
  return nn.Sequential(*layers)


class Decoder(nn.Module):
  """One hidden layer, then a Linear to the outputs."""

  def __init__(self, width: int, hidden: int, outputs: int, dropout: float):
    super().__init__()
    self.hidden = mlp(width, [hidden], dropout)
    self.output = nn.Linear(hidden, outputs)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.output(self.hidden(x))


class CrossAttention(nn.Module):
  """Attention and feed-forward, each followed by a residual and a LayerNorm."""

  def __init__(self, width: int, heads: int, dropout: float):
    super().__init__()
    self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
    self.attention_norm = nn.LayerNorm(width, eps=1e-6)
    self.ffn_in = nn.Linear(width, 4 * width)
    self.ffn_out = nn.Linear(4 * width, width)
    self.ffn_norm = nn.LayerNorm(width, eps=1e-6)
    self.dropout = nn.Dropout(dropout)

  def forward(
    self, query: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor | None = None
  ) -> torch.Tensor:
    """Lets queries (b q e) attend to tokens (b t e) that `mask` (b t) marks as valid."""
    attended, _ = self.attention(
      query,
      tokens,
      tokens,
      key_padding_mask=None if mask is None else ~mask,
      need_weights=False,
    )
    h = self.attention_norm(query + self.dropout(attended))
    y = self.ffn_out(functional.leaky_relu(self.ffn_in(h), 0.01))
    return self.ffn_norm(h + self.dropout(y))


class ResNet1d(nn.Module):
  """The two-track residual network; `medm2t_jax/models/layers/resnet1d.py` describes it."""

  def __init__(self, channels: int, length: int, plan, kernel: int, dropout: float):
    super().__init__()
    first, first_length = plan[0]
    self.stem = _convolution(channels, first, kernel, length // first_length)
    self.stem_norm = nn.BatchNorm1d(first)
    self.units = nn.ModuleList()
    width, length = first, first_length
    for after, after_length in plan:
      self.units.append(_Unit(width, after, kernel, length // after_length, dropout))
      width, length = after, after_length

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps signals (b c s) to features (b e t)."""
    x = skip = self.stem_norm(self.stem(x))
    for unit in self.units:
      x, skip = unit(x, skip)
    return x


class _Unit(nn.Module):
  def __init__(self, width: int, channels: int, kernel: int, stride: int, dropout: float):
    super().__init__()
    self.first = _convolution(width, channels, kernel, 1)
    self.first_norm = nn.BatchNorm1d(channels)
    self.second = _convolution(channels, channels, kernel, stride)
    self.second_norm = nn.BatchNorm1d(channels)
    self.pool = nn.MaxPool1d(stride) if stride > 1 else nn.Identity()
    same = width == channels
    self.skip = nn.Identity() if same else nn.Conv1d(width, channels, 1, bias=False)
    self.dropout = nn.Dropout(dropout)

  def forward(self, x, skip):
    x = self.dropout(functional.relu(self.first_norm(self.first(x))))
    skip = self.second(x) + self.skip(self.pool(skip))
    return self.dropout(functional.relu(self.second_norm(skip))), skip


def _convolution(width: int, channels: int, kernel: int, stride: int) -> nn.Conv1d:
  padding = max(0, (kernel - stride + 1) // 2)
  return nn.Conv1d(width, channels, kernel, stride, padding, bias=False)
