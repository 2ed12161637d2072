"""Which of several fitted estimators is used: the best on validation subjects.

What predicts these subjects themselves is not what predicts test subjects, if that is
fitted on them too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from data_pipeline.format.schema import Target
from medm2t_jax.baselines.summary_statistics import Table


@dataclasses.dataclass(frozen=True)
class Fitted:
  """A baseline after its fit.

  Attributes:
    chosen: fitted on training samples, the best on validation samples, which it predicts.
    final: predicts test samples: fitted with the settings of `chosen` on the training and
      validation samples together, or `chosen` itself.
  """

  chosen: Any
  final: Any


def predict(estimator: Any, value: np.ndarray, target: Target) -> np.ndarray:
  """Class probabilities (n c), 0 for a class that nobody trained on, or days (n).

  Args:
    estimator: fitted, of scikit-learn.
    value: float32 (n columns).
    target: what the label means.
  """
  if target.kind == 'days':
    return np.asarray(estimator.predict(value), np.float64)
  known = np.asarray(estimator.classes_).astype(int)
  prediction = np.zeros((len(value), target.outputs))
  prediction[:, known] = estimator.predict_proba(value)
  return prediction


def loss(prediction: np.ndarray, label: np.ndarray, target: Target) -> float:
  """Mean log loss, in nats, or mean absolute error, in days."""
  if target.kind == 'days':
    return float(np.abs(prediction - label).mean())
  likelihood = prediction[np.arange(len(label)), label.astype(int)]
  return float(-np.log(np.maximum(likelihood, 1e-15)).mean())


def best(candidates: Iterable[Any], validation: Table, target: Target) -> Any:
  """The fitted candidate with the least loss on validation subjects."""
  fitted = list(candidates)
  losses = [
    loss(predict(each, validation.value, target), validation.label, target)
    for each in fitted
  ]
  return fitted[int(np.argmin(losses))]
