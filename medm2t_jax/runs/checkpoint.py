"""Checkpoints of one stage: orbax, with the lineage of subjects that they saw.

Items of a checkpoint: `params`, `batch_stats`, `fitted`, `optimizer` and, with
`ema_decay`, `averaged` (arrays), `position` (progress of training, JSON) and `lineage`
(JSON). The best checkpoint and the two latest are kept. Only the position's history says
which one is best, so that a damaged file of a checkpoint cannot change that.
"""

from __future__ import annotations

import dataclasses
import glob
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from etils import epath
from orbax.checkpoint import checkpoint_managers

from data_pipeline.format.schema import DataError
from medm2t_jax.runs.hosts import devices, distributed
from medm2t_jax.runs.train_state import TrainState

_LOGGER = logging.getLogger(__name__)
_VARIABLES = ('params', 'batch_stats', 'fitted')
_AVERAGED = 'averaged'  # with `ema_decay`: these predict instead of `params`
_STATE = (*_VARIABLES, _AVERAGED, 'optimizer')
# Exceptions of orbax and tensorstore for truncated, empty or missing files.
_DAMAGE = (ValueError, KeyError, FileNotFoundError)


def _write_arrays_once() -> None:
  """Makes orbax write the first copy of every array, because all are replicated.

  By default every device would write a slice of each array, and a program would be compiled
  for every slice.
  """
  before = absl_logging.get_verbosity()
  absl_logging.set_verbosity(absl_logging.ERROR)  # it warns about this intended setting
  ocp.type_handlers.register_type_handler(
    jax.Array, ocp.type_handlers.ArrayHandler(use_replica_parallel=False), override=True
  )
  absl_logging.set_verbosity(before)


def _take_names_as_they_are() -> None:
  """Lets orbax find its files in a folder whose name contains '[', '*' or '?'.

  It uses the `glob` of etils' paths, which also interprets the folder's name as a pattern:
  the arrays were then silently missing from the checkpoint.
  """
  kind: Any = type(epath.Path())
  of_pattern = kind.glob

  def in_folder(folder: epath.Path, pattern: str) -> Iterator[epath.Path]:
    return of_pattern(kind(glob.escape(os.fspath(folder))), pattern)

  kind.glob = in_folder


_write_arrays_once()
_take_names_as_they_are()


class DamagedError(DataError):
  """A checkpoint cannot be restored: it is damaged or of another configuration."""


@dataclasses.dataclass(frozen=True)
class Lineage:
  """The subjects that a checkpoint has seen, and what it was made from.

  Attributes:
    fold: the fold whose test subjects must be unseen.
    fitted_on: keyed hashes of the subjects that parameters and fitted state were fitted on,
      including those of the stages it started from.
    selected_on: keyed hashes of the subjects on which a step was chosen, also including
      those stages.
    data_version: version of the prepared data set.
    code_version: version of this package.
    model: the `model` section of the configuration.
    started_from: lineage, as JSON, of the bundle that training started from, with the
      `key_fingerprint` of its hashes; None if it started from scratch.
  """

  fold: int
  fitted_on: frozenset[str]
  selected_on: frozenset[str]
  data_version: str
  code_version: str
  model: Mapping[str, Any]
  started_from: Mapping[str, Any] | None = None

  def to_json(self) -> dict[str, Any]:
    """The fields as JSON values, with sorted lists in place of sets."""
    return {
      **dataclasses.asdict(self),
      'fitted_on': sorted(self.fitted_on),
      'selected_on': sorted(self.selected_on),
    }

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> Lineage:
    """The inverse of `to_json`."""
    return cls(
      **{
        **fields,
        'fitted_on': frozenset(fields['fitted_on']),
        'selected_on': frozenset(fields['selected_on']),
      }
    )

  def seen(self, key_fingerprint: str) -> dict[str, frozenset[str]]:
    """Hashes of all training subjects, of this checkpoint and of what it started from.

    Grouped by fingerprint of their key: hashes with different keys cannot be compared.

    Args:
      key_fingerprint: of the key of this lineage's own hashes.
    """
    found = {key_fingerprint: self.fitted_on | self.selected_on}
    if self.started_from is not None:
      earlier = dict(self.started_from)
      key = earlier.pop('key_fingerprint')
      for each, subjects in Lineage.from_json(earlier).seen(key).items():
        found[each] = found.get(each, frozenset()) | subjects
    return found

  def joined(self, other: Lineage) -> Lineage:
    """This lineage after starting from a checkpoint with lineage `other`."""
    return dataclasses.replace(
      self,
      fitted_on=self.fitted_on | other.fitted_on,
      selected_on=self.selected_on | other.selected_on,
    )

  def require_unseen(
    self, *, fold: int, validation: frozenset[str], test: frozenset[str], where: Path
  ) -> None:
    """Raises if a checkpoint saw subjects that it must not have seen.

    Args:
      fold: the fold in which the checkpoint is to be used.
      validation: hashes of that fold's validation subjects.
      test: hashes of that fold's test subjects.
      where: the checkpoint, for the message.

    Raises:
      DataError: it was fitted on validation or test subjects, or selected on test subjects.
    """
    leaks = {
      'was fitted on {} validation subjects': self.fitted_on & validation,
      'was fitted on {} test subjects': self.fitted_on & test,
      'was selected on {} test subjects': self.selected_on & test,
    }
    for text, subjects in leaks.items():
      if subjects:
        raise DataError(
          f'{where}: {text.format(len(subjects))} of fold {fold} (it belongs to fold '
          f'{self.fold}). Train this stage for fold {fold} instead of reusing it.'
        )


