"""Sizes and options of the model's modules."""

from __future__ import annotations

import dataclasses
from typing import Literal

from medm2t_jax.models.ecg import EcgConfig
from medm2t_jax.models.events.events_config import EventsConfig
from medm2t_jax.models.hierarchical_fusion import GridConfig
from medm2t_jax.models.link import Link
from medm2t_jax.models.multimodal_fusion import FusionConfig
from medm2t_jax.models.static_encoder import StaticConfig
from medm2t_jax.models.trunk.columns import ColumnKind
from medm2t_jax.models.trunk.ensemble_trunk import EnsembleConfig


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Everything that `MedM2T` is built from. A modality that is not there is left out.

  Attributes:
    outputs: number of classes or labels, or 1.
    link: from outputs to predictions.
    static: static columns.
    events: (modality, sizes) in model order.
    grids: (modality, sizes) in model order.
    ecg: ECG recordings.
    fusion: multimodal head.
    columns: (modality, its columns) in model order.
    ensemble: the trunk; None for plain decoders alone.
    deep: how encoders enter beside a trunk: their decoder's outputs added 'late', their
      vectors as 'chunks' of the trunk, or not at all ('none').
    single_stages: whether what the stages of the modalities predict is added 'late' to the
      multimodal prediction.
    decoder_dropout: of the multimodal decoder.
    attend_over: what Bi-Modal Attention attends to: 'tokens' or 'summary'.
    dtype: of the computation; parameters, statistics and outputs are float32.
  """

  outputs: int
  link: Link
  static: StaticConfig | None
  events: tuple[tuple[str, EventsConfig], ...]
  grids: tuple[tuple[str, GridConfig], ...]
  ecg: EcgConfig | None
  fusion: FusionConfig
  columns: tuple[tuple[str, ColumnKind], ...]
  ensemble: EnsembleConfig | None
  deep: Literal['late', 'chunks', 'none']
  single_stages: Literal['late', 'none']
  decoder_dropout: float
  attend_over: str
  dtype: str

  @property
  def modalities(self) -> tuple[str, ...]:
    """Modalities in model order: static, events, grids, ecg."""
    static = ('static',) if self.static else ()
    ecg = ('ecg',) if self.ecg else ()
    names = [name for name, _ in (*self.events, *self.grids)]
    return (*static, *names, *ecg)
