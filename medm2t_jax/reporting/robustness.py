"""The headline figure when the test input is damaged, level by level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipeline.schema import DataError
from medm2t_jax.reporting.bootstrap import RESAMPLES, estimate
from medm2t_jax.reporting.context import DamageCurve
from medm2t_jax.reporting.metrics import headline_draws, why_undefined
from medm2t_jax.reporting.rows import Rows


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
  figure_of = lambda prediction: chosen.with_prediction(
    prediction[order], f'damage {curve.name}'
  )
  counts, reason = chosen.counts(), why_undefined(chosen)
  undamaged = headline_draws(figure_of(curve.undamaged), resamples, seed)
  result['undamaged'] = estimate(undamaged, counts, reason)
  for level in curve.levels:
    draws = headline_draws(figure_of(level.prediction), resamples, seed)
    result['levels'].append(
      {
        'level': level.level,
        'figure': estimate(draws, counts, reason),
        'difference': estimate(draws - undamaged, counts, reason),
        'refused': level.refused,
      }
    )
  return result
