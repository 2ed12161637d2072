"""Regression targets: a number in a unit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from medm2t_jax.models.link import LEAST_PROBABILITY
from medm2t_jax.targets import losses
from medm2t_jax.targets.kind import Loss, LossMaker, Score, TargetKind

# Share of the standard deviation of the labels below which the absolute error is smoothed,
# because it has no gradient at 0.
_SMOOTH = 0.1


def _mean_error(predictions: np.ndarray, label: np.ndarray, weight: np.ndarray) -> float:
  return float(np.average(np.abs(predictions - label), weights=weight))


_LOSSES: dict[str, LossMaker] = {
  'absolute': lambda recipe: losses.absolute,
  'squared': lambda recipe: losses.squared,
  'huber': lambda recipe: functools.partial(losses.huber, delta=recipe.huber_delta),
  'log_squared': lambda recipe: losses.log_squared,
}


class Regression(TargetKind):
  """The output is the number itself."""

  link = 'identity'
  losses = _LOSSES
  selection_metrics = ('mae',)

  def loss(self, outputs: Any, label: Any) -> Any:
    return losses.absolute(outputs, label)

  def prior(self, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The mean of the labels."""
    return np.array([np.average(label, weights=weight)])

  def scale(self, label: np.ndarray) -> float:
    """The largest power of ten below the standard deviation; 1 for most lengths of stay.

    A network learns numbers near 1 in any unit. A power of ten does not change when there
    are a few samples more or less.
    """
    deviation = float(np.std(label, dtype=np.float64))
    return float(10.0 ** np.floor(np.log10(deviation))) if deviation > 0 else 1.0

  def shares(self, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.array([np.average(label.astype(np.float64), weights=weight)])

  def predictions(self, outputs: np.ndarray) -> np.ndarray:
    return outputs.astype(np.float64)[..., 0]

  def outputs(
    self, predictions: np.ndarray, least: float = LEAST_PROBABILITY
  ) -> np.ndarray:
    del least
    return predictions[:, np.newaxis]

  def mean_loss(
    self, predictions: np.ndarray, label: np.ndarray, weight: np.ndarray
  ) -> float:
    return _mean_error(predictions, label, weight)

  def ranked(
    self, score: Score, outputs: np.ndarray, label: np.ndarray, weight: np.ndarray
  ) -> float:
    raise AssertionError('numbers are not ranked')

  def log_losses(self, predictions: np.ndarray, label: np.ndarray) -> np.ndarray:
    raise AssertionError('a number has no log loss')

  def is_true(self, label: np.ndarray) -> np.ndarray:
    return np.zeros((len(label), 0))

  @property
  def scored(self) -> tuple[int, ...]:
    return ()

  def favourite(self, prediction: np.ndarray) -> int | None:
    del prediction
    return None

  def explained(self, favourite: int | None) -> np.ndarray:
    del favourite
    return np.ones(1, bool)

  def explained_output(self, favourite: int | None) -> str:
    del favourite
    return f'predicted {self.target.unit or "value"}'

  def predicted_in_words(self, prediction: np.ndarray) -> str:
    return self.label_in_words(prediction)

  def label_in_words(self, label: Any) -> str:
    return f'{float(label):.2f} {self.target.unit}'.rstrip()

  def summed_loss(
    self, outputs: np.ndarray, label: np.ndarray, weight: np.ndarray
  ) -> tuple[float, np.ndarray]:
    """Absolute error, smoothed near 0."""
    error, by = outputs - label[:, np.newaxis], weight[:, np.newaxis]
    size = np.hypot(error, _SMOOTH * self.scale(label))
    return (by * size).sum(), by * error / size

  def weighted(
    self, loss: Loss, class_weights: Sequence[float], *, prior_correction: bool
  ) -> tuple[Loss, Callable[[Any, Any], Any]]:
    raise AssertionError('a regression has no classes: `check_weights` refuses them')
