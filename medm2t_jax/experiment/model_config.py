"""Derives the sizes of every module from `config.model` and a schema."""

from __future__ import annotations

from data_pipeline.format.schema import DataError, Schema
from medm2t_jax import modalities, targets
from medm2t_jax.experiment.sizes import Sizes, sizes
from medm2t_jax.modalities.base import Modality, Setting
from medm2t_jax.modalities.fusion import fusion_config
from medm2t_jax.models.config import ModelConfig
from medm2t_jax.models.modality import MULTIMODAL
from medm2t_jax.models.options import ModelOptions
from medm2t_jax.models.trunk.ensemble_trunk import EnsembleConfig


def model_config(task: str, options: ModelOptions, schema: Schema) -> ModelConfig[Modality]:
  """Sizes of every module.

  Args:
    task: a task of the paper whose module sizes are used (`sizes`).
    options: `config.model` of configs/common.py.
    schema: of the data set.

  Raises:
    DataError: an option does not fit a modality.
  """
  named = sizes(options.size, task)
  setting = Setting(options, named.of_task, schema.observation_hours)
  made = ModelConfig(
    outputs=schema.target.outputs,
    link=targets.of(schema.target).link,
    modalities=modalities.make(schema.modalities, setting),
    fusion=fusion_config(
      named.width,
      named.heads,
      options,
      shared_dropout=options.shared_dropout,
      modality_dropout=options.modality_dropout,
      pairs_from_zero=options.pairs_from_zero,
    ),
    ensemble=_ensemble(options, named) if options.trunk == 'ensemble' else None,
    deep=options.deep,
    single_stages=options.single_stages,
    decoder_dropout=options.decoder_dropout,
    attend_over=setting.attend_over,
    dtype=options.dtype,
  )
  _require_distinct_stages(made)
  return made


def _require_distinct_stages(config: ModelConfig) -> None:
  every = [
    stage.name for each in config.modalities for stage in each.stages(with_parts=True)
  ]
  twice = [name for name in (*every, MULTIMODAL) if [*every, MULTIMODAL].count(name) > 1]
  if twice:
    raise DataError(
      f'two stages would be called {twice[0]!r}: name the modality differently where the '
      'data set is prepared'
    )


def _ensemble(options: ModelOptions, named: Sizes) -> EnsembleConfig:
  return EnsembleConfig(
    members=options.ensemble,
    width=named.trunk,
    hidden=2,
    dropout=options.trunk_dropout,
    chunk_dropout=options.chunk_dropout,
  )
