"""The headline figure when only some modalities are given to the same model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medm2t_jax.reporting.bootstrap import RESAMPLES, estimate
from medm2t_jax.reporting.metrics import headline_draws, why_undefined
from medm2t_jax.reporting.rows import Rows


def missing_modality(
  rows: Rows,
  scenarios: Mapping[str, np.ndarray],
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> list[dict[str, Any]]:
  """[{'name', 'figure', 'difference'}], one a scenario.

  `difference` is scenario minus all data on the same resamples, so that its interval is
  far narrower than the two figures' would suggest.

  Args:
    rows: test rows, predicted from all data.
    scenarios: name -> predictions of the same rows from less.
    resamples: of the bootstrap.
    seed: of the bootstrap.

  Raises:
    DataError: a scenario's predictions do not fit the rows.
  """
  counts, reason = rows.counts(), why_undefined(rows)
  everything = headline_draws(rows, resamples, seed)
  result = []
  for name, prediction in scenarios.items():
    other = rows.with_prediction(prediction, f'scenario {name}')
    draws = headline_draws(other, resamples, seed)
    result.append(
      {
        'name': name,
        'figure': estimate(draws, counts, reason),
        'difference': estimate(draws - everything, counts, reason),
      }
    )
  return result
