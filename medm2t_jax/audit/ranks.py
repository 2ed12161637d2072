"""Computes AUROC from ranks, for many labellings of the same predictions."""

from __future__ import annotations

import numpy as np


def auroc(rank: np.ndarray, positive: np.ndarray) -> float:
  """Area under the ROC curve: the Mann-Whitney statistic over its maximum.

  Args:
    rank: of the scores, from 1, equal ones averaged (`scipy.stats.rankdata`): (n,).
    positive: bool (n,), both values present.
  """
  positives = int(positive.sum())
  negatives = len(positive) - positives
  above = rank[positive].sum() - positives * (positives + 1) / 2
  return float(above / (positives * negatives))
