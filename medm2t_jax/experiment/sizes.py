"""Named sizes: widths, dropouts and plans of every task (paper, Table B1).

'paper' follows Table B1; 'small' has at most 5 million parameters and is quick on
two CPU cores; 'tiny' is 'small' with one residual unit for the ECG, which shows that all
runs. What depends on a segment length is per 12 steps (the paper's shorter
segments): a segment of 24 steps is twice as wide.
"""

from __future__ import annotations

import dataclasses

from data_pipeline.format.schema import DataError

TASKS = ('cvd', 'mortality', 'los')
_SIZES_OF = {'cvd_all': 'cvd'}  # the same inputs
NAMES = ('paper', 'small', 'tiny')


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Widths and dropouts of one task at one size.

  Attributes:
    static: MLP, dropout, decoder, decoder dropout.
    events: modality -> width, dropout, decoder, decoder dropout.
    micro: per 12 steps of a segment: channels after the self-attention, channels of
      both ResNet1d units, MLP, decoder.
    vitals_mlp: width of the grid's summary.
    vitals_decoder: hidden width of its decoder.
    signal_plan: ResNet1d of the ECG.
    signal_mlp: width of the signal's vector.
    features_mlp: width of the measurements' vector.
    text_width: of the report's embedding and MLP.
    ecg_width: shared space of the three views.
    ecg_heads: of their attention.
    time_channels: of the ResNet1d over ECG windows.
    time_mlp: width of the ECG summary.
    ecg_decoders: hidden widths: signal, features, text, time.
    width: shared space of the modalities.
    heads: of their attention.
    trunk: width of the ensemble trunk.
  """

  static: tuple[tuple[int, ...], float, int, float]
  events: dict[str, tuple[int, float, int, float]]
  micro: tuple[int, tuple[int, int], int, int]
  vitals_mlp: int
  vitals_decoder: int
  signal_plan: tuple[tuple[int, int], ...]
  signal_mlp: int
  features_mlp: int
  text_width: int
  ecg_width: int
  ecg_heads: int
  time_channels: int
  time_mlp: int
  ecg_decoders: tuple[int, int, int, int]
  width: int
  heads: int
  trunk: int


def sizes(name: str, task: str) -> Sizes:
  """Sizes of a task.

  Args:
    name: one of `NAMES`.
    task: 'cvd', 'cvd_all', 'mortality' or 'los'.

  Raises:
    DataError: an unknown name or task.
  """
  if name not in NAMES:
    raise DataError(f'model.size is one of {NAMES}, not {name!r}')
  task = _SIZES_OF.get(task, task)
  if task not in TASKS:
    raise DataError(f'sizes are defined for the tasks {TASKS}, not {task!r}')
  if name == 'tiny':
    return dataclasses.replace(_small(), signal_plan=((8, 20),))
  return _paper(task) if name == 'paper' else _small()


def _paper(task: str) -> Sizes:
  pick = TASKS.index(task)
  static = (((128, 128), 0.1, 64), ((128, 128), 0.1, 64), ((512, 512), 0.1, 256))[pick]
  features = (512, 128, 256)[pick]
  time = (256, 256, 512)[pick]
  labs = ((128, 0.05, 64, 0.1), (512, 0.05, 256, 0.1), (512, 0.05, 256, 0.1))[pick]
  return Sizes(
    static=(*static, 0.5),
    events={
      'labs': labs,
      # Laboratory values and all else of a stay; not in the paper.
      'events': labs,
      'vitals_categorical': (256, 0.1, 128, 0.1),
    },
    micro=(8, (16, 32), 128, 64),
    vitals_mlp=256,
    vitals_decoder=128,
    signal_plan=((64, 640), (128, 320), (196, 160), (256, 40), (320, 20)),
    signal_mlp=640,
    features_mlp=features,
    text_width=256,
    ecg_width=256,
    ecg_heads=64,
    time_channels=384,
    time_mlp=time,
    ecg_decoders=(320, features // 2, 128, time // 2),
    width=512,
    heads=64,
    trunk=256,
  )


def _small() -> Sizes:
  return Sizes(
    static=((64, 64), 0.1, 32, 0.5),
    events={
      'labs': (64, 0.05, 32, 0.1),
      'events': (64, 0.05, 32, 0.1),
      'vitals_categorical': (64, 0.1, 32, 0.1),
    },
    micro=(8, (8, 16), 32, 16),
    vitals_mlp=64,
    vitals_decoder=32,
    signal_plan=((16, 320), (32, 160), (48, 40), (64, 20)),
    signal_mlp=128,
    features_mlp=64,
    text_width=64,
    ecg_width=64,
    ecg_heads=8,
    time_channels=64,
    time_mlp=64,
    ecg_decoders=(64, 32, 32, 32),
    width=64,
    heads=8,
    trunk=128,
  )
