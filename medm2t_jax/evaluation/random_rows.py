"""The random test samples that something is shown of."""

from __future__ import annotations

import numpy as np

from medm2t_jax.runs.run import Run


def random_rows(fold: Run, rows: np.ndarray, most: int) -> np.ndarray:
  """At most so many of some index rows (n,), ascending; the same for a seed and fold."""
  if len(rows) <= most:
    return rows
  generator = np.random.default_rng((fold.config.seed, fold.fold))
  return np.sort(generator.choice(rows, most, replace=False))
