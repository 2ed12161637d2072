"""Our own model from one modality: the stages that are named like a modality.

A sample without the modality gets what the training subjects say: class shares, or
mean days. So every stage is compared on the same samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from medm2t_jax import prediction
from medm2t_jax.fold import Fold


def settings(fold: Fold, modality: str) -> dict[str, Any]:
  """What identifies a stage that every member has trained to its end."""
  records = [member.record(modality) for member in fold.members]
  keys = ('best_step', 'validation_loss', 'seconds')
  return {'members': [{key: getattr(record, key) for key in keys} for record in records]}


def predict(fold: Fold, modality: str) -> np.ndarray:
  """Predictions of the test samples: (n c) probabilities, or days (n).

  All processes take part.

  Raises:
    DataError: the stage's best checkpoint must not be used here or is damaged.
  """
  rows = fold.dataset.rows(fold.index, 'test')
  target = fold.dataset.schema.target
  predicted = np.tile(_prior(fold), (len(rows), 1))
  size = fold.config.evaluation.batch_size
  plan = fold.plan('test', (modality,), size, require=modality)
  if len(plan):
    members = fold.restore_members(modality)
    description = f'{modality} alone'
    row, found = prediction.predict(fold, modality, members, plan, description)
    predicted[np.searchsorted(rows, row)] = found['all'].reshape(len(row), -1)
  return predicted[:, 0] if target.kind == 'days' else predicted


def _prior(fold: Fold) -> np.ndarray:
  """Shares of the classes, or the mean days, among training samples: (c,)."""
  dataset = fold.dataset
  label = dataset.index['label'][dataset.rows(fold.index, 'train')]
  if dataset.schema.target.kind == 'days':
    return np.array([label.mean(dtype=np.float64)])
  count = np.bincount(label.astype(int), minlength=dataset.schema.target.outputs)
  return count / count.sum()
