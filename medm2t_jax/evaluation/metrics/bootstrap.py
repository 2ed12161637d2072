"""Bootstrap over subjects, vectorised over resamples.

Samples of one subject are not independent, so subjects are drawn with replacement,
each with all of its samples. A resample is a row of weights (n): how often a subject was
drawn, times the weight of the sample. A statistic maps weights (r n) to values (r), so
that one sort serves all resamples. The draws are a function of the subjects, the seed and
the number of resamples only: two models on the same rows see the same resamples, and their
differences are paired.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

RESAMPLES = 1000
COVERAGE = 0.95
# An interval over fewer defined resamples would be biased by leaving out bad draws.
LEAST_DEFINED = 0.9
# Size of one chunk of weights: 16 MB in float64.
_CHUNK = 2_000_000

Statistic = Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Draws:
  """A metric and its resamples.

  Attributes:
    value: on all rows; NaN if undefined.
    resampled: float64 (r), NaN if undefined.
  """

  value: float
  resampled: np.ndarray

  def __sub__(self, other: Draws) -> Draws:
    return Draws(self.value - other.value, self.resampled - other.resampled)


def resampled_weights(
  subjects: np.ndarray, weight: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> Iterator[np.ndarray]:
  """Yields chunks of float64 (r n) weights, `resamples` rows in total.

  Args:
    subjects: (n) subject of each sample.
    weight: (n) of each sample.
    resamples: number of resamples.
    seed: of the draws.
  """
  distinct, index = np.unique(subjects, return_inverse=True)
  random = np.random.default_rng(seed)
  chunk = max(1, _CHUNK // max(1, len(subjects)))
  for start in range(0, resamples, chunk):
    counts = np.stack(
      [
        np.bincount(
          random.integers(len(distinct), size=len(distinct)), minlength=len(distinct)
        )
        for _ in range(min(chunk, resamples - start))
      ]
    )
    yield counts[:, index] * np.asarray(weight, np.float64)


def bootstrap(
  statistic: Statistic,
  subjects: np.ndarray,
  weight: np.ndarray,
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> dict[str, Draws]:
  """The metrics of `statistic` on all rows and on each resample."""
  values = statistic(np.asarray(weight, np.float64)[np.newaxis])
  chunks = [statistic(w) for w in resampled_weights(subjects, weight, resamples, seed)]
  return {
    name: Draws(float(value[0]), np.concatenate([chunk[name] for chunk in chunks]))
    for name, value in values.items()
  }


def estimate(
  draws: Draws, counts: Mapping[str, int | None], reason: str | None = None
) -> dict[str, Any]:
  """A JSON-able metric: {'value', 'low', 'high', 'reason', 'n', 'subjects', 'events'}.

  `value`, `low` and `high` are None if undefined, and `reason` then says why. The interval
  holds the central 95 % of the resamples (percentile method).

  Args:
    draws: the metric.
    counts: n, subjects and events behind it.
    reason: why the metric is undefined, if it is.
  """
  result: dict[str, Any] = {'value': None, 'low': None, 'high': None, **counts}
  if not np.isfinite(draws.value):
    return {**result, 'reason': reason or 'undefined on these samples'}
  result['value'] = draws.value
  defined = draws.resampled[np.isfinite(draws.resampled)]
  if counts['subjects'] == 1:
    return {**result, 'reason': 'no interval: there is one subject only'}
  if len(defined) < LEAST_DEFINED * len(draws.resampled):
    return {
      **result,
      'reason': (
        f'no interval: defined in {len(defined)} of {len(draws.resampled)} resamples '
        'only, too few subjects carry the outcome'
      ),
    }
  tail = (1 - COVERAGE) / 2
  low, high = np.quantile(defined, [tail, 1 - tail])
  return {**result, 'low': float(low), 'high': float(high), 'reason': None}
