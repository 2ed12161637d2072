"""Training: every stage of every fold, in order, each resumable.

A stage ends with `done.json`; a run that finds it goes on with the next stage. An
interrupted stage continues from its latest checkpoint with the batch that it would
have seen next, so that it ends with the same parameters as an uninterrupted one.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import jax

from data_pipeline.dataset import Split
from data_pipeline.schema import DataError
from medm2t_jax import (
  baselines,
  checkpoint,
  distributed,
  parallel,
  side_by_side,
  workdir,
)
from medm2t_jax.fold import Fold
from medm2t_jax.metric_writer import require_tensorboard
from medm2t_jax.models import medm2t
from medm2t_jax.progress import TimeLeft, stage_table
from medm2t_jax.stage_training import StageTraining, first_epoch, loss_and_optimizer

_LOGGER = logging.getLogger(__name__)


def train(folds: Sequence[Fold]) -> None:
  """Trains the chosen stages of every fold and member; complete ones are skipped.

  With `config.training.processes`, on CPUs, several members at a time.

  Raises:
    DataError: an unknown stage or baseline, a recipe's value that does not suit, a frozen
      path that does not exist, or a stage to start from is not complete.
    stage_training.TrainingError: a loss is not finite.
    preemption.Preempted: SIGTERM came; all is saved.
  """
  baselines.require_known(folds[0].config)  # before all else, not after days of training
  if folds[0].config.training.tensorboard:
    require_tensorboard()
  for stage in chosen_stages(folds[0]):
    if _missing_split(folds[0], stage) is None:
      # A mistake in the last recipe is told now.
      steps = len(first_epoch(folds[0], stage))
      _, optimizer = loss_and_optimizer(folds[0], stage, steps)
      if folds[0].config.recipe[stage].frozen:
        jax.eval_shape(optimizer.init, folds[0].shapes(stage)['params'])
  members = [member for fold in folds for member in fold.members]
  unfinished = [member for member in members if not _is_over(member)]
  processes = min(folds[0].config.training.processes, len(unfinished))
  if processes > 1 and jax.default_backend() == 'cpu' and jax.process_count() == 1:
    side_by_side.run(unfinished, train_member, processes)
  else:
    left = TimeLeft(sum(len(_to_train(member)) for member in members))
    for member in members:
      train_member(member, left)
  records = [member.record(stage) for member in members for stage in chosen_stages(member)]
  if distributed.is_first():
    over = [record for record in records if record is not None]
    print(stage_table(over), file=sys.stderr)


def _is_over(member: Fold) -> bool:
  return not _to_train(member)


def _to_train(member: Fold) -> list[str]:
  return [stage for stage in chosen_stages(member) if member.record(stage) is None]


def train_member(member: Fold, left: TimeLeft | None = None) -> None:
  """Trains the chosen stages of one member of a fold; complete ones are skipped.

  Args:
    member: of a fold.
    left: counts the stages of all members where they are trained one after the other.

  Raises:
    DataError: as `train`, or no checkpoint of a stage is intact.
    stage_training.TrainingError: a loss is not finite.
    preemption.Preempted: SIGTERM came; all is saved.
  """
  stages = chosen_stages(member)
  left = left or TimeLeft(len(_to_train(member)))
  for number, stage in enumerate(stages, start=1):
    record = member.record(stage)
    if record is None:
      _LOGGER.info(
          '%s, %s: stage %d of %d, compiled in its first step; %s',
          member.name, stage, number, len(stages), left,
      )  # fmt: skip
      train_stage(member, stage)
      left.stage_is_over()
    else:
      state = 'skipped' if record.skipped else 'complete'
      _LOGGER.info('%s, %s: %s, going on', member.name, stage, state)


def chosen_stages(fold: Fold) -> tuple[str, ...]:
  """The stages of `config.stages`, in training order.

  Raises:
    DataError: a stage that the task and data set do not have.
  """
  known = medm2t.stages(fold.model_config)
  if fold.config.stages == 'all':
    return known
  names = fold.config.stages.split(',')
  for name in names:
    if name not in known:
      raise DataError(
        f'config.stages={fold.config.stages!r}: unknown {name!r}; known: {known}'
      )
  return tuple(stage for stage in known if stage in names)


def train_stage(fold: Fold, stage: str) -> None:
  """Trains one stage to its end, from its latest checkpoint where there is one.

  A stage whose modality no training or no validation sample has is skipped, on
  record: its encoder enters the multimodal model untrained.

  Raises:
    DataError: no checkpoint of the stage is intact, or a config value does not suit.
    stage_training.TrainingError: a loss is not finite.
    preemption.Preempted: SIGTERM came inside `preemption.deferred`; all is saved.
  """
  missing = _missing_split(fold, stage)
  if missing is not None:
    reason = f'no {missing} sample has this modality'
    _LOGGER.warning('%s, %s: skipped, %s', fold.name, stage, reason)
    _write_record(
      fold,
      workdir.StageRecord(fold.index, stage, skipped=reason, member=fold.member),
    )
    return
  recipe = fold.config.recipe[stage]
  directory = workdir.checkpoint_directory(fold.workdir, fold.index, stage)
  with checkpoint.Checkpoints(directory) as checkpoints:
    training = StageTraining(fold, stage, checkpoints)
    position = training.run()
  parallel.release_programs()
  # Only after the context has waited for the saves: done.json promises a checkpoint.
  best = position.best(recipe.select_by)
  assert best is not None  # at least one epoch was trained
  _write_record(
    fold,
    workdir.StageRecord(
      fold.index,
      stage,
      best_step=best['step'],
      best_epoch=best['epoch'],
      epochs=len(position.history),
      validation_loss=best['validation_loss'],
      parameters=training.parameters,
      seconds=sum(record['seconds'] for record in position.history),
      history=tuple(position.history),
      notes=tuple(position.notes),
      member=fold.member,
    ),
  )


def _missing_split(fold: Fold, stage: str) -> Split | None:
  """The split without a single sample for this stage, if there is one."""
  splits: tuple[Split, ...] = ('train', 'validation')
  return next((split for split in splits if not fold.has_samples(split, stage)), None)


def _write_record(fold: Fold, record: workdir.StageRecord) -> None:
  if distributed.is_first():
    workdir.write_record(fold.workdir, record)
