"""Trains every stage of every fold, in order and resumably, and then the refit.

A finished stage leaves `done.json`; a run that finds this file continues with the next
stage. An interrupted stage resumes from its latest checkpoint with the batch that it would
have seen next, so it ends with the same parameters as an uninterrupted one.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from data_pipeline.format.dataset import Split
from medm2t_jax.experiment.validation import stages_of
from medm2t_jax.runs import checkpoint, workdir
from medm2t_jax.runs import variables as initial
from medm2t_jax.runs.hosts import devices, distributed
from medm2t_jax.runs.run import Run
from medm2t_jax.training import forecast, side_by_side
from medm2t_jax.training.progress import TimeLeft, require_tensorboard, stage_table
from medm2t_jax.training.stage_training import (
  StageTraining,
  optimizer_of,
)
from medm2t_jax.training.starting import recipe_of, require_new_subjects

_LOGGER = logging.getLogger(__name__)


def train(folds: Sequence[Run]) -> None:
  """Trains the chosen stages of every fold and run; skips complete ones.

  On CPUs, `config.training.processes` sets how many folds train at the same time.

  Raises:
    DataError: a frozen path does not exist, or a stage to start from is not complete.
    stage_training.TrainingError: a loss is not finite.
    preemption.Preempted: SIGTERM arrived and everything is saved.
  """
  if folds[0].config.training.tensorboard:
    require_tensorboard()
  for fold in folds:
    require_new_subjects(fold)
  for stage in chosen_stages(folds[0]):
    if _missing_split(folds[0], stage) is None:
      # Reports a wrong frozen path of the last stage now, not after hours of training.
      optimizer = optimizer_of(folds[0], stage, steps=1)
      if recipe_of(folds[0], stage).frozen:
        jax.eval_shape(optimizer.init, initial.shapes(folds[0], stage)['params'])
  unfinished = [fold for fold in folds if _left(fold)]
  processes = min(folds[0].config.training.processes, len(unfinished))
  if jax.default_backend() != 'cpu' or jax.process_count() > 1:
    processes = 1
  forecast.announce(_pending(unfinished), processes)
  if processes > 1:
    side_by_side.run(unfinished, train_fold, processes)
  else:
    left = TimeLeft(sum(map(_left, folds)))
    for fold in folds:
      train_fold(fold, left)
  runs = [run for fold in folds for run in fold.runs]
  records = [run.record(stage) for run in runs for stage in chosen_stages(run)]
  if distributed.is_first():
    over = [record for record in records if record is not None]
    print(stage_table(over), file=sys.stderr)


def _pending(folds: Sequence[Run]) -> dict[str, list[Run]]:
  """Stage -> the runs of the folds that are still to train it and have its modality."""
  pending: dict[str, list[Run]] = {}
  for run in (run for fold in folds for run in fold.runs):
    for stage in chosen_stages(run):
      if run.record(stage) is None and not _missing_split(run.first or run, stage):
        pending.setdefault(stage, []).append(run)
  return pending


def _left(fold: Run) -> int:
  """Number of stages of a fold's runs that are still to train."""
  return sum(run.record(stage) is None for run in fold.runs for stage in chosen_stages(run))


def train_fold(fold: Run, left: TimeLeft | None = None) -> None:
  """Trains the chosen stages of the runs of a fold; skips complete ones.

  Args:
    fold: its first run.
    left: counts the stages of all folds if they are trained one after the other.

  Raises:
    DataError: as `train`, or no checkpoint of a stage is intact.
    stage_training.TrainingError: a loss is not finite.
    preemption.Preempted: SIGTERM arrived and everything is saved.
  """
  stages = chosen_stages(fold)
  left = left or TimeLeft(_left(fold))
  # The refit comes second, because it needs the best numbers of epochs of the first run.
  for run in fold.runs:
    for number, stage in enumerate(stages, start=1):
      record = run.record(stage)
      if record is None:
        _LOGGER.info(
            '%s, %s: stage %d of %d (the first step compiles); %s',
            run.name, stage, number, len(stages), left,
        )  # fmt: skip
        train_stage(run, stage)
        left.stage_is_over()
      else:
        state = 'skipped' if record.skipped else 'complete'
        _LOGGER.info('%s, %s: %s, going on', run.name, stage, state)


def chosen_stages(fold: Run) -> tuple[str, ...]:
  """The stages of `config.stages`, in training order."""
  return stages_of(fold.config, fold.stages)


def train_stage(fold: Run, stage: str) -> None:
  """Trains one stage to its end, from its latest checkpoint if there is one.

  A stage is skipped, and recorded as skipped, if no training or no validation sample has
  its modality; its encoder then enters the multimodal model untrained. A refit skips the
  same stages as its first run.

  Raises:
    DataError: no checkpoint of the stage is intact, or a config value does not fit.
    stage_training.TrainingError: a loss is not finite.
    preemption.Preempted: SIGTERM arrived inside `preemption.deferred`, and everything is
      saved.
  """
  reason = _why_skipped(fold, stage)
  if reason:
    _LOGGER.warning('%s, %s: skipped, %s', fold.name, stage, reason)
    _write_record(
      fold,
      workdir.StageRecord(fold.fold, stage, skipped=reason, refit=fold.refit),
    )
    return
  directory = workdir.checkpoint_directory(fold.workdir, fold.fold, stage)
  with checkpoint.Checkpoints(directory) as checkpoints:
    training = StageTraining(fold, stage, checkpoints)
    position = training.run()
  devices.release_programs()
  # Only after the context has waited for the saves: done.json promises a checkpoint.
  best = training.best
  assert best is not None  # at least one epoch was trained
  _write_record(
    fold,
    workdir.StageRecord(
      fold.fold,
      stage,
      best_step=best['step'],
      best_epoch=best['epoch'],
      epochs=len(position.history),
      validation_loss=best.get('validation_loss'),
      parameters=training.parameters,
      seconds=sum(record['seconds'] for record in position.history),
      history=tuple(position.history),
      notes=tuple(position.notes),
      part_weights=_part_weights(fold, stage, best),
      refit=fold.refit,
    ),
  )


def _part_weights(fold: Run, stage: str, best: Mapping[str, Any]) -> Mapping[str, float]:
  """Part weights of the best epoch; a refit uses those of the first run."""
  if fold.first is None:
    return best['part_weights']
  return fold.first.require_record(stage).part_weights


def _why_skipped(fold: Run, stage: str) -> str:
  """The reason for not training a stage; '' if it is trained."""
  if fold.first is not None:
    record = fold.first.record(stage)
    return record.skipped if record else ''
  missing = _missing_split(fold, stage)
  return f'no {missing} sample has this modality' if missing else ''


def _missing_split(fold: Run, stage: str) -> Split | None:
  """A split in which no sample has the stage's modality; None if there is none."""
  splits: tuple[Split, ...] = ('train', 'validation')
  modality = fold.model_config.stages[stage].modality
  return next(
    (split for split in splits if not fold.splits.has_samples(split, modality)), None
  )


def _write_record(fold: Run, record: workdir.StageRecord) -> None:
  if distributed.is_first():
    workdir.write_record(fold.workdir, record)
