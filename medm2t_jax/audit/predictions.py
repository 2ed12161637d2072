"""Check: a prediction depends neither on the other samples of its batch nor on order."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from data_pipeline.reading import planning
from medm2t_jax.audit.check import Check
from medm2t_jax.evaluation import evaluate
from medm2t_jax.evaluation.random_rows import random_rows
from medm2t_jax.runs.run import Run
from medm2t_jax.training import prediction
from medm2t_jax.training.steps import Predictor

SAMPLES = 256
TOLERANCE = 1e-5  # docs/design.md, "What is promised"; relative for numbers above 1


def check(fold: Run, predictor: Predictor) -> Check:
  """Predicts some test samples three times: together, in other batches, and alone.

  Args:
    fold: whose test split is used.
    predictor: of its multimodal stage.
  """
  modalities = fold.dataset.schema.names
  size = fold.config.evaluation.batch_size
  tests = fold.splits.rows('test')
  chosen = random_rows(fold, tests, SAMPLES)
  halves = chosen[::2], chosen[1::2]
  plans = {
    'together': fold.reader.plan(chosen, modalities, size),
    # Half of the other samples, in another order.
    'in another order': _joined(
      [fold.reader.plan(half, modalities, size, shuffle=(1, 0)) for half in halves]
    ),
    'alone': _alone(fold, chosen, modalities),
  }
  found = {}
  for name, plan in plans.items():
    rows, predictions = prediction.predict(fold, evaluate.STAGE, predictor, plan, name)
    np.testing.assert_array_equal(rows, np.sort(chosen))
    found[name] = predictions['all']
  together = found['together']
  scale = np.maximum(1.0, np.abs(together))
  differences = {
    name: float((np.abs(found[name] - together) / scale).max())
    for name in ('in another order', 'alone')
  }
  largest = max(differences.values())
  measured = ', '.join(f'{name} {value:.2g}' for name, value in differences.items())
  return Check(
    f'predictions, {fold.name}',
    largest <= TOLERANCE,
    largest,
    f'largest difference between predictions of {len(chosen)} of {len(tests)} test '
    f'samples together, in other batches and alone: {measured} (allowed: {TOLERANCE:g}). '
    'A prediction must not depend on other patients.',
  )


def _joined(plans: list[planning.Plan]) -> planning.Plan:
  return dataclasses.replace(
    plans[0],
    bucket=np.concatenate([plan.bucket for plan in plans]),
    rows=np.concatenate([plan.rows for plan in plans]),
  )


def _alone(fold: Run, rows: np.ndarray, modalities: tuple[str, ...]) -> planning.Plan:
  """A plan with one sample per step, on the first device; other devices get padding."""
  plan = planning.plan_epoch(
    fold.dataset, rows, modalities=modalities, batching=fold.config.data, batch_rows=1
  )
  idle = ((0, 0), (0, jax.device_count() - 1), (0, 0))
  return dataclasses.replace(plan, rows=np.pad(plan.rows, idle, constant_values=-1))
