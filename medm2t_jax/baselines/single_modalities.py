"""Our own model with a single modality: the stages named like a modality.

Uses the stages of a fold's final run. A sample without the modality gets the average of its
training subjects: shares of classes or labels, or the mean. So all stages are compared on
the same samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from medm2t_jax import targets
from medm2t_jax.runs.restoring import restore_best
from medm2t_jax.runs.run import Run
from medm2t_jax.training import prediction, steps


def settings(fold: Run, modality: str) -> dict[str, Any]:
  """What identifies a finished stage."""
  record = fold.final.record(modality)
  return {key: getattr(record, key) for key in ('best_step', 'validation_loss', 'seconds')}


def predict(fold: Run, modality: str) -> np.ndarray:
  """Predictions of the test samples: (n c) probabilities, or numbers (n).

  All processes take part.

  Raises:
    DataError: the stage's best checkpoint must not be used here or is damaged.
  """
  final = fold.final
  rows = final.splits.rows('test')
  target = fold.dataset.schema.target
  trained = final.splits.rows('train')
  label, weight = (fold.dataset.index[name][trained] for name in ('label', 'weight'))
  predicted = np.tile(targets.of(target).shares(label, weight), (len(rows), 1))
  size = fold.config.evaluation.batch_size
  plan = final.plan('test', (modality,), size, require=modality)
  if len(plan):
    variables, _ = restore_best(final, modality)
    description = f'{modality} alone'
    predictor = steps.predictor(final.model, modality, variables)
    row, found = prediction.predict(final, modality, predictor, plan, description)
    predicted[np.searchsorted(rows, row)] = found['all'].reshape(len(row), -1)
  return predicted[:, 0] if target.numeric else predicted
