"""Any task: stages, windows and padded lengths follow from the data set.

  python -m medm2t_jax.main --config=configs/task.py:NAME --config.data.dir=DIR

NAME is the task that the data set was prepared for (`--task=NAME`): a task of MIMIC-IV
(docs/tasks.md), which also runs on the simulated hospital without a data folder, or your
own task (docs/your_own_task.md). The loss follows from the target.

Variants follow a comma, as in `configs/task.py:aki,smoke`:

  base     a wider model, for tens of thousands of samples; the default is for thousands
  paper    the sizes of the paper's Tasks 2 and 3
  smoke    the same at its smallest: it shows that everything runs
"""

from __future__ import annotations

import re

from configs import common
from medm2t_jax.experiment import Config

VARIANTS = ('base', 'paper', 'smoke')
# A modality may have the name of its kind.
_KINDS = ('static', 'events', 'notes', 'grid', 'waveform')


def get_config(variant: str | None = None) -> Config:
  """Returns the locked experiment.

  Args:
    variant: the task, followed by any of `VARIANTS`, separated by commas.

  Raises:
    ValueError: there is no task, a variant is unknown, or two sizes are given.
  """
  task, *names = (variant or '').split(',')
  if not re.fullmatch('[a-z][a-z0-9_]*', task):
    raise ValueError(
      f'configs/task.py:{task}: give the task after the colon, as in configs/task.py:aki'
    )
  for name in names:
    if name not in VARIANTS:
      raise ValueError(
        f'unknown variant {name!r} of configs/task.py:{task}; known: {VARIANTS}'
      )
  if len(names) > 1:
    raise ValueError(f'configs/task.py:{variant}: give only one of {VARIANTS}')
  # Entries have the names of kinds of modalities: every stage falls under one of them.
  recipe = {
    'static': common.stage(128, 1e-3),
    'events': common.stage(128, 1e-3),
    'notes': common.stage(128, 1e-3),
    'grid_segments': common.stage(8, 1e-3),
    'grid': common.stage(128, 1e-3, starts_from=('*_segments_*',)),
    'waveform_signal': common.stage(128, 1e-3),
    'waveform_features': common.stage(128, 1e-3),
    'waveform_text': common.stage(128, 1e-3),
    'waveform_fusion': common.stage(
      128, 1e-3, starts_from=('*_signal', '*_features', '*_text')
    ),
    'waveform': common.stage(32, 1e-3, starts_from=('*_fusion',)),
    # It also starts from the stages of all modalities that use one of these recipes.
    'multimodal': common.stage(32, 5e-5, starts_from=_KINDS),
  }
  for fields in recipe.values():
    fields['loss'] = ''
  config = common.base(task, recipe)
  sized = [] if 'paper' in names else ['small']
  smallest = ['smoke'] if 'smoke' in names else []
  made = common.apply_variants(
    config,
    ','.join([*sized, *smallest]),
    small_rate=1e-3,
    small_overrides=common.FROZEN_ENCODERS,
  )
  with made.unlocked():
    made.name = '_'.join([task, *names])
    if 'base' in names:
      made.model.size = 'base'
  return made
