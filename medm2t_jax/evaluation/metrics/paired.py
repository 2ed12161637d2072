"""Metrics of several predictions of the same rows, and their paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medm2t_jax.evaluation.metrics.bootstrap import RESAMPLES, Draws, estimate
from medm2t_jax.evaluation.metrics.metrics import metric_draws, why_undefined
from medm2t_jax.evaluation.rows import Rows


class Comparison:
  """Compares predictions with a reference on the same rows and resamples.

  The interval of a paired difference is far narrower than those of the two metrics would
  suggest.
  """

  def __init__(
    self, rows: Rows, names: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
  ):
    """Computes the reference.

    Args:
      rows: test rows with the reference prediction.
      names: keys of the metrics, from `compared_metrics`.
      resamples: number of bootstrap resamples.
      seed: of the resamples, which all predictions share.
    """
    self._rows, self._names, self._bootstrap = rows, names, (resamples, seed)
    self._counts, self._reason = rows.counts(), why_undefined(rows)
    self._reference = metric_draws(rows, names, resamples, seed)

  def reference(self) -> dict[str, dict[str, Any]]:
    """Metric -> estimate of the reference."""
    return self._estimates(self._reference)

  def other(
    self, prediction: np.ndarray, name: str
  ) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Estimates of another prediction, and of its difference from the reference, by metric.

    Args:
      prediction: of the same rows, (n) or (n c).
      name: of the prediction, for messages.

    Raises:
      DataError: the prediction does not fit the rows.
    """
    other = self._rows.with_prediction(prediction, name)
    draws = metric_draws(other, self._names, *self._bootstrap)
    differences = {metric: draws[metric] - self._reference[metric] for metric in draws}
    return self._estimates(draws), self._estimates(differences)

  def _estimates(self, draws: Mapping[str, Draws]) -> dict[str, dict[str, Any]]:
    return {
      name: estimate(each, self._counts, self._reason) for name, each in draws.items()
    }
