"""The headline figure when only some modalities are given to the same model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medm2t_jax.evaluation.metrics.bootstrap import RESAMPLES
from medm2t_jax.evaluation.metrics.metrics import headline_figure
from medm2t_jax.evaluation.metrics.paired import Comparison
from medm2t_jax.evaluation.rows import Rows


def missing_modality(
  rows: Rows,
  scenarios: Mapping[str, np.ndarray],
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> list[dict[str, Any]]:
  """[{'name', 'figure', 'difference'}], one a scenario.

  `difference` is scenario minus all data on the same resamples.

  Args:
    rows: test rows, predicted from all data.
    scenarios: name -> predictions of the same rows from less.
    resamples: of the bootstrap.
    seed: of the bootstrap.

  Raises:
    DataError: a scenario's predictions do not fit the rows.
  """
  headline = headline_figure(rows)
  comparison = Comparison(rows, (headline,), resamples, seed)
  result = []
  for name, prediction in scenarios.items():
    figures, differences = comparison.other(prediction, f'scenario {name}')
    result.append(
      {'name': name, 'figure': figures[headline], 'difference': differences[headline]}
    )
  return result
