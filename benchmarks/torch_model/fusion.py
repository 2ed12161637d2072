"""Multimodal head: a loop over pairs, with a separate block for each direction."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from benchmarks.torch_model.blocks import CrossAttention
from medm2t_jax.models.multimodal_fusion import FusionConfig


class Encoded(NamedTuple):
  """One modality, encoded: tokens (b t e), token_mask (b t), summary (b e), present (b)."""

  tokens: torch.Tensor
  token_mask: torch.Tensor
  summary: torch.Tensor
  present: torch.Tensor


def of_summary(summary: torch.Tensor, present: torch.Tensor) -> Encoded:
  """A modality whose only token is its summary."""
  return Encoded(summary[:, None], present[:, None], summary, present)


class MultimodalFusion(nn.Module):
  """All modality vectors and all pair vectors, side by side."""

  def __init__(self, widths: Mapping[str, int], config: FusionConfig):
    super().__init__()
    self.modality_dropout = config.modality_dropout
    self.project = nn.ModuleDict(
      {name: nn.Linear(width, config.width) for name, width in widths.items()}
    )
    self.shared = nn.Linear(config.width, config.width)
    self.dropout = nn.Dropout(config.shared_dropout)
    self.absent = nn.Parameter(0.02 * torch.randn(len(widths), config.width))
    self.blocks = nn.ModuleDict(
      {
        f'{query}_to_{target}': CrossAttention(
          config.width, config.heads, config.attention_dropout
        )
        for query, target in itertools.permutations(widths, 2)
      }
    )

    pairs = len(widths) * (len(widths) - 1) // 2
    self.pair_factor = nn.Parameter(torch.zeros(pairs)) if config.pairs_from_zero else None

  def forward(self, encoded: Mapping[str, Encoded]) -> torch.Tensor:
    """Returns (b, e times modalities and pairs)."""
    names = list(encoded)
    present = {name: one.present for name, one in encoded.items()}
    if self.training and self.modality_dropout:
      present = kept_at_random(present, self.modality_dropout)
    summary = {name: self._space(name, one.summary) for name, one in encoded.items()}
    tokens = {name: self._space(name, one.tokens) for name, one in encoded.items()}
    vectors = [
      torch.where(present[name][:, None], summary[name], self.absent[index])
      for index, name in enumerate(names)
    ]
    for pair, (i, j) in enumerate(itertools.combinations(names, 2)):
      fused = self._attend(i, j, summary, tokens, encoded) + self._attend(
        j, i, summary, tokens, encoded
      )
      if self.pair_factor is not None:
        fused = fused * self.pair_factor[pair]
      both = (present[i] & present[j])[:, None]
      vectors.append(torch.where(both, fused, torch.zeros_like(fused)))
    return torch.cat(vectors, dim=1)

  def _space(self, name: str, x: torch.Tensor) -> torch.Tensor:
    return self.dropout(functional.relu(self.shared(self.project[name](x))))

  def _attend(self, i: str, j: str, summary, tokens, encoded) -> torch.Tensor:
    # A softmax without tokens is NaN, so absent rows attend to placeholders, and their pair
    # is set to zero.
    mask = encoded[j].token_mask
    mask = mask | ~mask.any(dim=1, keepdim=True)
    return self.blocks[f'{i}_to_{j}'](summary[i][:, None], tokens[j], mask)[:, 0]


def kept_at_random(
  present: Mapping[str, torch.Tensor], dropout: float
) -> dict[str, torch.Tensor]:
  """Hides modalities at random; a row that would lose all of them keeps them."""
  stacked = torch.stack(list(present.values()))
  kept = stacked & (torch.rand(stacked.shape, device=stacked.device) >= dropout)
  kept = torch.where(kept.any(dim=0, keepdim=True), kept, stacked)
  return dict(zip(present, kept, strict=True))
