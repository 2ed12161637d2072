"""From `config.model` and a schema to the sizes of every module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from data_pipeline.format.schema import ECG_MEASUREMENTS, DataError, Grid, Item, Schema
from medm2t_jax import targets
from medm2t_jax.experiment.sizes import Sizes, sizes
from medm2t_jax.models.config import ModelConfig
from medm2t_jax.models.ecg import EcgConfig
from medm2t_jax.models.events.events_config import EventsConfig
from medm2t_jax.models.hierarchical_fusion import GridConfig, MicroConfig
from medm2t_jax.models.multimodal_fusion import FusionConfig
from medm2t_jax.models.static_encoder import StaticConfig
from medm2t_jax.models.trunk.columns import (
  ColumnKind,
  EcgColumns,
  EventColumns,
  GridColumns,
  StaticColumns,
)
from medm2t_jax.models.trunk.ensemble_trunk import EnsembleConfig

ECG_CROP_SAMPLES = 640  # 5.12 s at 125 Hz
MICRO_STEPS = 12  # steps for which `Sizes.micro` holds
ATTENTION_DROPOUT = 0.1
RESNET_DROPOUT = 0.3

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


def model_config(task: str, options: Mapping[str, Any], schema: Schema) -> ModelConfig:
  """Sizes of every module.

  Args:
    task: 'cvd', 'mortality' or 'los'.
    options: `config.model` of configs/common.py.
    schema: of the data set.

  Raises:
    DataError: an option that the model does not know, or a modality without a size
      or without windows.
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
  events = [
    (name, _events(name, items, options, named)) for name, items in schema.events.items()
  ]
  grids = [(name, _grid(grid, options, named)) for name, grid in schema.grids.items()]
  return ModelConfig(
    outputs=schema.target.outputs,
    link=targets.of(schema.target).link,
    static=_static(schema, named) if 'static' in schema.modalities else None,
    events=tuple(events),
    grids=tuple(grids),
    ecg=_ecg(schema, options, named) if schema.ecg_terms else None,
    fusion=_fusion(
      named.width,
      named.heads,
      options,
      shared_dropout=options['shared_dropout'],
      modality_dropout=options['modality_dropout'],
      pairs_from_zero=options['pairs_from_zero'],
    ),
    columns=tuple(column_kinds(schema).items()),
    ensemble=_ensemble(options, named) if options['trunk'] == 'ensemble' else None,
    deep=options['deep'],
    single_stages=options['single_stages'],
    decoder_dropout=options['decoder_dropout'],
    attend_over=_attend_over(options),
    dtype=options['dtype'],
  )


def column_kinds(schema: Schema) -> dict[str, ColumnKind]:
  """Modality -> its columns, in model order."""
  kinds: dict[str, ColumnKind] = {}
  if 'static' in schema.modalities:
    levels = tuple(len(column.categories) for column in schema.static_categorical)
    kinds['static'] = StaticColumns(len(schema.static_numeric), levels)
  for name, items in schema.events.items():
    kinds[name] = EventColumns(tuple(len(item.categories) for item in items))
  for name, grid in schema.grids.items():
    kinds[name] = GridColumns(len(grid.items), grid.step_hours)
  if schema.ecg_terms:
    kinds['ecg'] = EcgColumns(len(ECG_MEASUREMENTS), len(schema.ecg_terms))
  return kinds


def _ensemble(options: Mapping[str, Any], named: Sizes) -> EnsembleConfig:
  return EnsembleConfig(
    members=options['ensemble'],
    width=named.trunk,
    hidden=2,
    dropout=options['trunk_dropout'],
    chunk_dropout=options['chunk_dropout'],
  )


def _static(schema: Schema, named: Sizes) -> StaticConfig:
  mlp, dropout, decoder, decoder_dropout = named.static
  return StaticConfig(
    numeric=len(schema.static_numeric),
    levels=tuple(len(column.categories) for column in schema.static_categorical),
    mlp=mlp,
    dropout=dropout,
    decoder=decoder,
    decoder_dropout=decoder_dropout,
  )


def _windows(name: str, options: Mapping[str, Any]) -> int:
  """Number of time windows of a modality: one more than its cuts."""
  if name not in options['windows']:
    raise DataError(
      f'model.windows has no entry for {name!r}; give '
      "('percentiles', cuts in %) or ('hours', cuts in hours)"
    )
  kind, cuts = options['windows'][name]
  if kind not in ('percentiles', 'hours') or list(cuts) != sorted(set(cuts)):
    raise DataError(
      f"model.windows[{name!r}] is ('percentiles' or 'hours', ascending cuts), "
      f'not {(kind, tuple(cuts))}'
    )
  return len(cuts) + 1


