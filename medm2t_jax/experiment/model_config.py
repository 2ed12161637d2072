"""From `config.model` and a schema to the sizes of every module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_pipeline.format.schema import DataError, Schema
from medm2t_jax import modalities, targets
from medm2t_jax.experiment.sizes import Sizes, sizes
from medm2t_jax.modalities.base import Modality, Setting
from medm2t_jax.modalities.fusion import fusion_config
from medm2t_jax.models.config import ModelConfig
from medm2t_jax.models.modality import MULTIMODAL
from medm2t_jax.models.trunk.ensemble_trunk import EnsembleConfig

CHOICES = {
  'dtype': ('float32', 'bfloat16'),
  'value_encoding': ('bins', 'piecewise_linear'),
  'pooling': ('tokens', 'item', 'statistics'),
  'accumulation': ('mean', 'learned', 'none'),
  'tables': ('shared', 'per_window'),
  'sequence': ('lstm', 'gru', 'mean_last'),
  'grid_levels': ('both', 'micro', 'macro'),
  'grid_channels': ('values', 'values_mask_age'),
  'ecg_crop': ('middle', 'random'),
  'remat': ('none', 'ecg'),
  'fusion': ('add', 'mul', 'linear', 'concat', 'none'),
  'attend_over': ('tokens', 'summary'),
  'shared_encoder': ('before', 'after'),
  'trunk': ('ensemble', 'decoder'),
  'deep': ('late', 'chunks', 'none'),
  'single_stages': ('late', 'none'),
}

_DROPOUTS = (
  'shared_dropout',
  'decoder_dropout',
  'modality_dropout',
  'trunk_dropout',
  'chunk_dropout',
  'input_dropout',
  'window_dropout',
)

_WITH_STATISTICS = {
  'value_encoding': 'piecewise_linear', 'accumulation': 'mean', 'tables': 'shared'
}  # fmt: skip


def model_config(
  task: str, options: Mapping[str, Any], schema: Schema
) -> ModelConfig[Modality]:
  """Sizes of every module.

  Args:
    task: 'cvd', 'mortality' or 'los'.
    options: `config.model` of configs/common.py.
    schema: of the data set.

  Raises:
    DataError: an option that the model does not know or that does not suit a modality.
  """
  for option, choices in CHOICES.items():
    if options[option] not in choices:
      raise DataError(f'model.{option} is one of {choices}, not {options[option]!r}')
  for name in _DROPOUTS:
    if not 0 <= options[name] < 1:
      raise DataError(f'model.{name} is at least 0 and below 1')
  if options['pooling'] == 'statistics':
    for option, value in _WITH_STATISTICS.items():
      if options[option] != value:
        raise DataError(
          f"model.pooling='statistics' needs model.{option}={value!r}, not "
          f'{options[option]!r}'
        )
  elif options['input_dropout'] or options['window_dropout']:
    raise DataError(
      "model.input_dropout and model.window_dropout belong to model.pooling='statistics'"
    )
  for name in ('attention_blocks', 'ensemble'):
    if options[name] < 1:
      raise DataError(f'model.{name} is at least 1')
  if options['trunk'] == 'decoder' and options['deep'] != 'late':
    raise DataError(
      f"model.deep={options['deep']!r} needs model.trunk='ensemble': a decoder reads "
      'nothing but encoders'
    )
  named = sizes(options['size'], task)
  setting = Setting(options, named.of_task, schema.observation_hours)
  made = ModelConfig(
    outputs=schema.target.outputs,
    link=targets.of(schema.target).link,
    modalities=modalities.make(schema.modalities, setting),
    fusion=fusion_config(
      named.width,
      named.heads,
      options,
      shared_dropout=options['shared_dropout'],
      modality_dropout=options['modality_dropout'],
      pairs_from_zero=options['pairs_from_zero'],
    ),
    ensemble=_ensemble(options, named) if options['trunk'] == 'ensemble' else None,
    deep=options['deep'],
    single_stages=options['single_stages'],
    decoder_dropout=options['decoder_dropout'],
    attend_over=setting.attend_over,
    dtype=options['dtype'],
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


def _ensemble(options: Mapping[str, Any], named: Sizes) -> EnsembleConfig:
  return EnsembleConfig(
    members=options['ensemble'],
    width=named.trunk,
    hidden=2,
    dropout=options['trunk_dropout'],
    chunk_dropout=options['chunk_dropout'],
  )
