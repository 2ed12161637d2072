"""Trains one stage through its epochs: state, steps, checkpoints, position."""

from __future__ import annotations

import dataclasses
import functools
import logging
import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import numpy as np
import optax

from data_pipeline.format.dataset import Split
from data_pipeline.format.items import ShownError
from data_pipeline.format.schema import Target
from data_pipeline.format.subjects import hash_subject
from data_pipeline.reading import planning
from medm2t_jax.damage import augmentation
from medm2t_jax.experiment import Recipe
from medm2t_jax.models import medm2t
from medm2t_jax.runs import checkpoint, workdir
from medm2t_jax.runs import variables as initial
from medm2t_jax.runs.hosts import distributed, preemption
from medm2t_jax.runs.reader import Batch
from medm2t_jax.runs.restoring import require_unseen
from medm2t_jax.runs.run import Run, was_skipped
from medm2t_jax.training import losses, selection, steps
from medm2t_jax.training.blend_weights import fit_weights
from medm2t_jax.training.optimizer import make_optimizer
from medm2t_jax.training.position import Position
from medm2t_jax.training.progress import MetricWriter, Progress
from medm2t_jax.training.starting import initial_state, recipe_of, sources_of

_LOGGER = logging.getLogger(__name__)


class TrainingError(ShownError):
  """Training cannot continue. The message names the stage, the step and the remedy."""


def first_epoch(fold: Run, stage: str) -> planning.Plan:
  """The plan of a stage's first epoch; the others have about as many steps."""
  return _plan_epoch(fold, stage, 0)


def validation_pass(fold: Run, stage: str) -> planning.Plan | None:
  """The plan of the validation after every epoch; None: a refit does not validate."""
  return None if fold.refit else _plan(fold, stage, 'validation')


def _plan_epoch(fold: Run, stage: str, epoch: int) -> planning.Plan:
  return _plan(fold, stage, 'train', (fold.config.seed, epoch))


def _plan(
  fold: Run, stage: str, split: Split, shuffle: tuple[int, int] | None = None
) -> planning.Plan:
  config = fold.config
  # Validation uses the shapes of prediction, and so the same compiled program.
  of = recipe_of(fold, stage) if split == 'train' else config.evaluation
  return fold.plan(
    split,
    fold.modalities_of(stage),
    of.batch_size,
    require=fold.model_config.stages[stage].modality,
    shuffle=shuffle,
  )


def optimizer_of(fold: Run, stage: str, steps: int) -> optax.GradientTransformation:
  """The optimizer of a stage; `steps` is the number of steps per epoch."""
  recipe = _with_untrained(recipe_of(fold, stage), fold.model, stage)
  return make_optimizer(recipe, stage, recipe.epochs * steps)


def _with_untrained(recipe: Recipe, model: medm2t.MedM2T, stage: str) -> Recipe:
  """The recipe, which also freezes parameters that a stage never trains."""
  return recipe.changed({'frozen': (*recipe.frozen, *model.untrained(stage))})


