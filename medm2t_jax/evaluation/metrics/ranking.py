"""Weighted ROC and precision-recall metrics for many weightings at once.

Scores are sorted once; cumulative sums of the weights (r n) then give the confusion
counts at every distinct threshold for all r weightings. AUROC counts ties as one half.
"""

from __future__ import annotations

import numpy as np


class Ranking:
  """Scores in descending order with their class.

  Attributes:
    thresholds: (t) distinct scores, descending. A sample is flagged when its score is
      at least the threshold.
  """

  def __init__(
    self, scores: np.ndarray, positive: np.ndarray, row: np.ndarray | None = None
  ):
    """Sorts the scores.

    Args:
      scores: float (m), higher = more likely positive.
      positive: bool (m).
      row: int (m): index of the sample that each score belongs to, whose weight it has;
        None if score i is that of sample i.
    """
    order = np.argsort(-scores, kind='stable')
    ordered = scores[order]
    self._order = order if row is None else row[order]
    self._positive = positive[order].astype(np.float64)
    self._ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    self.thresholds = ordered[self._ends]

  def curves(self, weights: np.ndarray) -> Curves:
    """Confusion counts at every threshold under `weights` (r n)."""
    ordered = weights[:, self._order]
    flagged = np.cumsum(ordered, axis=1)[:, self._ends]
    true = np.cumsum(ordered * self._positive, axis=1)[:, self._ends]
    return Curves(true, flagged - true)


class Curves:
  """Confusion counts at descending thresholds, and the metrics that follow from them.

  Metrics are (r), NaN if a weighting lacks one of the classes.

  Attributes:
    true: (r t) weight of flagged positives.
    false: (r t) weight of flagged negatives.
  """

  def __init__(self, true: np.ndarray, false: np.ndarray):
    self.true, self.false = true, false
    self.positives, self.negatives = true[:, -1], false[:, -1]
    self._undefined = (self.positives == 0) | (self.negatives == 0)

  def sensitivity(self) -> np.ndarray:
    """Sensitivity (recall) at every threshold, (r t)."""
    return self.true / np.where(self._undefined, np.nan, self.positives)[:, None]

  def false_positive_rate(self) -> np.ndarray:
    """False positive rate at every threshold, (r t)."""
    return self.false / np.where(self._undefined, np.nan, self.negatives)[:, None]

  def precision(self) -> np.ndarray:
    """Precision at every threshold, (r t); 1 before anything is flagged."""
    flagged = self.true + self.false
    return np.where(flagged > 0, self.true / np.where(flagged > 0, flagged, 1), 1.0)

  def auroc(self) -> np.ndarray:
    """Area under the ROC curve."""
    pairs = np.diff(self.false, axis=1, prepend=0) * (
      self.true - np.diff(self.true, axis=1, prepend=0) / 2
    )
    total = np.where(self._undefined, np.nan, self.positives * self.negatives)
    return pairs.sum(axis=1) / total

  def average_precision(self) -> np.ndarray:
    """Mean precision over positives (step-wise area, no interpolation)."""
    total = np.where(self._undefined, np.nan, self.positives)
    gained = np.diff(self.true, axis=1, prepend=0)
    return (gained * self.precision()).sum(axis=1) / total

  def precision_recall_area(self) -> np.ndarray:
    """Trapezoid area from (recall 0, precision 1), as the paper reports AUPRC.

    It joins points by straight lines, which is optimistic: see `average_precision`.
    """
    total = np.where(self._undefined, np.nan, self.positives)
    precision = self.precision()
    left = np.concatenate([np.ones((len(precision), 1)), precision[:, :-1]], axis=1)
    gained = np.diff(self.true, axis=1, prepend=0)
    return (gained * (precision + left) / 2).sum(axis=1) / total
