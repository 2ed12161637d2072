"""Multilabel targets: each label is true, false or unknown, independently of the others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from scipy import special

from medm2t_jax.models.link import LEAST_PROBABILITY
from medm2t_jax.targets import losses
from medm2t_jax.targets.kind import (
  RANKING,
  SMALLEST,
  Loss,
  LossMaker,
  Score,
  TargetKind,
  unweighted,
)

MOST_NAMED = 5  # labels in the text of a prediction


_LOSSES: dict[str, LossMaker] = {
  'nll': lambda recipe: losses.nll_of_labels,
}


class Multilabel(TargetKind):
  """Outputs are the log odds of each label."""

  link = 'sigmoid'
  losses = _LOSSES
  selection_metrics = RANKING

  def loss(self, outputs: Any, label: Any) -> Any:
    return losses.nll_of_labels(outputs, label)

  def prior(self, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Log odds of the share of each label, with one added count of true and of false."""
    weight = weight.astype(np.float64)
    true, known = weight @ (label > 0), weight @ (label >= 0)
    return special.logit((true + 1.0) / (known + 2.0))

  def shares(self, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return special.expit(self.prior(label, weight))

  def predictions(self, outputs: np.ndarray) -> np.ndarray:
    return special.expit(outputs.astype(np.float64))

  def outputs(
    self, predictions: np.ndarray, least: float = LEAST_PROBABILITY
  ) -> np.ndarray:
    return special.logit(np.clip(predictions, least, 1 - least))

  def mean_loss(
    self, predictions: np.ndarray, label: np.ndarray, weight: np.ndarray
  ) -> float:
    losses, known = _log_losses(predictions, label, LEAST_PROBABILITY), label >= 0
    weights = np.broadcast_to(weight[:, np.newaxis], label.shape)
    return float(np.average(losses[known], weights=weights[known]))

  def ranked(
    self, score: Score, outputs: np.ndarray, label: np.ndarray, weight: np.ndarray
  ) -> float:
    """Mean over the labels with both values; NaN if there are none."""
    found = []
    for column, truth in zip(outputs.T, label.T, strict=True):
      known = truth >= 0
      if len(np.unique(truth[known])) == 2:
        found.append(score(truth[known] > 0, column[known], sample_weight=weight[known]))
    return float(np.mean(found)) if found else float('nan')

  def log_losses(self, predictions: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Mean log loss over the known labels."""
    known, each = label >= 0, _log_losses(predictions, label, SMALLEST)
    return np.sum(each, axis=1, where=known) / np.maximum(known.sum(axis=1), 1)

  def is_true(self, label: np.ndarray) -> np.ndarray:
    return np.where(label >= 0, label, np.nan)

  @property
  def scored(self) -> tuple[int, ...]:
    return tuple(range(len(self.target.classes)))

  def favourite(self, prediction: np.ndarray) -> int | None:
    """The most probable label."""
    return int(np.argmax(prediction))

  def explained(self, favourite: int | None) -> np.ndarray:
    labels = np.arange(self.target.outputs)
    return labels >= 0 if favourite is None else labels == favourite

  def explained_output(self, favourite: int | None) -> str:
    if favourite is None:
      return 'sum of the log odds of all labels'
    return f'log odds of "{self.target.classes[favourite]}"'

  def predicted_in_words(self, prediction: np.ndarray) -> str:
    """The most probable labels."""
    order = np.argsort(-prediction, kind='stable')[:MOST_NAMED]
    return ', '.join(f'{self.target.classes[i]} {float(prediction[i]):.3f}' for i in order)

  def label_in_words(self, label: Any) -> str:
    names = [name for name, one in zip(self.target.classes, label, strict=True) if one > 0]
    return ', '.join(names) or 'none'

  def summed_loss(
    self, outputs: np.ndarray, label: np.ndarray, weight: np.ndarray
  ) -> tuple[float, np.ndarray]:
    """For each sample the mean over its known labels, because they are not independent."""
    known = label >= 0
    share = known / np.maximum(known.sum(axis=1, keepdims=True), 1)
    share = share * weight[:, np.newaxis]
    sign = np.where(label > 0, 1.0, -1.0)
    loss = np.logaddexp(0, -sign * outputs) * share
    return loss.sum(), -sign * special.expit(-sign * outputs) * share

  def weighted(
    self, loss: Loss, class_weights: Sequence[float], *, prior_correction: bool
  ) -> tuple[Loss, Callable[[Any, Any], Any]]:
    """Weights labels that are true; all units have the same weight."""
    weights = tuple(class_weights)
    made = functools.partial(cast(Any, loss), positive_weights=weights)
    if not prior_correction:
      return made, unweighted
    shift = np.log(np.asarray(weights, np.float32))[np.newaxis]
    return lambda outputs, label: made(outputs + shift, label), unweighted

  def single_labels(self, label: np.ndarray) -> list[np.ndarray] | None:
    return list(self.is_true(label).T)


def _log_losses(predictions: np.ndarray, label: np.ndarray, least: float) -> np.ndarray:
  """Log loss of each label (n l), with probabilities of at least `least`."""
  likelihood = np.where(label > 0, predictions, 1 - predictions)
  return -np.log(np.maximum(likelihood, least))
