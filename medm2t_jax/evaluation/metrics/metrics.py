"""Discrimination and error figures with intervals from a bootstrap over subjects.

Classes: AUROC and AUPRC one-vs-rest, per class and macro averaged (two classes: of the
second). Days: MAE, RMSE, median absolute error, R2, bias by length-of-stay band.
A figure that is undefined is None and carries a `reason`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from medm2t_jax.evaluation.metrics.bootstrap import RESAMPLES, Draws, bootstrap, estimate
from medm2t_jax.evaluation.metrics.ranking import Ranking
from medm2t_jax.evaluation.rows import Rows

# Days; the last band is open.
BANDS = (0.0, 2.0, 4.0, 7.0, 14.0, np.inf)
CLASS_FIGURES = ('auroc', 'average_precision', 'auprc_trapezoid')
NAMES = {
  'auroc': 'AUROC',
  'average_precision': 'AUPRC (average precision)',
  'auprc_trapezoid': 'AUPRC (trapezoid)',
  'mae': 'MAE',
  'rmse': 'RMSE',
  'median_absolute_error': 'Median absolute error',
  'r2': 'R²',
  'bias': 'Bias (predicted − true)',
}


def headline_figure(rows: Rows) -> str:
  """Key of the figure that stands for a task: 'auroc' or 'mae'."""
  return compared_figures(rows)[0]


def score(rows: Rows, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
  """All figures of some rows.

  Returns:
    {'overall': {figure: estimate}}, and beside it, for classes, 'classes': {name:
    {figure: estimate, 'prevalence': share}} and 'average': 'macro' or the class that
    `overall` is about; for days, 'bands': [{'low', 'high', 'bias': estimate, 'mae':
    estimate}]. Estimates are those of `bootstrap.estimate`.
  """
  if rows.target.numeric:
    return _score_days(rows, resamples, seed)
  return _score_classes(rows, resamples, seed)


def compared_figures(rows: Rows) -> tuple[str, str]:
  """Keys of the figures that models are compared by, the headline first."""
  if rows.target.numeric:
    return 'mae', 'rmse'
  return 'auroc', 'average_precision'


def figure_draws(
  rows: Rows, names: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Draws]:
  """Some of `compared_figures` with their resamples, for paired differences."""
  if rows.target.numeric:
    error = rows.prediction - rows.label
    in_days = {
      'mae': lambda weights: _mean(weights, np.abs(error)),
      'rmse': lambda weights: np.sqrt(_mean(weights, error**2)),
    }
    statistic = lambda weights: {name: in_days[name](weights) for name in names}
    return bootstrap(statistic, rows.subject, resamples, seed)
  rankings = _rankings(rows)

  def of_classes(weights: np.ndarray) -> dict[str, np.ndarray]:
    curves = [ranking.curves(weights) for ranking in rankings.values()]
    areas = {
      'auroc': lambda each: each.auroc(),
      'average_precision': lambda each: each.average_precision(),
    }
    return {name: np.mean([areas[name](each) for each in curves], axis=0) for name in names}

  return bootstrap(of_classes, rows.subject, resamples, seed)


def headline_estimate(
  rows: Rows, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
  """The headline figure as an estimate; None with a reason where undefined."""
  if not len(rows):
    empty = Draws(np.nan, np.full(resamples, np.nan))
    return estimate(empty, rows.counts(), 'no samples')
  name = headline_figure(rows)
  draws = figure_draws(rows, (name,), resamples, seed)[name]
  return estimate(draws, rows.counts(), why_undefined(rows))


def why_undefined(rows: Rows, index: int | None = None) -> str | None:
  """Why AUROC and AUPRC are undefined on `rows`, for class `index` or for all."""
  if rows.target.numeric:
    return None
  for each in rows.scored_classes if index is None else (index,):
    name, events = rows.target.classes[each], int(rows.positive(each).sum())
    if events == 0:
      return f'no sample of class "{name}" among {len(rows)}'
    if events == len(rows):
      return f'all {len(rows)} samples are of class "{name}"'
  return None


def _rankings(rows: Rows) -> dict[int, Ranking]:
  return {
    index: Ranking(rows.prediction[:, index], rows.positive(index))
    for index in rows.scored_classes
  }


def _score_classes(rows: Rows, resamples: int, seed: int) -> dict[str, Any]:
  rankings = _rankings(rows)

  def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
    values: dict[str, list[np.ndarray]] = {name: [] for name in CLASS_FIGURES}
    for ranking in rankings.values():
      curves = ranking.curves(weights)
      values['auroc'].append(curves.auroc())
      values['average_precision'].append(curves.average_precision())
      values['auprc_trapezoid'].append(curves.precision_recall_area())
    # A macro average over fewer classes would be another figure: NaN spreads.
    figures = {f'overall/{name}': np.mean(each, axis=0) for name, each in values.items()}
    for position, index in enumerate(rankings):
      for name, each in values.items():
        figures[f'{index}/{name}'] = each[position]
    return figures

  draws = bootstrap(statistic, rows.subject, resamples, seed)
  classes = {}
  for index in rankings:
    events = int(rows.positive(index).sum())
    counts = {**rows.counts(), 'events': events}
    classes[rows.target.classes[index]] = {
      'prevalence': events / len(rows),
      **{
        name: estimate(draws[f'{index}/{name}'], counts, why_undefined(rows, index))
        for name in CLASS_FIGURES
      },
    }
  overall = {
    name: estimate(draws[f'overall/{name}'], rows.counts(), why_undefined(rows))
    for name in CLASS_FIGURES
  }
  average = 'macro' if len(rankings) > 1 else rows.target.classes[1]
  return {'overall': overall, 'classes': classes, 'average': average}


def _score_days(rows: Rows, resamples: int, seed: int) -> dict[str, Any]:
  error = rows.prediction - rows.label
  absolute = np.abs(error)
  order = np.argsort(absolute)
  bands = list(itertools.pairwise(BANDS))
  inside = [(rows.label >= low) & (rows.label < high) for low, high in bands]

  def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
    squared = _mean(weights, error**2)
    mean = _mean(weights, rows.label)
    variance = _mean(weights, (rows.label - rows.label.mean()) ** 2)
    variance -= (mean - rows.label.mean()) ** 2
    # Rounding leaves a trace of variance in equal labels.
    varied = variance > 1e-12 * max(1.0, float(np.abs(rows.label).max()) ** 2)
    figures = {
      'mae': _mean(weights, absolute),
      'rmse': np.sqrt(squared),
      'median_absolute_error': _median(weights[:, order], absolute[order]),
      'r2': 1 - squared / np.where(varied, variance, np.nan),
      'bias': _mean(weights, error),
    }
    for index, member in enumerate(inside):
      figures[f'{index}/bias'] = _mean(weights * member, error)
      figures[f'{index}/mae'] = _mean(weights * member, absolute)
    return figures

  draws = bootstrap(statistic, rows.subject, resamples, seed)
  overall = {
    name: estimate(draws[name], rows.counts(), 'all true values are equal')
    for name in ('mae', 'rmse', 'median_absolute_error', 'r2', 'bias')
  }
  result = []
  for index, ((low, high), member) in enumerate(zip(bands, inside, strict=True)):
    counts = rows.take(member).counts()
    result.append(
      {
        'low': low,
        'high': high if np.isfinite(high) else None,
        **{
          name: estimate(draws[f'{index}/{name}'], counts, 'no sample in this band')
          for name in ('bias', 'mae')
        },
      }
    )
  return {'overall': overall, 'bands': result}


def _mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Weighted mean (r) of values (n) under weights (r n)."""
  total = weights.sum(axis=1)
  return weights @ values / np.where(total > 0, total, np.nan)


def _median(weights: np.ndarray, ordered: np.ndarray) -> np.ndarray:
  """Median (r) of ascending values (n) repeated by integer weights (r n)."""
  cumulative = np.cumsum(weights, axis=1)
  half = cumulative[:, -1:] / 2
  lower = ordered[(cumulative >= half).argmax(axis=1)]
  upper = ordered[(cumulative > half).argmax(axis=1)]
  return (lower + upper) / 2
