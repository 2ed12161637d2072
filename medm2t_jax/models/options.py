"""The options of the model: `config.model`.

Sizes follow from `size` and the data set (`medm2t_jax.experiment.model_config`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from data_pipeline.format.items import DataError
from data_pipeline.format.options import Count, Options, Rate

Size = Literal['paper', 'base', 'small', 'tiny']
Dtype = Literal['float32', 'bfloat16']
ValueEncoding = Literal['bins', 'piecewise_linear']
Pooling = Literal['tokens', 'statistics']
Accumulation = Literal['mean', 'none']
Sequence = Literal['lstm', 'mean_last', 'hierarchical']
Trunk = Literal['ensemble', 'decoder']
Deep = Literal['late', 'chunks', 'none']
SingleStages = Literal['late', 'none']
GridLevels = Literal['both', 'micro', 'macro']
Fusion = Literal['add', 'mul', 'concat', 'none']
AttendOver = Literal['tokens', 'summary']
SharedEncoder = Literal['before', 'after']
WindowKind = Literal['percentiles', 'hours']

# Values that pooling='statistics' requires for other options.
_WITH_STATISTICS = {'value_encoding': 'piecewise_linear', 'accumulation': 'mean'}


@dataclasses.dataclass(frozen=True)
class ModelOptions(Options):
  """The model's architecture, apart from the data set.

  Attributes:
    size: named sizes of all modules; 'paper' is Table B1.
    dtype: of the computation; parameters, statistics and outputs are float32.
    value_encoding: of events: 'bins' (one-hot) or 'piecewise_linear' (thermometer).
    pooling: of events: mean over all 'tokens', or 'statistics' of each item.
    accumulation: a window sees the mean of all tokens so far ('mean'), or only its own
      ('none').
    sequence: reader of the windows of events: a bidirectional 'lstm', 'mean_last', or
      'hierarchical' (HTAF over windows).
    trunk: the predictor: an 'ensemble' that reads summary statistics, or a plain 'decoder'
      of the encoders' vectors.
    ensemble: number of its members.
    trunk_dropout: between its layers.
    chunk_dropout: share of the chunks (a statistic of an item) hidden from a member.
    deep: how encoders are combined with an ensemble: the outputs of their decoder are added
      'late', their vectors are 'chunks', or 'none'.
    single_stages: whether the predictions of each modality's own stage are added 'late'.
    input_dropout: with pooling='statistics': of an item's statistics in all windows.
    window_dropout: with pooling='statistics': of the windows' vectors.
    windows: modality -> cuts of its time windows: ('percentiles', in % of the training
      entries' times) or ('hours', relative to the prediction time); other modalities have
      default windows (`medm2t_jax.modalities.windows`).
    segment_lengths: of HTAF, in steps of the grid; one micro encoder each.
    event_segment_lengths: the same in windows, with sequence='hierarchical'.
    segments: largest number of segments of a length.
    grid_levels: levels of HTAF.
    fusion: how the vectors of a pair of modalities are combined; 'none': no Bi-Modal
      Attention.
    attend_over: what it attends to: time 'tokens' or the 'summary'.
    shared_encoder: 'before' or 'after' Bi-Modal Attention.
    shared_dropout: after the shared encoder.
    decoder_dropout: in the multimodal decoder.
    modality_dropout: share of present modalities hidden in training.
    pairs_from_zero: whether pair vectors are multiplied by a learnt factor that starts at
      0.
  """

  size: Size = 'paper'
  dtype: Dtype = 'float32'
  value_encoding: ValueEncoding = 'piecewise_linear'
  pooling: Pooling = 'statistics'
  accumulation: Accumulation = 'mean'
  sequence: Sequence = 'mean_last'
  trunk: Trunk = 'ensemble'
  ensemble: Count = 16
  trunk_dropout: Rate = 0.1
  chunk_dropout: Rate = 0.3
  deep: Deep = 'late'
  single_stages: SingleStages = 'late'
  input_dropout: Rate = 0.3
  window_dropout: Rate = 0.5
  windows: Mapping[str, tuple[WindowKind, tuple[float, ...]]] = dataclasses.field(
    default_factory=dict
  )
  segment_lengths: tuple[Count, ...] = (12, 24)
  event_segment_lengths: tuple[Count, ...] = (3, 6)
  segments: Count = 24
  grid_levels: GridLevels = 'both'
  fusion: Fusion = 'add'
  attend_over: AttendOver = 'tokens'
  shared_encoder: SharedEncoder = 'before'
  shared_dropout: Rate = 0.05
  decoder_dropout: Rate = 0.1
  modality_dropout: Rate = 0.1
  pairs_from_zero: bool = False

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.pooling == 'statistics':
      for option, value in _WITH_STATISTICS.items():
        if getattr(self, option) != value:
          raise DataError(
            f"config.model.pooling='statistics' needs config.model.{option}={value!r}, not "
            f'{getattr(self, option)!r}'
          )
    elif self.input_dropout or self.window_dropout:
      raise DataError(
        'config.model.input_dropout and config.model.window_dropout need '
        "config.model.pooling='statistics'"
      )
    if self.trunk == 'decoder' and self.deep != 'late':
      raise DataError(
        f"config.model.deep={self.deep!r} needs config.model.trunk='ensemble': a decoder "
        'only reads encoders'
      )
    for name, (_, cuts) in self.windows.items():
      if list(cuts) != sorted(set(cuts)):
        raise DataError(f'config.model.windows.{name}: the cuts {cuts} must ascend')
