"""Our model against other predictors of the same test rows, paired."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medm2t_jax.reporting.bootstrap import RESAMPLES, estimate
from medm2t_jax.reporting.metrics import compared_figures, figure_draws, why_undefined
from medm2t_jax.reporting.rows import Rows


def baselines(
  rows: Rows,
  predictions: Mapping[str, np.ndarray],
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> list[dict[str, Any]]:
  """[{'name', 'figures': {figure: estimate}, 'differences': {figure: estimate}}].

  One entry a baseline, with AUROC and AUPRC, or MAE and RMSE. A difference is baseline
  minus our model on the same resamples.

  Args:
    rows: test rows, predicted by our model.
    predictions: baseline -> its predictions of the same rows.
    resamples: of the bootstrap.
    seed: of the bootstrap.

  Raises:
    DataError: a baseline's predictions do not fit the rows.
  """
  if not predictions:
    return []
  names, counts, reason = compared_figures(rows), rows.counts(), why_undefined(rows)
  ours = figure_draws(rows, names, resamples, seed)
  result = []
  for baseline, prediction in predictions.items():
    other = rows.with_prediction(prediction, f'baseline {baseline}')
    theirs = figure_draws(other, names, resamples, seed)
    result.append(
      {
        'name': baseline,
        'figures': {name: estimate(theirs[name], counts, reason) for name in names},
        'differences': {
          name: estimate(theirs[name] - ours[name], counts, reason) for name in names
        },
      }
    )
  return result
