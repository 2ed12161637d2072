"""Sizes of Bi-Modal Attention, between modalities and inside one."""

from __future__ import annotations

from medm2t_jax.models.multimodal_fusion import FusionConfig
from medm2t_jax.models.options import ModelOptions

ATTENTION_DROPOUT = 0.1
RESNET_DROPOUT = 0.3


def fusion_config(
  width: int,
  heads: int,
  options: ModelOptions,
  *,
  shared_dropout: float,
  modality_dropout: float,
  pairs_from_zero: bool,
) -> FusionConfig:
  """A fusion head of this width and number of heads, with options of `config.model`."""
  return FusionConfig(
    width=width,
    heads=heads,
    fusion=options.fusion,
    shared_encoder=options.shared_encoder,
    shared_dropout=shared_dropout,
    attention_dropout=ATTENTION_DROPOUT,
    modality_dropout=modality_dropout,
    pairs_from_zero=pairs_from_zero,
  )
