"""Our model against other predictors of the same test rows, paired."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medm2t_jax.evaluation.metrics.bootstrap import RESAMPLES
from medm2t_jax.evaluation.metrics.metrics import compared_figures
from medm2t_jax.evaluation.metrics.paired import Comparison
from medm2t_jax.evaluation.rows import Rows


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
  comparison = Comparison(rows, compared_figures(rows), resamples, seed)
  result = []
  for name, prediction in predictions.items():
    figures, differences = comparison.other(prediction, f'baseline {name}')
    result.append({'name': name, 'figures': figures, 'differences': differences})
  return result
