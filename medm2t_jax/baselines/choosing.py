"""Chooses among fitted estimators: the best on validation subjects.

With a refit, validation subjects and test subjects are predicted by different estimators.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier

from data_pipeline.format.schema import Target
from medm2t_jax import targets
from medm2t_jax.baselines.summary_statistics import Table
from medm2t_jax.targets.kind import OF_LABEL


@dataclasses.dataclass(frozen=True)
class Fitted:
  """A fitted baseline.

  Attributes:
    chosen: fitted on training samples; the best on validation samples, which it predicts.
    final: predicts test samples: fitted with the settings of `chosen` on training and
      validation samples together, or `chosen` itself.
  """

  chosen: Any
  final: Any


@dataclasses.dataclass(frozen=True)
class OfLabels:
  """Estimators of a multilabel target, one per label."""

  estimators: tuple[Any, ...]


def fit(
  one: Callable[[Table, Table, Target], Fitted],
  train: Table,
  validation: Table,
  target: Target,
) -> Fitted:
  """Fits a baseline; for a multilabel target, one per label.

  A label that is constant in the training samples, or unknown in all validation samples, is
  predicted by its share (after adding one true and one false count).

  Args:
    one: fits it to samples with one label each.
    train: training samples.
    validation: validation samples.
    target: what the label means.
  """
  kind = targets.of(target)
  labels, chosen_by = (kind.single_labels(each.label) for each in (train, validation))
  if labels is None or chosen_by is None:
    return one(train, validation, target)
  chosen, final = [], []
  for label, validated in zip(labels, chosen_by, strict=True):
    trained = _labelled(train, label)
    chosen_on = _labelled(validation, validated)
    if len(np.unique(trained.label)) < 2 or not len(chosen_on.label):
      counted, weight = [*trained.label, 0.0, 1.0], [*trained.weight, 1.0, 1.0]
      share = DummyClassifier().fit(np.zeros((len(counted), 1)), counted, weight)
      fitted = Fitted(share, share)
    else:
      fitted = one(trained, chosen_on, OF_LABEL)
    chosen.append(fitted.chosen)
    final.append(fitted.final)
  return Fitted(OfLabels(tuple(chosen)), OfLabels(tuple(final)))


def _labelled(table: Table, label: np.ndarray) -> Table:
  """The samples with a known label (n)."""
  known = ~np.isnan(label)
  return dataclasses.replace(
    table,
    row=table.row[known],
    label=label[known],
    weight=table.weight[known],
    value=table.value[known],
  )


def predict(estimator: Any, value: np.ndarray, target: Target) -> np.ndarray:
  """Probabilities (n c), 0 for a class without training samples, or numbers (n).

  Args:
    estimator: a fitted estimator of scikit-learn, or `OfLabels`.
    value: float32 (n columns).
    target: what the label means.
  """
  if isinstance(estimator, OfLabels):
    each = [predict(one, value, OF_LABEL)[:, 1] for one in estimator.estimators]
    return np.stack(each, axis=1)
  if target.numeric:
    return np.asarray(estimator.predict(value), np.float64)
  known = np.asarray(estimator.classes_).astype(int)
  prediction = np.zeros((len(value), target.outputs))
  prediction[:, known] = estimator.predict_proba(value)
  return prediction


def best(candidates: Iterable[Any], validation: Table, target: Target) -> Any:
  """The fitted candidate with the smallest loss on validation subjects."""
  fitted = list(candidates)
  mean_loss = targets.of(target).mean_loss
  losses = [
    mean_loss(predict(each, validation.value, target), validation.label, validation.weight)
    for each in fitted
  ]
  return fitted[int(np.argmin(losses))]
