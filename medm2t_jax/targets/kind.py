"""The interface of a kind of target.

Letters: n samples, u units (samples, recordings or segments), c outputs, l labels.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from jaxtyping import Array, Float

from data_pipeline.format.schema import DataError, Target
from medm2t_jax.models.link import LEAST_PROBABILITY, Link

# Predictions are float32, which are not accurate closer to 0 or 1.
SMALLEST = 1e-7
# A single label of a multilabel target.
OF_LABEL = Target('binary', ('no', 'yes'))

# All metrics that may choose an epoch; a name means the same for all kinds.
RANKING = ('auroc', 'average_precision')
HIGHER_IS_BETTER = {**dict.fromkeys(RANKING, True), 'mae': False}

# Of scikit-learn: truth (n), scores (n), `sample_weight=` (n) -> a number.
Score = Callable[..., Any]
# Unreduced: outputs (u c), label (u) or (u l) -> (u).
Loss = Callable[[Any, Any], Any]


class LossNumbers(Protocol):
  """Settings of a loss, from the stage's recipe."""

  @property
  def huber_delta(self) -> float:
    """The absolute error at which the Huber loss becomes linear, in the label's unit."""
    ...


LossMaker = Callable[[LossNumbers], Loss]


@dataclasses.dataclass(frozen=True)
class TargetKind(abc.ABC):
  """A target, with everything that training, baselines and evaluation need.

  Labels are as in a batch: (n,), or (n, l) for a multilabel target, whose unknown entries
  are below 0 or NaN. Predictions are probabilities (n, c), or numbers (n,). Outputs are
  those of networks and baselines, on the scale of `link`: (n, c). Weights are those of the
  samples, above 0: (n,). All averages over samples are weighted.
  """

  target: Target

  link: ClassVar[Link]
  # Name -> the loss, given settings of a stage's recipe; the first is the default.
  losses: ClassVar[Mapping[str, LossMaker]]
  # Metrics that may choose the best epoch of a stage, from `HIGHER_IS_BETTER`.
  selection_metrics: ClassVar[tuple[str, ...]]

  @abc.abstractmethod
  def loss(self, outputs: Any, label: Any) -> Any:
    """The unreduced loss of a baseline that is trained like a network: (u)."""

  @abc.abstractmethod
  def prior(self, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Outputs (c,) that predict the average of these labels (n, ...)."""

  def scale(self, label: np.ndarray) -> float:
    """The factor on a network's raw output, given the labels (n, ...)."""
    del label
    return 1.0

  @abc.abstractmethod
  def shares(self, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mean prediction (c,) without any input, from these labels (n, ...)."""

  @abc.abstractmethod
  def predictions(self, outputs: np.ndarray) -> np.ndarray:
    """Probabilities (... c) or numbers (...), float64, of outputs (... c)."""

  @abc.abstractmethod
  def outputs(
    self, predictions: np.ndarray, least: float = LEAST_PROBABILITY
  ) -> np.ndarray:
    """Inverse of `predictions`: normalised outputs (n c), finite.

    Args:
      predictions: (n, c) or (n,).
      least: probabilities are clipped to at least this; for labels also to at most 1 minus
        this.
    """

  @abc.abstractmethod
  def mean_loss(
    self, predictions: np.ndarray, label: np.ndarray, weight: np.ndarray
  ) -> float:
    """The loss that chooses baselines: mean log loss in nats, or mean absolute error."""

  @abc.abstractmethod
  def ranked(
    self, score: Score, outputs: np.ndarray, label: np.ndarray, weight: np.ndarray
  ) -> float:
    """Mean of a ranking score over the classes or labels; NaN if undefined.

    Args:
      score: of scikit-learn.
      outputs: (n c).
      label: of the samples, (n ...).
      weight: of the samples, (n).
    """

  @abc.abstractmethod
  def summed_loss(
    self, outputs: np.ndarray, label: np.ndarray, weight: np.ndarray
  ) -> tuple[float, np.ndarray]:
    """The weighted sum of the losses of a blend, and its gradient (n c)."""

  @abc.abstractmethod
  def log_losses(self, predictions: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Log loss of each sample, in nats: (n). Not for numbers."""

  @abc.abstractmethod
  def is_true(self, label: np.ndarray) -> np.ndarray:
    """1 if a class or label is true, 0 if not, NaN if unknown: (n, c)."""

  @property
  @abc.abstractmethod
  def scored(self) -> tuple[int, ...]:
    """Indices of the classes or labels with metrics; empty for a number."""

  @abc.abstractmethod
  def favourite(self, prediction: np.ndarray) -> int | None:
    """The class or label that the page of one sample (c) explains."""

  @abc.abstractmethod
  def explained(self, favourite: int | None) -> np.ndarray:
    """The `chosen` of `link.explained`, bool (c): one output, or (None) all together."""

  @abc.abstractmethod
  def explained_output(self, favourite: int | None) -> str:
    """`explained` in words."""

  @abc.abstractmethod
  def predicted_in_words(self, prediction: np.ndarray) -> str:
    """A prediction (c) or () as text."""

  @abc.abstractmethod
  def label_in_words(self, label: Any) -> str:
    """A label () or (l) as text."""

  def check_weights(self, weights: Sequence[float], where: str) -> None:
    """Checks the class weights of a recipe.

    Raises:
      DataError: they do not fit the target.
    """
    if weights and len(weights) != len(self.target.classes):
      raise DataError(
        f'{where}.class_weights={tuple(weights)}: give none, or one for each class; this '
        f'task has {len(self.target.classes) or "no"} classes'
      )

  @abc.abstractmethod
  def weighted(
    self, loss: Loss, class_weights: Sequence[float], *, prior_correction: bool
  ) -> tuple[Loss, Callable[[Any, Any], Any]]:
    """A loss and the weights of units, for class weights.

    Args:
      loss: one of `losses`.
      class_weights: one per class, or one per label for its true samples; not empty.
      prior_correction: whether outputs stay calibrated although classes are weighted.

    Returns:
      The loss, and a function from label (u ...) and weight (u) to the weight (u) of each
      unit.
    """

  def single_labels(self, label: np.ndarray) -> list[np.ndarray] | None:
    """The labels for baselines that predict one label, each fitted separately.

    Each is 1 or 0, NaN if unknown: (n,), with the target `OF_LABEL`. None if a sample has
    only one label anyway.
    """
    del label
    return None


def unweighted(label: Float[Array, 'u ...'], weight: Float[Array, ' u']) -> Any:
  """The weight of each unit without class weights."""
  del label
  return weight