@dataclasses.dataclass(frozen=True)
class Restored:
  """A checkpoint from which training continues.

  Attributes:
    state: the state.
    position: progress of training.
    lineage: the subjects that the state has seen.
    where: folder of the checkpoint.
    notes: one for each later checkpoint that is damaged.
  """

  state: TrainState
  position: dict[str, Any]
  lineage: Lineage
  where: Path
  notes: Sequence[str] = ()


class _BestStep(checkpoint_managers.PreservationPolicy):
  """Keeps the checkpoint that the last save named as the best."""

  step: int | None = None

  def should_preserve(
    self,
    checkpoints: Sequence[checkpoint_managers.PolicyCheckpointInfo],
    *,
    context: checkpoint_managers.PreservationContext,
  ) -> Sequence[bool]:
    del context
    return [checkpoint.step == self.step for checkpoint in checkpoints]


class _Manager(ocp.CheckpointManager):
  """A manager that leaves preemption to the training loop.

  Otherwise it would query JAX's service with its own step numbers, and the processes would
  no longer agree on where to stop.
  """

  def reached_preemption(self, step: int) -> bool:
    del step
    return False


class Checkpoints:
  """The checkpoints of one stage in one folder; a context manager.

  Leaving the context waits for the last asynchronous save. With several processes,
  all of them call the same methods.
  """

  def __init__(self, directory: Path):
    self.directory = directory.resolve()
    self._best = _BestStep()
    self._manager = _Manager(
      self.directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.AnyPreservationPolicy(
          [
            checkpoint_managers.LatestN(n=2),
            self._best,
          ]
        ),
        # Incomplete files of a killed process.
        cleanup_tmp_directories=True,
      ),
      item_names=(*_STATE, 'position', 'lineage'),
    )

  def __enter__(self) -> Checkpoints:
    return self

  def __exit__(self, *exception: object) -> None:
    self._manager.wait_until_finished()
    self._manager.close()

  @property
  def latest_step(self) -> int | None:
    """Step of the latest checkpoint; None if there is none."""
    return self._manager.latest_step()

  def save(
    self,
    state: TrainState,
    position: Mapping[str, Any],
    *,
    lineage: Lineage,
    best_step: int | None,
  ) -> None:
    """Starts an asynchronous save at `state.step`; replaces one of the same step.

    Args:
      state: of the training.
      position: JSON-able position in the data and the history.
      lineage: of the state.
      best_step: the step of the best checkpoint so far, which is kept.
    """
    step = int(state.step)
    if step in self._manager.all_steps():
      # It was saved before its epoch was validated; now it is complete.
      self._manager.wait_until_finished()
      self._manager.delete(step)
    self._best.step = best_step
    # Orbax cannot save empty items, such as the statistics of a stage without BatchNorm.
    arrays = {
      name: devices.to_global(tree)
      for name in _STATE
      if jax.tree.leaves(tree := getattr(state, name))
    }
    saved = self._manager.save(
      step,
      args=ocp.args.Composite(
        **{name: ocp.args.StandardSave(tree) for name, tree in arrays.items()},
        position=ocp.args.JsonSave(dict(position)),
        lineage=ocp.args.JsonSave(lineage.to_json()),
      ),
    )
    if not saved:
      raise ValueError(f'{self.directory}: step {step} is older than the latest checkpoint')

  def lineage(self, step: int) -> Lineage:
    """The lineage that was saved with the checkpoint of a step."""
    return Lineage.from_json(self._restore(step, lineage=ocp.args.JsonRestore())['lineage'])

  def restore_latest(self, template: TrainState) -> Restored | None:
    """Restores the latest intact checkpoint to continue training.

    Damaged ones are moved to the folder `damaged` beside the checkpoints.

    Args:
      template: a state with the shapes and dtypes to restore; its values are unused.

    Returns:
      None if nothing was saved yet.

    Raises:
      DataError: there are checkpoints, but none of them can be restored.
    """
    damaged: dict[int, str] = {}
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        restored = self._restore_training(step, template)
      except DamagedError as error:
        damaged[step] = str(error)
        continue
      notes = [
        f'{reason} Training continued from step {step}.' for reason in damaged.values()
      ]
      for note in notes:
        _LOGGER.warning('%s', note)
      if damaged:
        self._set_aside(list(damaged))
      return dataclasses.replace(restored, notes=notes)
    if damaged:
      raise DataError(
        f'{self.directory}: none of the checkpoints can be restored, the latest for this '
        f'reason: {next(iter(damaged.values()))} To train the stage from the start, '
        'delete this folder.'
      )
    return None

  def _set_aside(self, steps: Sequence[int]) -> None:
    """Moves checkpoints away whose steps training will save again."""

    def move() -> None:
      target = self.directory.parent / 'damaged'
      target.mkdir(exist_ok=True)
      for step in steps:
        if (target / str(step)).exists():
          shutil.rmtree(target / str(step))
        shutil.move(self.directory / str(step), target / str(step))

    distributed.from_first(move)
    self._manager.reload()

  def _restore_training(self, step: int, template: TrainState) -> Restored:
    arrays = _to_restore({name: getattr(template, name) for name in _STATE})
    restored = self._restore(
      step, **arrays, position=ocp.args.JsonRestore(), lineage=ocp.args.JsonRestore()
    )
    state = dataclasses.replace(
      template,
      step=jax.device_put(np.int32(step), devices.replicated()),
      **devices.to_local({name: restored[name] for name in arrays}),
    )
    lineage = Lineage.from_json(restored['lineage'])
    where = self.directory / str(step)
    return Restored(state, restored['position'], lineage, where)

  def restore_variables(self, step: int, template: Mapping[str, Any]) -> dict[str, Any]:
    """Restores `params`, `batch_stats` and `fitted`, without the optimizer.

    Args:
      step: of a saved checkpoint.
      template: the three collections as arrays or shapes.

    Raises:
      DamagedError: the checkpoint is damaged, or of another configuration.
    """
    has_average = (self.directory / str(step) / _AVERAGED).exists()
    names = {name: name for name in _VARIABLES}
    names['params'] = _AVERAGED if has_average else 'params'
    items = _to_restore({item: template[name] for name, item in names.items()})
    restored = devices.to_local(self._restore(step, **items))
    return {name: restored.get(item, {}) for name, item in names.items()}

  def _restore(self, step: int, **items: Any) -> dict[str, Any]:
    """Restores items of a step.

    Raises:
      DamagedError: names the item that cannot be restored, and what to do.
    """
    try:
      return dict(self._manager.restore(step, args=ocp.args.Composite(**items)))
    except _DAMAGE as error:
      where, reason = self._first_damaged(step, items, error)
      raise DamagedError(
        f'{where}: cannot be restored, it is damaged or of another configuration '
        f'({str(reason).splitlines()[0]}).'
      ) from error

  def _first_damaged(
    self, step: int, items: Mapping[str, Any], error: Exception
  ) -> tuple[Path, Exception]:
    """Folder and error of the first item that cannot be restored on its own."""
    for name, item in items.items():
      try:
        self._manager.restore(step, args=ocp.args.Composite(**{name: item}))
      except _DAMAGE as its_error:
        return self.directory / str(step) / name, its_error
    return self.directory / str(step), error


def _to_restore(templates: Mapping[str, Any]) -> dict[str, Any]:
  """The non-empty items, as arguments for orbax."""
  return {
    name: ocp.args.StandardRestore(_abstract(template))
    for name, template in templates.items()
    if jax.tree.leaves(template)
  }


def _abstract(tree: Any) -> Any:
  sharding = devices.replicated_everywhere()
  place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
  return jax.tree.map(place, tree)
