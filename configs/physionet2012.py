r"""PhysioNet/CinC Challenge 2012: in-hospital death, or length of stay (variant `los`).

Open data without credentials. Download it and prepare it once per task (docs/sources.md,
"PhysioNet 2012"):

  python -m data_pipeline.prepare --source=physionet2012 --physionet2012=DIR \
      --task=mortality --out=data/physionet2012-mortality
  python -m medm2t_jax.main --config=configs/physionet2012.py --config.folds=all
  python -m medm2t_jax.main --config=configs/physionet2012.py:los

`--config.data.split_file=FILE` uses published splits instead of the five folds. `los` is
the number of days from ICU admission to the end of hospitalization.

One set has 4,000 stays, so the default model is the small one. `paper` has the sizes, batch
sizes and learning rates of Tasks 2 and 3 of the paper (arXiv 2510.27321 v2), which reports
no results on this data set; `events` uses those of its laboratory values. `published` and
`--config.data.modalities="()"` also read the grid of vital signs.
"""

from __future__ import annotations

from typing import Any

from configs import common
from medm2t_jax.experiment import Config

HOURS = 48
_SEGMENT_STAGES = ('vitals_segments_*',)
_MODALITIES = ('static', 'events', 'vitals')
# Every stay has 24 overlapping segments of each length.
_SMALL_EPOCHS = {
  'static': 20,
  'events': 8,
  'vitals_segments': 4,
  'vitals_segments_12': 4,
  'vitals_segments_24': 4,
  'vitals': 8,
  'multimodal': 8,
}


def get_config(variant: str | None = None) -> Config:
  """Returns the locked experiment.

  Args:
    variant: `los` for length of stay, `paper` for the paper's sizes, and the variants of
      `configs.common`; `small` is the default unless `paper` is given.

  Raises:
    ValueError: a variant is unknown, or two sizes are given.
  """
  names = [name for name in (variant or '').split(',') if name]
  if 'paper' in names and {'small', 'smoke'} & set(names):
    raise ValueError("physionet2012: 'paper' cannot be combined with 'small' or 'smoke'")
  known = ('los', 'paper', *common.VARIANTS)
  for name in names:
    if name not in known:
      raise ValueError(f'unknown variant {name!r} of physionet2012; known: {known}')
  task = 'los' if 'los' in names else 'mortality'
  config = common.base(task, _los() if task == 'los' else _mortality())
  config.name = 'physionet2012_los' if task == 'los' else 'physionet2012'
  config.data.dir = f'data/physionet2012-{task}'
  # Events hold all 37 variables. The grid of vital signs repeats twelve of them, costs more
  # than everything else together and adds nothing here (docs/experiments.md).
  config.data.modalities = () if 'published' in names else ('static', 'events')
  # These buckets hold 36 %, 76 %, 98.6 % and all but one of the 4,000 stays of set-a.
  config.data.buckets = tuple({'events': length} for length in (384, 512, 768, 1024))
  # Windows of six hours.
  config.model.windows = {
    'events': ('hours', tuple(float(hour) for hour in range(6 - HOURS, 0, 6)))
  }
  others = [name for name in names if name not in ('los', 'paper', 'small')]
  if 'paper' in names:
    config.name += '_paper'
  else:
    others.insert(0, 'small')
  return common.apply_variants(
    config,
    ','.join(others),
    small_rate=1e-3,
    small_overrides={'recipe.multimodal.learning_rate': 5e-5}
    if task == 'los'
    else _small_mortality(),
  )


def _mortality() -> dict[str, dict]:
  weighted = common.WEIGHTED_DEATHS
  return {
    'static': common.stage(128, 5e-4),
    'events': common.stage(128, 2.5e-3),
    'vitals_segments': common.stage(8, 1e-3, **weighted),
    'vitals_segments_12': common.stage(8, 2.5e-3, **weighted),
    'vitals_segments_24': common.stage(8, 1e-3, **weighted),
    'vitals': common.stage(128, 1e-3, starts_from=_SEGMENT_STAGES, **weighted),
    'multimodal': common.stage(32, 5e-5, starts_from=_MODALITIES),
  }


def _small_mortality() -> dict[str, Any]:
  """Further changes of `small`, from docs/experiments.md.

  Which epoch is best on 640 stays with 90 deaths is partly chance, so every stage has few
  epochs and a learning rate that falls to 0.
  """
  overrides = {
    **common.FROZEN_ENCODERS,
    'training.processes': 2,
    'model.input_dropout': 0.5,
    'recipe.events.learning_rate': 2e-3,
    'recipe.vitals.frozen': ('encoders_vitals/micro_*',),
  }
  for stage, epochs in _SMALL_EPOCHS.items():
    overrides |= {
      f'recipe.{stage}.schedule': 'cosine',
      f'recipe.{stage}.epochs': epochs,
      f'recipe.{stage}.patience': epochs,
    }
  return overrides


def _los() -> dict[str, dict]:
  squared = {'loss': 'squared'}
  return {
    'static': common.stage(128, 1e-2, **squared),
    'events': common.stage(128, 2.5e-3, **squared),
    'vitals_segments': common.stage(8, 1e-3, **squared),
    'vitals_segments_12': common.stage(8, 2.5e-3, **squared),
    'vitals_segments_24': common.stage(8, 1e-3, **squared),
    'vitals': common.stage(128, 5e-4, starts_from=_SEGMENT_STAGES, **squared),
    'multimodal': common.stage(64, 1e-5, starts_from=_MODALITIES, **squared),
  }