def _events(
  name: str, items: tuple[Item, ...], options: Mapping[str, Any], named: Sizes
) -> EventsConfig:
  if name not in named.events:
    raise DataError(
      f'no size is defined for the event modality {name!r}; add it to '
      'medm2t_jax/experiment/sizes.py'
    )
  width, dropout, decoder, decoder_dropout = named.events[name]
  return EventsConfig(
    categories=tuple(len(item.categories) for item in items),
    windows=_windows(name, options),
    width=width,
    dropout=dropout,
    value_encoding=options['value_encoding'],
    pooling=options['pooling'],
    accumulation=options['accumulation'],
    tables=options['tables'],
    sequence=options['sequence'],
    input_dropout=options['input_dropout'],
    window_dropout=options['window_dropout'],
    decoder=decoder,
    decoder_dropout=decoder_dropout,
  )


def _grid(grid: Grid, options: Mapping[str, Any], named: Sizes) -> GridConfig:
  segments, lengths = options['segments'], tuple(options['segment_lengths'])
  if not lengths or any(not 1 <= n <= grid.steps for n in lengths):
    raise DataError(
      f'model.segment_lengths are numbers of grid steps from 1 to {grid.steps}, '
      f'not {lengths}'
    )
  if len(set(lengths)) < len(lengths):
    raise DataError(f'model.segment_lengths has one twice: {lengths}')
  if segments < 1:
    raise DataError(f'model.segments is at least 1, not {segments}')
  micro = tuple(_micro(length, named) for length in lengths)
  channels = sum(one.mlp for one in micro)
  width = len(grid.items) * (3 if options['grid_channels'] == 'values_mask_age' else 1)
  return GridConfig(
    signals=len(grid.items),
    steps=grid.steps,
    segments=segments,
    channels=options['grid_channels'],
    levels=options['grid_levels'],
    micro=micro,
    heads=next(heads for heads in (4, 3, 2, 1) if width % heads == 0),
    plan=((channels, segments), (channels // 2, _halved(segments))),
    mlp=named.vitals_mlp,
    kernel=3,
    resnet_dropout=RESNET_DROPOUT,
    attention_dropout=ATTENTION_DROPOUT,
    dropout=0.1,
    decoder=named.vitals_decoder,
    decoder_dropout=0.25,
  )


def _micro(length: int, named: Sizes) -> MicroConfig:
  linear, (first, second), mlp, decoder = named.micro
  factor = max(1, round(length / MICRO_STEPS))
  return MicroConfig(
    length=length,
    linear=linear * factor,
    plan=((first * factor, length), (second * factor, _halved(length))),
    mlp=mlp * factor,
    decoder=decoder * factor,
  )


def _halved(length: int) -> int:
  """Half of an even length; an odd one stays, for a stride must divide it."""
  return length // 2 if length % 2 == 0 else length


def _ecg(schema: Schema, options: Mapping[str, Any], named: Sizes) -> EcgConfig:
  windows = _windows('ecg', options)
  views = ('signal', 'features', 'text', 'time')
  return EcgConfig(
    samples=ECG_CROP_SAMPLES,
    crop=options['ecg_crop'],
    signal_plan=named.signal_plan,
    signal_kernel=5,
    signal_mlp=named.signal_mlp,
    signal_dropout=0.1,
    measurements=len(ECG_MEASUREMENTS),
    features_mlp=named.features_mlp,
    features_dropout=0.05,
    terms=len(schema.ecg_terms),
    text_width=named.text_width,
    text_mlp=(named.text_width, named.text_width),
    text_dropout=0.25,
    # A recording always has its signal: nothing is gained by hiding views.
    fusion=_fusion(
      named.ecg_width,
      named.ecg_heads,
      options,
      shared_dropout=0.05,
      modality_dropout=0.0,
      pairs_from_zero=False,
    ),
    attend_over=_attend_over(options),
    recording=named.ecg_width * 3,
    recording_dropout=0.1,
    windows=windows,
    time_plan=((named.time_channels, windows),),
    time_kernel=3,
    time_mlp=named.time_mlp,
    time_dropout=0.05,
    resnet_dropout=RESNET_DROPOUT,
    remat=options['remat'],
    decoders=tuple(zip(views, named.ecg_decoders, strict=True)),
    view_decoder_dropout=0.25,
    time_decoder_dropout=0.1,
  )


def _attend_over(options: Mapping[str, Any]) -> Literal['tokens', 'summary']:
  """Without Bi-Modal Attention nobody reads tokens."""
  return 'summary' if options['fusion'] == 'none' else options['attend_over']


def _fusion(
  width: int,
  heads: int,
  options: Mapping[str, Any],
  *,
  shared_dropout: float,
  modality_dropout: float,
  pairs_from_zero: bool,
) -> FusionConfig:
  return FusionConfig(
    width=width,
    heads=heads,
    blocks=options['attention_blocks'],
    fusion=options['fusion'],
    shared_encoder=options['shared_encoder'],
    shared_dropout=shared_dropout,
    attention_dropout=ATTENTION_DROPOUT,
    modality_dropout=modality_dropout,
    pairs_from_zero=pairs_from_zero,
  )
