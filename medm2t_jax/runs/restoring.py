"""Restores the best checkpoint of a stage, and checks which subjects it has seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.format.schema import DataError
from data_pipeline.format.subjects import fingerprint
from medm2t_jax.runs import checkpoint, workdir
from medm2t_jax.runs import variables as initial
from medm2t_jax.runs.run import Run


def lineage_of(run: Run) -> checkpoint.Lineage:
  """Lineage of parameters that are fitted in this run."""
  own = checkpoint.Lineage(
    fold=run.fold,
    fitted_on=run.splits.subject_hashes('train'),
    selected_on=run.splits.subject_hashes('validation'),
    data_version=run.dataset.version,
    code_version=workdir.code_version(),
    model=run.config.model.to_fields(),
  )
  if run.start is None:
    return own
  return run.start.lineage_of(own, fingerprint(run.dataset.subject_key))


def require_unseen(run: Run, lineage: checkpoint.Lineage, where: Path) -> None:
  """Raises DataError if the checkpoint at `where` saw the run's held-out subjects."""
  lineage.require_unseen(
    fold=run.fold,
    validation=run.splits.subject_hashes('validation'),
    test=run.splits.subject_hashes('test'),
    where=where,
  )


def restore_best(run: Run, stage: str) -> tuple[dict[str, Any], checkpoint.Lineage]:
  """Variables and lineage of a completed stage's best checkpoint.

  Raises:
    DataError: the stage is not complete, or its best checkpoint is damaged or must not be
      used here; no other checkpoint replaces it.
  """
  record = run.require_record(stage)
  directory = workdir.checkpoint_directory(run.home_of(stage), run.fold, stage)
  step = record.best_step
  with checkpoint.Checkpoints(directory) as checkpoints:
    try:
      lineage = checkpoints.lineage(step)
      require_unseen(run, lineage, directory / str(step))
      restored = checkpoints.restore_variables(step, initial.shapes(run, stage))
    except checkpoint.DamagedError as error:
      raise DataError(
        f'{error} It is the best checkpoint of the stage: restore it from a copy, or '
        f'delete {directory.parent} and train the stage again.'
      ) from error
  weights = [record.part_weights[name] for name in run.model.part_names(stage)]
  return _with_part_weights(restored, stage, weights), lineage


def _with_part_weights(
  restored: dict[str, Any], stage: str, weights: Sequence[float]
) -> dict[str, Any]:
  """The variables with the weights that were fitted after training (`StageRecord`)."""
  path = f'additions_{stage}'
  if len(weights) < 2:
    return restored
  addition = restored['fitted'][path] | {'part_weights': np.asarray(weights, np.float32)}
  return {**restored, 'fitted': {**restored['fitted'], path: addition}}
