"""Our own model from one modality: the stages that are named like a modality.

A sample without the modality gets what the training subjects say: class shares, or
mean days. So every stage is compared on the same samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special
from tqdm import tqdm

from medm2t_jax import distributed, parallel
from medm2t_jax.fold import Fold


def settings(fold: Fold, modality: str) -> dict[str, Any]:
  """What identifies a stage that was trained to its end."""
  record = fold.record(modality)
  assert record is not None
  return {
    'best_step': record.best_step,
    'validation_loss': record.validation_loss,
    'seconds': record.seconds,
  }


def predict(fold: Fold, modality: str) -> np.ndarray:
  """Predictions of the test samples: (n c) probabilities, or days (n).

  All processes take part.

  Raises:
    DataError: the stage's best checkpoint must not be used here or is damaged.
  """
  rows = fold.dataset.rows(fold.index, 'test')
  target = fold.dataset.schema.target
  prediction = np.tile(_prior(fold), (len(rows), 1))
  size = fold.config.evaluation.batch_size
  plan = fold.plan('test', (modality,), size, require=modality)
  if len(plan):
    variables, _ = fold.restore_best(modality)
    row, outputs = _outputs(fold, modality, variables, plan)
    if target.kind == 'classes':
      outputs = special.softmax(outputs, axis=1)
    prediction[np.searchsorted(rows, row)] = outputs
  return prediction[:, 0] if target.kind == 'days' else prediction


def _outputs(
  fold: Fold, modality: str, variables: Any, plan: Any
) -> tuple[np.ndarray, np.ndarray]:
  """Rows of the index (n) and the stage's outputs, float64 (n c)."""
  step = parallel.predict_step(fold.model, modality)
  progress = tqdm(
    fold.read(plan, (modality,)),
    desc=f'fold {fold.index} {modality} alone',
    total=len(plan),
    unit='step',
    leave=False,
    disable=not distributed.is_first(),
  )
  rows, outputs = [], []
  for batch in progress:
    rows.append(batch['row'])
    outputs.append(np.asarray(step(variables, batch)))
  row = distributed.gather(np.concatenate(rows, axis=1)).ravel()
  output = distributed.gather(np.concatenate(outputs, axis=1))
  output = output.reshape(len(row), -1)[row >= 0].astype(np.float64)
  return row[row >= 0], output


def _prior(fold: Fold) -> np.ndarray:
  """Shares of the classes, or the mean days, among training samples: (c,)."""
  dataset = fold.dataset
  label = dataset.index['label'][dataset.rows(fold.index, 'train')]
  if dataset.schema.target.kind == 'days':
    return np.array([label.mean(dtype=np.float64)])
  count = np.bincount(label.astype(int), minlength=dataset.schema.target.outputs)
  return count / count.sum()
