"""Checkpoints of one stage: orbax, with the lineage of subjects that they saw.

Items of a checkpoint: `params`, `batch_stats`, `fitted`, `optimizer` (arrays),
`position` (where training stands, JSON) and `lineage` (JSON). The best one by
validation loss and the two latest are kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from data_pipeline.schema import DataError
from medm2t_jax.parallel import TrainState, replicated

_VARIABLES = ('params', 'batch_stats', 'fitted')


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
  """

  fold: int
  fitted_on: frozenset[str]
  selected_on: frozenset[str]
  data_version: str
  code_version: str
  model: Mapping[str, Any]

  def to_json(self) -> dict[str, Any]:
    return {
      **dataclasses.asdict(self),
      'fitted_on': sorted(self.fitted_on),
      'selected_on': sorted(self.selected_on),
    }

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> Lineage:
    return cls(
      **{
        **fields,
        'fitted_on': frozenset(fields['fitted_on']),
        'selected_on': frozenset(fields['selected_on']),
      }
    )

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


class Checkpoints:
  """The checkpoints of one stage in one folder; a context manager.

  Leaving the context waits for the last asynchronous save.
  """

  def __init__(self, directory: Path):
    self.directory = directory.resolve()
    best_loss = lambda metrics: metrics['validation_loss']
    self._manager = ocp.CheckpointManager(
      self.directory,
      options=ocp.CheckpointManagerOptions(
        best_fn=best_loss,
        best_mode='min',
        preservation_policy=checkpoint_managers.AnyPreservationPolicy(
          [
            checkpoint_managers.LatestN(n=2),
            checkpoint_managers.BestN(
              get_metric_fn=best_loss,
              reverse=True,
              n=1,
              keep_checkpoints_without_metrics=False,
            ),
          ]
        ),
      ),
      item_names=(*_VARIABLES, 'optimizer', 'position', 'lineage'),
    )

  def __enter__(self) -> Checkpoints:
    return self

  def __exit__(self, *exception: object) -> None:
    self._manager.wait_until_finished()
    self._manager.close()

  @property
  def latest_step(self) -> int | None:
    return self._manager.latest_step()

  @property
  def best_step(self) -> int | None:
    return self._manager.best_step()

  def save(
    self,
    state: TrainState,
    position: Mapping[str, Any],
    *,
    lineage: Lineage,
    validation_loss: float | None = None,
  ) -> None:
    """Starts an asynchronous save at `state.step`.

    Args:
      state: of the training.
      position: JSON-able position in the data and the history.
      lineage: of the state.
      validation_loss: at the end of an epoch; a checkpoint without one is never best.
    """
    arrays = {name: getattr(state, name) for name in (*_VARIABLES, 'optimizer')}
    self._manager.save(
      int(state.step),
      args=ocp.args.Composite(
        **{name: ocp.args.StandardSave(tree) for name, tree in arrays.items()},
        position=ocp.args.JsonSave(dict(position)),
        lineage=ocp.args.JsonSave(lineage.to_json()),
      ),
      metrics=None if validation_loss is None else {'validation_loss': validation_loss},
    )

  def lineage(self, step: int) -> Lineage:
    return Lineage.from_json(self._restore(step, lineage=ocp.args.JsonRestore())['lineage'])

  def restore_training(
    self, step: int, template: TrainState
  ) -> tuple[TrainState, dict[str, Any]]:
    """Restores everything for going on with training.

    Args:
      step: of a saved checkpoint.
      template: a state with the shapes and dtypes to restore; its values are unused.

    Returns:
      The state and its position.
    """
    arrays = {
      name: ocp.args.StandardRestore(_abstract(getattr(template, name)))
      for name in (*_VARIABLES, 'optimizer')
    }
    restored = self._restore(step, **arrays, position=ocp.args.JsonRestore())
    position = restored.pop('position')
    state = dataclasses.replace(
      template, step=jax.device_put(np.int32(step), replicated()), **restored
    )
    return state, position

  def restore_variables(self, step: int, template: Mapping[str, Any]) -> dict[str, Any]:
    """Restores `params`, `batch_stats` and `fitted`, without the optimizer.

    Args:
      step: of a saved checkpoint.
      template: the three collections as arrays or shapes.

    Raises:
      DataError: the checkpoint's arrays have other shapes (another configuration).
    """
    return self._restore(
      step,
      **{name: ocp.args.StandardRestore(_abstract(template[name])) for name in _VARIABLES},
    )

  def _restore(self, step: int, **items: Any) -> dict[str, Any]:
    try:
      return dict(self._manager.restore(step, args=ocp.args.Composite(**items)))
    except (ValueError, KeyError, FileNotFoundError) as error:
      reason = str(error).splitlines()[0]
      raise DataError(
        f'{self.directory / str(step)}: cannot be restored ({reason}). It is damaged or '
        'of another configuration: use the configuration in config.json of its workdir, '
        'or another --workdir.'
      ) from error


def _abstract(tree: Any) -> Any:
  place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated())
  return jax.tree.map(place, tree)
