"""Sizes and options of the model."""

from __future__ import annotations

import dataclasses
from typing import Generic, TypeVar

from medm2t_jax.models.link import Link
from medm2t_jax.models.modality import MULTIMODAL, Modality, Stage
from medm2t_jax.models.multimodal_fusion import FusionConfig
from medm2t_jax.models.options import AttendOver, Deep, Dtype, SingleStages
from medm2t_jax.models.trunk.columns import ColumnKind
from medm2t_jax.models.trunk.ensemble_trunk import EnsembleConfig

M = TypeVar('M', bound=Modality)


@dataclasses.dataclass(frozen=True)
class ModelConfig(Generic[M]):
  """Everything that `MedM2T` is built from.

  Attributes:
    outputs: number of classes or labels, or 1.
    link: from outputs to predictions.
    modalities: in model order, with the sizes of their encoders.
    fusion: multimodal head.
    ensemble: the trunk; None for plain decoders only.
    deep: how encoders are combined with a trunk: the outputs of their decoder are added
      'late', their vectors are 'chunks' of the trunk, or not at all ('none').
    single_stages: whether predictions of the modalities' stages are added 'late' to the
      multimodal prediction.
    decoder_dropout: of the multimodal decoder.
    attend_over: what Bi-Modal Attention attends to: 'tokens' or 'summary'.
    dtype: of the computation; parameters, statistics and outputs are float32.
  """

  outputs: int
  link: Link
  modalities: tuple[M, ...]
  fusion: FusionConfig
  ensemble: EnsembleConfig | None
  deep: Deep
  single_stages: SingleStages
  decoder_dropout: float
  attend_over: AttendOver
  dtype: Dtype

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the modalities, in model order."""
    return tuple(each.name for each in self.modalities)

  def modality(self, name: str) -> M:
    """The modality of that name.

    Raises:
      KeyError: there is no such modality.
    """
    return {each.name: each for each in self.modalities}[name]

  @property
  def columns(self) -> tuple[tuple[str, ColumnKind], ...]:
    """(modality, its columns) in model order."""
    return tuple((each.name, each.columns) for each in self.modalities)

  @property
  def stages(self) -> dict[str, Stage]:
    """Name -> stage, in training order. Without a deep network, parts have no stage."""
    with_parts = self.deep != 'none'
    found = [
      stage for each in self.modalities for stage in each.stages(with_parts=with_parts)
    ]
    return {stage.name: stage for stage in (*found, Stage(None, None, (MULTIMODAL,)))}
