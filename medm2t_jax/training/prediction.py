"""Predicts the samples of a plan, each batch in one or several versions.

A version has the shapes of the batch but other values or masks, so that all versions use
one compiled step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Array, Float
from tqdm import tqdm

from data_pipeline.format.schema import Target
from data_pipeline.reading.planning import Plan
from medm2t_jax import targets
from medm2t_jax.runs.hosts import distributed
from medm2t_jax.runs.reader import Batch
from medm2t_jax.runs.run import Run
from medm2t_jax.training.steps import Predictor


def predict(
  fold: Run,
  stage: str,
  predictor: Predictor,
  plan: Plan,
  description: str,
  *,
  names: Sequence[str] = ('all',),
  versions: Callable[[Batch], Iterable[Batch]] = lambda batch: (batch,),
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """Predicts every sample of a plan, once per version.

  Args:
    fold: of the checkpoint.
    stage: a stage whose unit is the sample.
    predictor: of the stage.
    plan: with the modalities of the stage and at least one step.
    description: shown before the progress bar.
    names: of the versions.
    versions: a batch -> its versions, in the order of `names`.

  Returns:
    Rows of the data set's index, ascending (n,), and per version their predictions:
    probabilities (n, c), or numbers (n,).
  """
  outputs = lambda batch: (predictor(version) for version in versions(batch))
  return predict_each(fold, stage, outputs, plan, description, names)


def predict_each(
  fold: Run,
  stage: str,
  outputs_of: Callable[[Batch], Iterable[Float[Array, 'd b c']]],
  plan: Plan,
  description: str,
  names: Sequence[str],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """`predict` where several outputs may come from one forward pass.

  Args:
    fold: of the checkpoint.
    stage: one whose unit is the sample.
    outputs_of: a batch -> its outputs, in the order of `names`.
    plan: with the modalities of the stage, at least one step.
    description: of the progress bar.
    names: of the outputs.

  Returns:
    As `predict`, per name.
  """
  rows: list[np.ndarray] = []
  outputs: dict[str, list[np.ndarray]] = {name: [] for name in names}
  progress = tqdm(
    desc=f'fold {fold.fold} {description}',
    total=len(plan) * len(names),
    unit='prediction',
    leave=False,
    disable=not distributed.is_first(),
  )
  with progress:
    for batch in fold.reader.read(plan, fold.modalities_of(stage)):
      rows.append(batch['row'])
      for name, found in zip(names, outputs_of(batch), strict=True):
        outputs[name].append(np.asarray(found))
        progress.update()
  return in_order(rows, outputs, fold.dataset.schema.target)


def in_order(
  rows: Sequence[np.ndarray],
  outputs: Mapping[str, Sequence[np.ndarray]],
  target: Target,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """Predictions of all processes, in the order of the index and without padding.

  Args:
    rows: int32 (d b) per batch, -1 for padding.
    outputs: name -> outputs (d b c) per batch.
    target: what the outputs mean.

  Returns:
    As `predict`.
  """
  row = distributed.gather(np.concatenate(rows, axis=1)).ravel()
  order = np.argsort(row, kind='stable')
  order = order[np.count_nonzero(row < 0) :]  # padding comes first
  predictions = {}
  for name, parts in outputs.items():
    logits = distributed.gather(np.concatenate(parts, axis=1))
    found = logits.reshape(len(row), -1)[order]
    predictions[name] = targets.of(target).predictions(found)
  return row[order], predictions


def prediction_columns(predictions: np.ndarray) -> dict[str, np.ndarray]:
  """Columns of a table: `p0`, `p1`, ... of probabilities (n c); `prediction` of numbers."""
  if predictions.ndim == 1:
    return {'prediction': predictions}
  return {f'p{index}': column for index, column in enumerate(predictions.T)}
