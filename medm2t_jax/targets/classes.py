"""Binary and multiclass targets: exactly one of the classes is true."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy import special

from medm2t_jax.models.link import LEAST_PROBABILITY
from medm2t_jax.targets import losses
from medm2t_jax.targets.kind import RANKING, SMALLEST, Loss, LossMaker, Score, TargetKind

_LOSSES: dict[str, LossMaker] = {
  'nll': lambda recipe: losses.nll,
}


class Classes(TargetKind):
  """Outputs are one score per class."""

  link = 'softmax'
  losses = _LOSSES
  selection_metrics = RANKING

  def loss(self, outputs: Any, label: Any) -> Any:
    return losses.nll(outputs, label)

  def prior(self, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Log shares of the classes, with one added count each."""
    counts = 1.0 + self._counts(label, weight)
    return np.log(counts / counts.sum())

  def shares(self, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    counts = self._counts(label, weight)
    return counts / counts.sum()

  def _counts(self, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weight of each class: float64 (c)."""
    return np.bincount(label.astype(int), weight, minlength=self.target.outputs)

  def predictions(self, outputs: np.ndarray) -> np.ndarray:
    return special.softmax(outputs.astype(np.float64), axis=-1)

  def outputs(
    self, predictions: np.ndarray, least: float = LEAST_PROBABILITY
  ) -> np.ndarray:
    return np.log(np.maximum(predictions, least))

  def mean_loss(
    self, predictions: np.ndarray, label: np.ndarray, weight: np.ndarray
  ) -> float:
    losses = _log_losses(predictions, label, LEAST_PROBABILITY)
    return float(np.average(losses, weights=weight))

  def ranked(
    self, score: Score, outputs: np.ndarray, label: np.ndarray, weight: np.ndarray
  ) -> float:
    """Mean over classes, or of the second of two; NaN if a class has no or all units."""
    classes = range(outputs.shape[1]) if outputs.shape[1] > 2 else (1,)
    if np.bincount(label.astype(int), minlength=outputs.shape[1]).min() == 0:
      return float('nan')
    probability = special.softmax(outputs.astype(np.float64), axis=1)
    each = [score(label == c, probability[:, c], sample_weight=weight) for c in classes]
    return float(np.mean(each))

  def log_losses(self, predictions: np.ndarray, label: np.ndarray) -> np.ndarray:
    return _log_losses(predictions, label, SMALLEST)

  def is_true(self, label: np.ndarray) -> np.ndarray:
    return (label[:, np.newaxis] == np.arange(self.target.outputs)).astype(np.float64)

  @property
  def scored(self) -> tuple[int, ...]:
    """All classes, or the second of two."""
    count = len(self.target.classes)
    return (1,) if count == 2 else tuple(range(count))

  def favourite(self, prediction: np.ndarray) -> int | None:
    """The most probable class other than the first."""
    return 1 + int(np.argmax(prediction[1:]))

  def explained(self, favourite: int | None) -> np.ndarray:
    """One class against the first, or all others against the first."""
    classes = np.arange(self.target.outputs)
    return classes > 0 if favourite is None else classes == favourite

  def explained_output(self, favourite: int | None) -> str:
    first, *others = self.target.classes
    if favourite is None and len(others) > 1:
      return f'log odds of all classes other than "{first}"'
    return f'log odds of "{self.target.classes[favourite or 1]}" against "{first}"'

  def predicted_in_words(self, prediction: np.ndarray) -> str:
    pairs = zip(self.target.classes, prediction, strict=True)
    return ', '.join(f'{name} {float(share):.3f}' for name, share in pairs)

  def label_in_words(self, label: Any) -> str:
    return self.target.classes[int(label)]

  def summed_loss(
    self, outputs: np.ndarray, label: np.ndarray, weight: np.ndarray
  ) -> tuple[float, np.ndarray]:
    log_probability = special.log_softmax(outputs, axis=-1)
    own = np.arange(len(label)), label.astype(int)
    slope = np.exp(log_probability)
    slope[own] -= 1
    return -(weight * log_probability[own]).sum(), weight[:, np.newaxis] * slope

  def weighted(
    self, loss: Loss, class_weights: Sequence[float], *, prior_correction: bool
  ) -> tuple[Loss, Callable[[Any, Any], Any]]:
    """Weights each unit by its class.

    Training with class weights w moves the optimum from p(c | x) to w_c p(c | x), as if the
    classes had other priors. Inside the loss only, log w is added to the logits, which
    makes the sum learn the latter and the logits themselves p(c | x): probabilities are
    calibrated although rare classes have a larger weight in every gradient.
    """
    by_class = np.asarray(class_weights, np.float32)

    def weigh(label: Any, weight: Any) -> Any:
      return weight * jnp.asarray(by_class)[label.astype(jnp.int32)]

    if not prior_correction:
      return loss, weigh
    shift = np.log(by_class)[np.newaxis]
    return lambda outputs, label: loss(outputs + shift, label), weigh


def _log_losses(predictions: np.ndarray, label: np.ndarray, least: float) -> np.ndarray:
  """Log loss of each sample (n), with probabilities of at least `least`."""
  chosen = predictions[np.arange(len(label)), label.astype(int)]
  return -np.log(np.maximum(chosen, least))
