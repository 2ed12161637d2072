"""Training: every stage of every fold, in order, each resumable.

A stage ends with `done.json`; a run that finds it goes on with the next stage. An
interrupted stage continues from its latest checkpoint with the batch that it would
have seen next, so that it ends with the same parameters as an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from tqdm import tqdm

from data_pipeline.dataset import Split
from data_pipeline.schema import DataError, write_json
from medm2t_jax import checkpoint, losses, parallel, workdir
from medm2t_jax.fold import Fold
from medm2t_jax.models import medm2t

_LOGGER = logging.getLogger(__name__)
_OPTIMIZERS = {'adam': optax.adam, 'sgd': optax.sgd}


class TrainingError(Exception):
  """Training cannot go on. The message names the stage, the step and the remedy."""


def train(folds: Sequence[Fold]) -> None:
  """Trains the chosen stages of every fold; complete ones are skipped.

  Raises:
    DataError: an unknown stage, or a stage to start from is not complete.
    TrainingError: the loss is not finite.
  """
  for fold in folds:
    for stage in chosen_stages(fold):
      done = workdir.read_done(fold.workdir, fold.index, stage)
      if done is None:
        train_stage(fold, stage)
      else:
        state = 'skipped' if done['skipped'] else 'complete'
        _LOGGER.info('fold %d, %s: %s, going on', fold.index, stage, state)


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


@dataclasses.dataclass
class _Position:
  """Where a stage's training stands; saved in every checkpoint.

  Attributes:
    epoch: the current epoch, from 0.
    step: steps made in this epoch.
    loss_total: sum of weighted losses in this epoch.
    loss_weight: sum of their weights.
    history: one record per finished epoch.
  """

  epoch: int = 0
  step: int = 0
  loss_total: float = 0.0
  loss_weight: float = 0.0
  history: list[dict[str, Any]] = dataclasses.field(default_factory=list)

  def stale_epochs(self) -> int:
    """Epochs since the best validation loss."""
    return len(self.history) - 1 - self.best() if self.history else 0

  def best(self) -> int:
    """Index of the best epoch in the history; of equals the last, as orbax has it."""
    values = [record['validation_loss'] for record in self.history]
    return len(values) - 1 - int(np.argmin(values[::-1]))


def train_stage(fold: Fold, stage: str) -> None:
  """Trains one stage to its end, from its latest checkpoint where there is one.

  A stage whose modality no training or no validation sample has is skipped, on
  record: its encoder enters the multimodal model untrained.
  """
  missing = _missing_split(fold, stage)
  if missing is not None:
    reason = f'no {missing} sample has this modality'
    _LOGGER.warning('fold %d, %s: skipped, %s', fold.index, stage, reason)
    _write_done(fold, stage, skipped=reason)
    return
  recipe = fold.config.recipe[stage]
  loss = losses.LOSSES[recipe.loss]
  optimizer = make_optimizer(recipe)
  state, lineage = initial_state(fold, stage, optimizer)
  train_step = parallel.train_step(fold.model, stage, optimizer, loss, recipe.class_weights)
  loss_step = parallel.loss_step(fold.model, stage, loss, recipe.class_weights)
  parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  _LOGGER.info('fold %d, %s: %s parameters', fold.index, stage, f'{parameters:,}')
  directory = workdir.checkpoint_directory(fold.workdir, fold.index, stage)
  with checkpoint.Checkpoints(directory) as checkpoints:
    position = _Position()
    if checkpoints.latest_step is not None:
      state, saved = checkpoints.restore_training(checkpoints.latest_step, state)
      position = _Position(**saved)
      _LOGGER.info(
          'fold %d, %s: resumed at epoch %d, step %d',
          fold.index, stage, position.epoch + 1, position.step,
      )  # fmt: skip
    while position.epoch < recipe.epochs and position.stale_epochs() < recipe.patience:
      save = functools.partial(checkpoints.save, lineage=lineage)
      state, record = _train_epoch(fold, stage, state, position, train_step, save)
      record |= _validate(fold, stage, state, loss_step)
      _require_finite(fold, stage, position, record['validation_loss'])
      position = _Position(epoch=position.epoch + 1, history=[*position.history, record])
      _write_history(directory.parent, position.history)
      _LOGGER.info(
          'fold %d, %s: epoch %d of %d, train loss %.4f, validation loss %.4f, %.0f s',
          fold.index, stage, position.epoch, recipe.epochs,
          record['train_loss'], record['validation_loss'], record['seconds'],
      )  # fmt: skip
      save(state, dataclasses.asdict(position), validation_loss=record['validation_loss'])
    best_step = checkpoints.best_step
  # Only after the context has waited for the saves: done.json promises a checkpoint.
  best = position.best()
  _write_done(
    fold,
    stage,
    best_step=best_step,
    best_epoch=best + 1,
    epochs=len(position.history),
    validation_loss=position.history[best]['validation_loss'],
    parameters=parameters,
    seconds=sum(record['seconds'] for record in position.history),
    history=position.history,
  )


def _missing_split(fold: Fold, stage: str) -> Split | None:
  """The split without a single sample for this stage, if there is one."""
  splits: tuple[Split, ...] = ('train', 'validation')
  for split in splits:
    size = fold.config.recipe[stage].batch_size
    plan = fold.plan(split, (), size, require=fold.modality_of(stage))
    if not len(plan):
      return split
  return None


def _write_done(fold: Fold, stage: str, *, skipped: str = '', **record: Any) -> None:
  """Writes done.json: the stage is complete, or skipped for the reason given."""
  directory = workdir.stage_directory(fold.workdir, fold.index, stage)
  directory.mkdir(parents=True, exist_ok=True)
  fields = {'fold': fold.index, 'stage': stage, 'skipped': skipped, **record}
  write_json(directory / 'done.json', fields)


def make_optimizer(recipe: Mapping[str, Any]) -> optax.GradientTransformation:
  """The optimizer of a stage: clipping, Adam or SGD, weight decay, frozen paths."""
  parts = []
  if recipe['clip_norm']:
    parts.append(optax.clip_by_global_norm(recipe['clip_norm']))
  if recipe['weight_decay']:
    # Decay in the gradient, as torch.optim.Adam has it.
    parts.append(optax.add_decayed_weights(recipe['weight_decay']))
  parts.append(_OPTIMIZERS[recipe['optimizer']](recipe['learning_rate']))
  if recipe['frozen']:
    parts.append(optax.masked(optax.set_to_zero(), _frozen_mask(tuple(recipe['frozen']))))
  return optax.chain(*parts)


def _frozen_mask(prefixes: tuple[str, ...]) -> Callable[[Any], Any]:
  """A function from parameters to a tree of bools: True under one of the prefixes."""

  def frozen(path: tuple[Any, ...], _: Any) -> bool:
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    return any(name == prefix or name.startswith(prefix + '/') for prefix in prefixes)

  return functools.partial(jax.tree_util.tree_map_with_path, frozen)


def initial_state(
  fold: Fold, stage: str, optimizer: optax.GradientTransformation
) -> tuple[parallel.TrainState, checkpoint.Lineage]:
  """Fresh variables, overwritten by every equal path of the stages to start from."""
  variables = fold.init(stage)
  flat: dict[Any, Any] = dict(traverse_util.flatten_dict(variables))
  lineage = fold.lineage()
  stages = medm2t.stages(fold.model_config)
  for source in fold.config.recipe[stage].starts_from:
    if source not in stages or fold.skipped(source):
      continue  # the data set lacks that modality
    restored, seen = fold.restore_best(source)
    lineage = lineage.joined(seen)
    for path, value in traverse_util.flatten_dict(restored).items():
      if path in flat and path[0] != 'fitted':
        flat[path] = value
  variables = traverse_util.unflatten_dict(flat)
  state = parallel.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    batch_stats=variables['batch_stats'],
    fitted=variables['fitted'],
    optimizer=optimizer.init(variables['params']),
  )
  # Placed as the step returns it: placed otherwise, its first call compiles alone.
  return jax.device_put(state, parallel.replicated()), lineage


def _train_epoch(
  fold: Fold,
  stage: str,
  state: parallel.TrainState,
  position: _Position,
  train_step: Callable[..., tuple[parallel.TrainState, parallel.LossSum]],
  save: Callable[[parallel.TrainState, dict[str, Any]], None],
) -> tuple[parallel.TrainState, dict[str, Any]]:
  """Runs the rest of an epoch; `position` is kept up to date for `save`."""
  config = fold.config
  plan = fold.plan(
    'train',
    fold.modalities_of(stage),
    config.recipe[stage].batch_size,
    require=fold.modality_of(stage),
    shuffle=(config.seed, position.epoch),
  )
  start = time.perf_counter()
  waited = 0.0
  samples = 0
  key = fold.key(stage)
  pending: list[parallel.LossSum] = []

  def collect() -> None:
    # The only place where the host waits for the devices.
    for loss in jax.device_get(pending):
      position.loss_total += float(loss.total)
      position.loss_weight += float(loss.weight)
    pending.clear()
    _require_finite(fold, stage, position, position.loss_total)

  progress = tqdm(
    fold.read(plan, fold.modalities_of(stage), position.step),
    desc=f'fold {fold.index} {stage} {position.epoch + 1}/{config.recipe[stage].epochs}',
    initial=position.step,
    total=len(plan),
    unit='step',
    leave=False,
  )
  before = time.perf_counter()
  for batch in progress:
    waited += time.perf_counter() - before
    state, loss = train_step(state, batch, key)
    pending.append(loss)
    position.step += 1
    samples += int((batch['row'] >= 0).sum())
    if position.step % 20 == 0:
      collect()
      mean = position.loss_total / position.loss_weight
      progress.set_postfix(
        loss=f'{mean:.4f}', wait=f'{waited / (time.perf_counter() - start):.0%}'
      )
    # The end of the epoch is saved with its validation loss.
    if position.step % config.training.save_every_steps == 0 and position.step < len(plan):
      collect()
      save(state, dataclasses.asdict(position))
    before = time.perf_counter()
  collect()
  seconds = time.perf_counter() - start
  return state, {
    'epoch': position.epoch + 1,
    'train_loss': position.loss_total / position.loss_weight,
    'samples_per_second': samples / seconds,
    'data_wait_share': waited / seconds,
    'seconds': seconds,
  }


def _require_finite(fold: Fold, stage: str, position: _Position, loss: float) -> None:
  """Raises TrainingError, with the place and the remedy, when the loss is not finite."""
  if not np.isfinite(loss):
    raise TrainingError(
      f'fold {fold.index}, stage {stage}: the loss is not finite in the steps up to '
      f'{position.step} of epoch {position.epoch + 1}. Lower '
      f'config.recipe.{stage}.learning_rate or set clip_norm.'
    )


def _validate(
  fold: Fold, stage: str, state: parallel.TrainState, loss_step: Callable[..., Any]
) -> dict[str, float]:
  """Mean validation loss."""
  sums = [
    loss_step(state.variables, batch)
    for batch in fold.batches(
      'validation',
      fold.modalities_of(stage),
      fold.config.recipe[stage].batch_size,
      require=fold.modality_of(stage),
    )
  ]
  total, weight = (sum(map(float, values)) for values in zip(*sums, strict=True))
  return {'validation_loss': total / weight}


def _write_history(directory: Path, history: list[dict[str, Any]]) -> None:
  """Rewrites metrics.jsonl, so that a resumed epoch never stands there twice."""
  partial = directory / 'metrics.jsonl.partial'
  partial.write_text(''.join(json.dumps(record) + '\n' for record in history))
  partial.replace(directory / 'metrics.jsonl')
