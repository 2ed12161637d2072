"""The headline figure when the test input is damaged, level by level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipeline.format.schema import DataError
from medm2t_jax.evaluation.context import DamageCurve
from medm2t_jax.evaluation.metrics.bootstrap import RESAMPLES
from medm2t_jax.evaluation.metrics.metrics import headline_figure
from medm2t_jax.evaluation.metrics.paired import Comparison
from medm2t_jax.evaluation.rows import Rows


def robustness(
  rows: Rows,
  curves: Sequence[DamageCurve],
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> list[dict[str, Any]]:
  """[{'name', 'title', 'axis', 'reason', 'undamaged', 'levels'}], one a curve.

  `undamaged` is the figure on the same samples without damage, None where `reason` says
  why there is no curve; `levels` is [{'level', 'figure', 'difference', 'refused'}].
  `difference` is damaged minus undamaged on the same resamples.

  Args:
    rows: test rows.
    curves: predictions of some of them.
    resamples: of the bootstrap.
    seed: of the bootstrap.

  Raises:
    DataError: a curve does not fit the rows.
  """
  return [_figures(rows, curve, resamples, seed) for curve in curves]


def _figures(rows: Rows, curve: DamageCurve, resamples: int, seed: int) -> dict[str, Any]:
  result: dict[str, Any] = {
    'name': curve.name,
    'title': curve.title,
    'axis': curve.axis,
    'reason': curve.reason,
    'undamaged': None,
    'levels': [],
  }
  if curve.undamaged is None:
    return result
  chosen = rows.take(np.isin(rows.sample, curve.samples))
  if len(chosen) != len(curve.samples):
    raise DataError(
      f'damage {curve.name}: {len(curve.samples)} samples, of which {len(chosen)} are '
      'test rows. Evaluate again with --mode=eval.'
    )
  sorter = np.argsort(curve.samples)
  order = sorter[np.searchsorted(curve.samples, chosen.sample, sorter=sorter)]
  undamaged = chosen.with_prediction(curve.undamaged[order], f'damage {curve.name}')
  headline = headline_figure(rows)
  comparison = Comparison(undamaged, (headline,), resamples, seed)
  result['undamaged'] = comparison.reference()[headline]
  for level in curve.levels:
    figures, differences = comparison.other(level.prediction[order], f'damage {curve.name}')
    result['levels'].append(
      {
        'level': level.level,
        'figure': figures[headline],
        'difference': differences[headline],
        'refused': level.refused,
      }
    )
  return result