def steps_of(fold: Run, stage: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Training and validation step of a stage, compiled once for all folds, runs and seeds.

  The optimizer's state holds the total number of updates.
  """
  model: Any = fold.model  # an unbound module is hashable, but its type does not say so
  return _steps(model, stage, recipe_of(fold, stage), fold.dataset.schema.target)


@functools.lru_cache(maxsize=64)
def _steps(
  model: medm2t.MedM2T, stage: str, recipe: Recipe, target: Target
) -> tuple[Callable[..., Any], Callable[..., Any]]:
  recipe = _with_untrained(recipe, model, stage)
  loss = losses.make_loss(recipe, target)
  optimizer = make_optimizer(recipe, stage, steps=1)
  train = steps.train_step(model, stage, optimizer, loss, recipe.frozen, recipe.ema_decay)
  return train, steps.validation_step(model, stage, loss)


class StageTraining:
  """Trains one stage through its epochs.

  A refit trains for the number of epochs that was best in the first run. It does not
  validate, because it trains on the validation subjects.
  """

  def __init__(self, fold: Run, stage: str, checkpoints: checkpoint.Checkpoints):
    self._fold = fold
    self._stage = stage
    self._name = f'{fold.name}, {stage}'
    self._recipe = recipe_of(fold, stage)
    self._checkpoints = checkpoints
    self._first_epoch = first_epoch(fold, stage)
    self._validation = validation_pass(fold, stage)
    self._epochs, self._select_by = self._recipe.epochs, self._recipe.select_by
    if fold.first is not None:
      record = fold.first.require_record(stage)
      self._epochs, self._select_by = record.best_epoch, selection.LAST
    steps = len(self._first_epoch)
    optimizer = optimizer_of(fold, stage, steps)
    self._train_step, self._validation_step = steps_of(fold, stage)
    self._state, self._lineage = initial_state(fold, stage, optimizer)
    self._position = Position(batch_size=self._first_epoch.batch_size)
    self._saved_at = time.monotonic()
    self._writer = None
    if distributed.is_first():
      directory = workdir.stage_directory(fold.workdir, fold.fold, stage)
      tensorboard = fold.config.training.tensorboard
      self._writer = MetricWriter(directory, tensorboard=tensorboard)
    self.parameters = sum(leaf.size for leaf in jax.tree.leaves(self._state.params))

  def run(self) -> Position:
    """Trains until the last epoch, or until `patience` epochs brought no improvement."""
    _LOGGER.info('%s: %s parameters', self._name, f'{self.parameters:,}')
    made, wanted = self._first_epoch.batch_size, self._recipe.batch_size
    if made != wanted:
      _LOGGER.info(
        '%s: %d samples a step instead of %d, so that %d devices divide them',
        self._name, made, wanted, jax.device_count(),
      )  # fmt: skip
    self._warn_of_cuts()
    self._resume()
    epoch = self._open_epoch()
    while (
      self._position.epoch < self._epochs
      and self._position.stale_epochs(self._select_by) < self._recipe.patience
    ):
      record = self._train_epoch(*epoch)
      if self._position.epoch + 1 < self._epochs:
        # Opened before validation, so that it reads ahead meanwhile.
        epoch = self._open_epoch(after=True)
      if self._validation is not None:
        record |= self._validate(self._validation)
      self._position = self._position.after_epoch(record)
      if self._writer is not None:
        self._writer.write(self._position.history)
      told = ', '.join(
        f'{name} loss {record[f"{name}_loss"]:.4f}'
        for name in ('train', 'validation')
        if f'{name}_loss' in record
      )
      _LOGGER.info(
          '%s: epoch %d of %d, %s, %.0f s',
          self._name, self._position.epoch, self._epochs, told, record['seconds'],
      )  # fmt: skip
      if self._is_due():
        self._save()
    return self._position

  def _is_due(self) -> bool:
    """Whether to save at the end of an epoch: the best, the last, or after some time."""
    best = self.best
    if self._position.epoch >= self._epochs or (
      self._select_by != selection.LAST
      and best is not None
      and best['epoch'] == self._position.epoch
    ):
      return True
    # Clocks of processes differ, but all processes must save together.
    waited = distributed.from_first(lambda: {'seconds': time.monotonic() - self._saved_at})
    return waited['seconds'] >= self._fold.config.training.save_every_seconds

  @property
  def best(self) -> dict[str, Any] | None:
    """The record of the best epoch so far."""
    return self._position.best(self._select_by)

  def _warn_of_cuts(self) -> None:
    """Says which capacity to raise if samples do not fit."""
    plan, data = self._first_epoch, self._fold.config.data
    modalities = self._fold.dataset.schema.modalities
    longest = planning.buckets_of(self._fold.dataset, self._fold.config.data)[-1]
    for name, count in plan.truncated.items():
      if count:
        _LOGGER.warning(
            '%s: %d training samples have more than %d %s of %s; only the most recent '
            'are used. Raise the last value of config.data.buckets to use all.',
            self._name, count, longest[name], modalities[name].noun, name,
        )  # fmt: skip
    if plan.overflowing:
      _LOGGER.warning(
          '%s: %d training samples have more than %d recordings; only the most recent '
          'are used. Raise config.data.max_recordings to use all.',
          self._name, plan.overflowing, data.max_recordings,
      )  # fmt: skip

  def _resume(self) -> None:
    restored = self._checkpoints.restore_latest(self._state)
    if restored is None:
      return
    # The checkpoint may have been copied here from another fold.
    require_unseen(self._fold, restored.lineage, restored.where)
    position, size = Position(**restored.position), self._first_epoch.batch_size
    if position.batch_size not in (0, size):
      raise TrainingError(
        f'{self._name}: {restored.where} was saved with {position.batch_size} samples a '
        f'step, and {jax.device_count()} devices need {size}: continue on as many devices '
        'as before, or train in another --workdir.'
      )
    self._state = restored.state
    self._position = dataclasses.replace(position, batch_size=size)
    self._position.notes.extend(restored.notes)
    _LOGGER.info(
        '%s: resumed at epoch %d, step %d',
        self._name, self._position.epoch + 1, self._position.step,
    )  # fmt: skip

  def _save(self) -> None:
    self._saved_at = time.monotonic()
    best = self.best
    self._checkpoints.save(
      self._state,
      dataclasses.asdict(self._position),
      lineage=self._lineage,
      best_step=best['step'] if best else None,
    )

  def _stop(self) -> NoReturn:
    """Saves and stops, because the machine will be taken away."""
    self._save()
    raise preemption.Preempted(
      f'{self._name}: stopped by SIGTERM; saved at epoch {self._position.epoch + 1}, '
      f'step {self._position.step}. Run the same command again to continue.'
    )

  def _open_epoch(self, *, after: bool = False) -> tuple[planning.Plan, Iterator[Batch]]:
    """Plan and remaining batches of this epoch, or of the one `after` it."""
    epoch, step = self._position.epoch, self._position.step
    if after:
      epoch, step = epoch + 1, 0
    plan = _plan_epoch(self._fold, self._stage, epoch) if epoch else self._first_epoch
    modalities = self._fold.modalities_of(self._stage)
    return plan, self._augmented(self._fold.reader.read(plan, modalities, step), epoch)

  def _augmented(self, batches: Iterator[Batch], epoch: int) -> Iterator[Batch]:
    """The batches with damage of `config.augmentation`, another one in every epoch."""
    fold = self._fold
    rate = fold.config.augmentation
    if not rate:
      return batches
    of_epoch = np.random.SeedSequence((fold.config.seed, epoch)).generate_state(1)
    change = functools.partial(
      augmentation.augmented,
      modalities=fold.model_config.modalities,
      statistics=fold.statistics,
      rate=rate,
      seed=int(of_epoch[0]),
    )
    return map(change, batches)

  def _train_epoch(self, plan: planning.Plan, batches: Iterator[Batch]) -> dict[str, Any]:
    """Runs the rest of an epoch and keeps the position up to date for saving."""
    config, position = self._fold.config, self._position
    key = initial.key(self._fold, self._stage)
    pending: list[steps.LossSum] = []

    def collect() -> None:
      # The only place where the host waits for the devices.
      first = position.step - len(pending)
      for number, loss in enumerate(jax.device_get(pending), first):
        self._require_finite(float(loss.total), 'train', plan, number)
        position.loss_total += float(loss.total)
        position.loss_weight += float(loss.weight)
      pending.clear()

    progress = Progress(
      f'{self._name} {position.epoch + 1}/{self._epochs}',
      (plan.rows >= 0).sum(axis=(1, 2)),
      position.step,
      # Bars of several processes would overwrite each other.
      visible=distributed.is_first() and multiprocessing.parent_process() is None,
    )
    idle = lambda: not pending or _is_over(pending[-1])
    for batch in progress.over(batches, idle):
      self._state, loss = self._train_step(self._state, batch, key)
      pending.append(loss)
      position.step += 1
      if position.step % 20 == 0:
        collect()
        progress.show_loss(position.loss_total / position.loss_weight)
      if preemption.requested():
        collect()
        self._stop()
      # The end of the epoch is saved later, with its validation loss.
      due = position.step % config.training.save_every_steps == 0
      if due and position.step < len(plan):
        collect()
        self._save()
    collect()
    return {
      'epoch': position.epoch + 1,
      'step': int(self._state.step),
      'train_loss': position.loss_total / position.loss_weight,
      **progress.measurements(),
    }

  def _validate(self, plan: planning.Plan) -> dict[str, float]:
    """Mean validation loss, and the metric by which the best epoch is chosen."""
    sums: list[steps.LossSum] = []
    units: list[steps.Units] = []
    parts = self._fold.model.part_names(self._stage)
    for batch in self._fold.reader.read(plan, self._fold.modalities_of(self._stage)):
      loss, predicted = self._validation_step(self._state.variables, batch)
      sums.append(loss)
      if len(parts) > 1 or selection.is_metric(self._select_by):
        units.append(jax.device_get(predicted))
      if preemption.requested():
        self._stop()
    totals = [float(loss.total) for loss in jax.device_get(sums)]
    for number, total in enumerate(totals):
      self._require_finite(total, 'validation', plan, number)
    mean = sum(totals) / sum(float(loss.weight) for loss in sums)
    record: dict[str, Any] = {
      'validation_loss': mean,
      'part_weights': dict.fromkeys(parts, 1 / len(parts)),
    }
    if not units:
      return record
    logits, outputs, label, weight = _gathered(units)
    if selection.is_metric(self._select_by):
      target = self._fold.dataset.schema.target
      found = selection.value(self._select_by, logits, label, weight, target, self._stage)
      record[selection.measured(self._select_by)] = found
    if len(parts) > 1:
      by_name = {name: outputs[:, place] for place, name in enumerate(parts)}
      record['part_weights'] = _fitted_weights(
        self._fold, self._stage, by_name, label, weight
      )
    return record

  def _require_finite(
    self, loss: float, split: Split, plan: planning.Plan, number: int
  ) -> None:
    """Raises TrainingError, naming step and samples, if a loss is not finite."""
    if np.isfinite(loss):
      return
    dataset = self._fold.dataset
    rows = plan.rows[number]
    samples = dataset.index['sample_id'][rows[rows >= 0]]
    hashes = sorted(hash_subject(sample, dataset.subject_key) for sample in samples)
    raise TrainingError(
      f'{self._fold.name}, stage {self._stage}: the {split} loss or its gradient is '
      f'not finite at step {number + 1} of epoch {self._position.epoch + 1}, for the '
      f'sample_ids with the keyed hashes {", ".join(hashes)}. Lower '
      f'config.recipe.{self._stage}.learning_rate or set clip_norm; if the same '
      'samples fail again, look at their values.'
    )


def _is_over(step: steps.LossSum) -> bool:
  """Whether the devices have computed the step, without waiting for them."""
  return step.total.is_ready()  # pyright: ignore[reportAttributeAccessIssue]


def _gathered(units: list[steps.Units]) -> tuple[np.ndarray, ...]:
  """Gathers units of all processes: outputs (u c), parts (u m c), labels, weights (u)."""
  arrays = []
  for each in units:
    parts = np.moveaxis(np.asarray(each.parts), 1, 2)
    found = (each.logits, parts, each.label, each.weight)
    arrays.append([distributed.gather(np.asarray(array)) for array in found])
  logits, parts, label, weight = (
    np.concatenate([array.reshape(-1, *array.shape[2:]) for array in group])
    for group in zip(*arrays, strict=True)
  )
  counts = weight > 0
  return logits[counts], parts[counts], label[counts], weight[counts]


def _fitted_weights(
  fold: Run,
  stage: str,
  outputs: dict[str, np.ndarray],
  label: np.ndarray,
  weight: np.ndarray,
) -> dict[str, float]:
  """Weight of each part of a prediction, fitted on validation units.

  A run that starts from a trained model keeps that model's weights. Modalities whose stage
  was not trained before have none.
  """
  kept = fold.start.part_weights(stage) if fold.start else None
  if kept is not None:
    return {name: float(each) for name, each in zip(outputs, kept, strict=True)}
  absent = [
    name
    for name in outputs
    if name in fold.model_config.names
    and (name not in sources_of(fold, stage) or was_skipped(fold, name))
  ]
  fitted = {name: each for name, each in outputs.items() if name not in absent}
  target, prior = fold.dataset.schema.target, fold.statistics['decoder']['offset']
  weights = fit_weights(fitted, label, weight, prior, target)
  return {name: weights.get(name, 0.0) for name in outputs}
