"""What a kind of target has to say: the contract of `medm2t_jax/targets/`.

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

# Predictions are float32: closer to 0 or 1 they carry no information.
SMALLEST = 1e-7
# One label of several, by itself.
OF_LABEL = Target('binary', ('no', 'yes'))

# Of every metric that may choose an epoch; a name means the same for all kinds.
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
  """A target with all that training, baselines and evaluation ask of it.

  Labels are as in a batch: (n,), or (n, l) of a multilabel target, whose unknown entries
  are below 0 or NaN. Predictions are probabilities (n, c), or numbers (n,). Outputs are
  what networks and baselines give, on the scale of `link`: (n, c). Weights are those of the
  samples, above 0: (n,). Whatever is said of samples together counts each by its weight.
  """

  target: Target

  link: ClassVar[Link]
  # Name -> the loss with the numbers of a stage's recipe; the first one is the usual one.
  losses: ClassVar[Mapping[str, LossMaker]]
  # Metrics that may choose the best epoch of a stage: of `HIGHER_IS_BETTER`.
  selection_metrics: ClassVar[tuple[str, ...]]

  @abc.abstractmethod
  def loss(self, outputs: Any, label: Any) -> Any:
    """The loss of a baseline that is trained like a network, unreduced: (u)."""

  @abc.abstractmethod
  def prior(self, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Outputs (c,) that say no more than these labels (n, ...) do together."""

  def scale(self, label: np.ndarray) -> float:
    """By what a network's raw output is multiplied, given the labels (n, ...)."""
    del label
    return 1.0

  @abc.abstractmethod
  def shares(self, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mean prediction (c,) where nothing is known but these labels (n, ...)."""

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
      least: no probability counts as nearer to 0 (of labels, or to 1) than this.
    """

  @abc.abstractmethod
  def mean_loss(
    self, predictions: np.ndarray, label: np.ndarray, weight: np.ndarray
  ) -> float:
    """By what baselines are chosen: mean log loss in nats, or mean absolute error."""

  @abc.abstractmethod
  def ranked(
    self, score: Score, outputs: np.ndarray, label: np.ndarray, weight: np.ndarray
  ) -> float:
    """Mean of a ranking score over the classes or labels; NaN where it is not defined.

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
    """The loss of a blend, each times its weight, summed, and its gradient (n c)."""

  @abc.abstractmethod
  def log_losses(self, predictions: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Log loss of each sample, in nats: (n). Numbers have none."""

  @abc.abstractmethod
  def is_true(self, label: np.ndarray) -> np.ndarray:
    """1 where a class or label is true, 0 where not, NaN where not known: (n, c)."""

  @property
  @abc.abstractmethod
  def scored(self) -> tuple[int, ...]:
    """Classes or labels that have metrics of their own; none of a number."""

  @abc.abstractmethod
  def favourite(self, prediction: np.ndarray) -> int | None:
    """The class or label that the page of one sample (c) explains."""

  @abc.abstractmethod
  def explained(self, favourite: int | None) -> np.ndarray:
    """What `link.explained` takes as chosen, bool (c): one, or (None) all there is."""

  @abc.abstractmethod
  def explained_output(self, favourite: int | None) -> str:
    """`explained` in words."""

  @abc.abstractmethod
  def predicted_in_words(self, prediction: np.ndarray) -> str:
    """A prediction (c) or () for people."""

  @abc.abstractmethod
  def label_in_words(self, label: Any) -> str:
    """A label () or (l) for people."""

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
    """A loss and the weights of units, where classes have weights.

    Args:
      loss: of `losses`.
      class_weights: one per class, or one per label for where it is true; not empty.
      prior_correction: whether outputs stay calibrated although classes are weighted.

    Returns:
      The loss, and what maps label (u ...) and weight (u) to the weight (u) of each unit.
    """

  def single_labels(self, label: np.ndarray) -> list[np.ndarray] | None:
    """What a baseline that knows one label a sample is fitted to, one after the other.

    Each is 1 or 0, NaN where it is not known: (n,), with the target `OF_LABEL`. None where
    a sample has one label anyway.
    """
    del label
    return None


def unweighted(label: Float[Array, 'u ...'], weight: Float[Array, ' u']) -> Any:
  """The weight of each unit without class weights."""
  del label
  return weight
