"""Checkpoints of one stage: orbax, with the lineage of subjects that they saw.

Items of a checkpoint: `params`, `batch_stats`, `fitted`, `optimizer`, with `ema_decay`
`averaged` (arrays),
`position` (where training stands, JSON) and `lineage` (JSON). The best one and the two
latest are kept. Which one is best stands in the position's history alone, so that a
damaged file of one checkpoint cannot change it.
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
_AVERAGED = 'averaged'  # with `ema_decay`: they predict, and not `params`
_STATE = (*_VARIABLES, _AVERAGED, 'optimizer')
# What orbax and tensorstore raise on files that are cut short, empty or gone.
_DAMAGE = (ValueError, KeyError, FileNotFoundError)


def _write_arrays_once() -> None:
  """Every array is replicated: its first copy is written.

  By default every device would write a slice of each, and a program be compiled for every
  slice.
  """
  before = absl_logging.get_verbosity()
  absl_logging.set_verbosity(absl_logging.ERROR)  # it warns of what is meant here
  ocp.type_handlers.register_type_handler(
    jax.Array, ocp.type_handlers.ArrayHandler(use_replica_parallel=False), override=True
  )
  absl_logging.set_verbosity(before)


def _take_names_as_they_are() -> None:
  """Lets orbax find its files in a folder whose name has a '[', '*' or '?'.

  It looks with the `glob` of etils' paths, which reads the folder's name as a pattern too:
  the arrays were then silently not in the checkpoint.
  """
  kind: Any = type(epath.Path())
  of_pattern = kind.glob

  def in_folder(folder: epath.Path, pattern: str) -> Iterator[epath.Path]:
    return of_pattern(kind(glob.escape(os.fspath(folder))), pattern)

  kind.glob = in_folder


_write_arrays_once()
_take_names_as_they_are()


class DamagedError(DataError):
  """A checkpoint that cannot be restored: damaged, or of another configuration."""


@dataclasses.dataclass(frozen=True)
class Lineage:
  """Which subjects a checkpoint has seen, and what made it.

  Attributes:
    fold: the fold whose test subjects must be unseen.
    fitted_on: keyed hashes of the subjects that parameters and fitted state saw,
      those of the stages it started from included.
    selected_on: keyed hashes of the subjects on which a step was chosen, likewise.
    data_version: version of the prepared data set.
    code_version: version of this package.
    model: the `model` section of the configuration.
    started_from: lineage, as JSON, of the trained model that training started from, with
      the `key_fingerprint` of its hashes; None where it started from scratch.
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
    """Hashes of all subjects that were learnt from, here or in what this started from.

    By fingerprint of their key: hashes of different keys cannot be compared.

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
    """Refuses a checkpoint that saw subjects which it must not have seen.

    Args:
      fold: the fold in which the checkpoint is to be used.
      validation: hashes of that fold's validation subjects.
      test: hashes of that fold's test subjects.
      where: the checkpoint, for the message.

    Raises:
      DataError: a fitting subject validates or tests, or a selection subject tests.
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
  """A checkpoint from which training goes on.

  Attributes:
    state: the state.
    position: where training stood.
    lineage: whom the state has seen.
    where: folder of the checkpoint.
    notes: one on every later checkpoint that is damaged.
  """

  state: TrainState
  position: dict[str, Any]
  lineage: Lineage
  where: Path
  notes: Sequence[str] = ()


class _BestStep(checkpoint_managers.PreservationPolicy):
  """Keeps the checkpoint of the step that the last save named as the best."""

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

  It would ask JAX's service with step numbers of its own, and the processes would no
  longer agree on where to stop.
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
        # What a killed process was writing.
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
    """Starts an asynchronous save at `state.step`, in place of one at the same step.

    Args:
      state: of the training.
      position: JSON-able position in the data and the history.
      lineage: of the state.
      best_step: the step of the best checkpoint so far, which is kept.
    """
    step = int(state.step)
    if step in self._manager.all_steps():
      # Saved before its epoch was validated: now it is complete.
      self._manager.wait_until_finished()
      self._manager.delete(step)
    self._best.step = best_step
    # Orbax has no empty items: a stage without BatchNorm has no statistics of it.
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
    """Restores the latest intact checkpoint for going on with training.

    Damaged ones are moved to the folder `damaged` beside the checkpoints.

    Args:
      template: a state with the shapes and dtypes to restore; its values are unused.

    Returns:
      None where nothing was ever saved.

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
        f'{reason} Training went on from step {step}.' for reason in damaged.values()
      ]
      for note in notes:
        _LOGGER.warning('%s', note)
      if damaged:
        self._set_aside(list(damaged))
      return dataclasses.replace(restored, notes=notes)
    if damaged:
      raise DataError(
        f'{self.directory}: none of the checkpoints can be restored, the latest for this '
        f'reason: {next(iter(damaged.values()))} To train the stage from its start, '
        'delete this folder.'
      )
    return None

  def _set_aside(self, steps: Sequence[int]) -> None:
    """Moves checkpoints out of the way of those that training will save again."""

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
    """Folder of, and reason for, the first item that cannot be restored alone."""
    for name, item in items.items():
      try:
        self._manager.restore(step, args=ocp.args.Composite(**{name: item}))
      except _DAMAGE as its_error:
        return self.directory / str(step) / name, its_error
    return self.directory / str(step), error


def _to_restore(templates: Mapping[str, Any]) -> dict[str, Any]:
  """What orbax is asked for: the items that are not empty."""
  return {
    name: ocp.args.StandardRestore(_abstract(template))
    for name, template in templates.items()
    if jax.tree.leaves(template)
  }


def _abstract(tree: Any) -> Any:
  sharding = devices.replicated_everywhere()
  place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
  return jax.tree.map(place, tree)
