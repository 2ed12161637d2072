"""Discrimination and error metrics with intervals from a bootstrap over subjects.

Classes: AUROC and AUPRC one-vs-rest, per class and macro averaged (with two classes: of the
second). Labels: per label, macro averaged over those with both values here, and micro
averaged. Numbers: MAE, RMSE, median absolute error, R2, bias by band of the true value.
Every metric weights the samples. An undefined metric is None and has a `reason`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipeline.format.schema import Target
from medm2t_jax import targets
from medm2t_jax.evaluation.metrics.bootstrap import RESAMPLES, Draws, bootstrap, estimate
from medm2t_jax.evaluation.metrics.ranking import Ranking
from medm2t_jax.evaluation.rows import Outcome, Rows

# Bands of the true value in days; the last is open. In other units, fifths are used.
DAY_BANDS = (0.0, 2.0, 4.0, 7.0, 14.0, np.inf)
_FIFTHS = (0.2, 0.4, 0.6, 0.8)
CLASS_METRICS = ('auroc', 'average_precision', 'auprc_trapezoid')
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


def digits_of(target: Target) -> int:
  """Digits after the point of a metric: two in the unit of a number, else three."""
  return 2 if target.numeric else 3


def headline_metric(rows: Rows) -> str:
  """Key of a task's main metric: 'auroc' or 'mae'."""
  return compared_metrics(rows)[0]


def score(rows: Rows, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
  """All metrics of some rows.

  Returns:
    {'overall': {metric: estimate}}. For classes also 'classes': {name: {metric: estimate,
      'prevalence': share}} and 'average': 'macro' or the class that `overall` is about; for
      labels also 'micro': {metric: estimate}; for numbers also 'bands': [{'low', 'high',
      'bias': estimate, 'mae': estimate}]. Estimates are those of `bootstrap.estimate`.
  """
  if rows.target.numeric:
    return _score_numbers(rows, resamples, seed)
  return _score_classes(rows, resamples, seed)


def compared_metrics(rows: Rows) -> tuple[str, str]:
  """Keys of the metrics used to compare models, the headline metric first."""
  if rows.target.numeric:
    return 'mae', 'rmse'
  return 'auroc', 'average_precision'


def metric_draws(
  rows: Rows, names: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Draws]:
  """Some of `compared_metrics` with their resamples, for paired differences."""
  if rows.target.numeric:
    error = rows.prediction - rows.label
    in_days = {
      'mae': lambda weights: _mean(weights, np.abs(error)),
      'rmse': lambda weights: np.sqrt(_mean(weights, error**2)),
    }
    statistic = lambda weights: {name: in_days[name](weights) for name in names}
    return bootstrap(statistic, rows.subject, rows.weight, resamples, seed)
  rankings = _rankings(rows)

  def of_classes(weights: np.ndarray) -> dict[str, np.ndarray]:
    curves = [ranking.curves(weights) for ranking in rankings]
    areas = {
      'auroc': lambda each: each.auroc(),
      'average_precision': lambda each: each.average_precision(),
    }
    return {name: _averaged(rows, [areas[name](each) for each in curves]) for name in names}

  return bootstrap(of_classes, rows.subject, rows.weight, resamples, seed)


def headline_estimate(
  rows: Rows, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
  """The headline metric as an estimate; None with a reason if undefined."""
  if not len(rows):
    empty = Draws(np.nan, np.full(resamples, np.nan))
    return estimate(empty, rows.counts(), 'no samples')
  name = headline_metric(rows)
  draws = metric_draws(rows, (name,), resamples, seed)[name]
  return estimate(draws, rows.counts(), why_undefined(rows))


def why_undefined(rows: Rows, outcome: Outcome | None = None) -> str | None:
  """Why AUROC and AUPRC are undefined on `rows`, for an outcome or for their average."""
  found = []
  for each in rows.outcomes if outcome is None else (outcome,):
    events = int(each.positive.sum())
    if events == 0:
      found.append(f'no sample of class "{each.name}" among {len(each.row)}')
    elif events == len(each.row):
      found.append(f'all {len(each.row)} samples are of class "{each.name}"')
  # An average over labels leaves out undefined ones.
  needed = len(rows.outcomes) if outcome is None and _of_labels(rows) else 1
  return found[0] if len(found) >= max(1, needed) else None


def _of_labels(rows: Rows) -> bool:
  return targets.of(rows.target).link == 'sigmoid'


def _averaged(rows: Rows, values: Sequence[np.ndarray]) -> np.ndarray:
  """Macro average (r) of the values (r) of all outcomes.

  If the metric of one class is undefined, so is the average, because an average over fewer
  classes is another metric. Labels are many and some are rare: labels that are the same in
  all samples are left out here and in every resample, and a resample without one of the
  others averages the rest.
  """
  if not _of_labels(rows):
    return np.mean(values, axis=0)
  stacked = np.stack(values)
  defined = np.isfinite(stacked)
  total = np.sum(stacked, axis=0, where=defined)
  count = defined.sum(axis=0)
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _rankings(rows: Rows) -> list[Ranking]:
  found = []
  for each in rows.outcomes:
    if len(each.row):
      found.append(Ranking(each.probability, each.positive, each.row))
    else:  # unknown in all samples: undefined, as for constant labels
      found.append(Ranking(np.zeros(1), np.zeros(1, bool)))
  return found


def _micro(rows: Rows) -> Ranking:
  """All labels as one: pairs of a sample and a label."""
  joined = lambda name: np.concatenate([getattr(each, name) for each in rows.outcomes])
  return Ranking(joined('probability'), joined('positive'), joined('row'))


def _score_classes(rows: Rows, resamples: int, seed: int) -> dict[str, Any]:
  rankings = _rankings(rows)
  micro = _micro(rows) if _of_labels(rows) else None

  def metrics_of(ranking: Ranking, weights: np.ndarray) -> dict[str, np.ndarray]:
    curves = ranking.curves(weights)
    return {
      'auroc': curves.auroc(),
      'average_precision': curves.average_precision(),
      'auprc_trapezoid': curves.precision_recall_area(),
    }

  def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
    found = [metrics_of(ranking, weights) for ranking in rankings]
    metrics = {
      f'overall/{name}': _averaged(rows, [each[name] for each in found])
      for name in CLASS_METRICS
    }
    for position, each in enumerate(found):
      metrics |= {f'{position}/{name}': value for name, value in each.items()}
    if micro is not None:
      of_micro = metrics_of(micro, weights)
      metrics |= {f'micro/{name}': value for name, value in of_micro.items()}
    return metrics

  draws = bootstrap(statistic, rows.subject, rows.weight, resamples, seed)
  estimates = lambda key, counts, reason: {
    name: estimate(draws[f'{key}/{name}'], counts, reason) for name in CLASS_METRICS
  }
  classes = {}
  for position, outcome in enumerate(rows.outcomes):
    counts = rows.of_outcome(outcome)
    prevalence = rows.prevalence(outcome) if counts['n'] else None
    reason = why_undefined(rows, outcome)
    classes[outcome.name] = {
      'prevalence': prevalence,
      **estimates(position, counts, reason),
    }
  result = {
    'overall': estimates('overall', rows.counts(), why_undefined(rows)),
    'classes': classes,
    'average': 'macro' if len(rankings) > 1 else rows.outcomes[0].name,
  }
  if micro is not None:
    result['micro'] = estimates('micro', rows.counts(), why_undefined(rows))
  return result


def _score_numbers(rows: Rows, resamples: int, seed: int) -> dict[str, Any]:
  error = rows.prediction - rows.label
  absolute = np.abs(error)
  order = np.argsort(absolute)
  bands = _bands(rows)
  inside = [(rows.label >= low) & (rows.label < high) for low, high in bands]

  def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
    squared = _mean(weights, error**2)
    mean = _mean(weights, rows.label)
    variance = _mean(weights, (rows.label - rows.label.mean()) ** 2)  # corrected below
    variance -= (mean - rows.label.mean()) ** 2
    # Rounding leaves a small variance in equal labels.
    varied = variance > 1e-12 * max(1.0, float(np.abs(rows.label).max()) ** 2)
    metrics = {
      'mae': _mean(weights, absolute),
      'rmse': np.sqrt(squared),
      'median_absolute_error': _median(weights[:, order], absolute[order]),
      'r2': 1 - squared / np.where(varied, variance, np.nan),
      'bias': _mean(weights, error),
    }
    for index, member in enumerate(inside):
      metrics[f'{index}/bias'] = _mean(weights * member, error)
      metrics[f'{index}/mae'] = _mean(weights * member, absolute)
    return metrics

  draws = bootstrap(statistic, rows.subject, rows.weight, resamples, seed)
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


def _bands(rows: Rows) -> list[tuple[float, float]]:
  """Limits of the bands of the true value; the last one is open."""
  if rows.target.unit == 'days':
    return list(itertools.pairwise(DAY_BANDS))
  cuts = np.unique(np.quantile(rows.label, _FIFTHS)).tolist()
  return list(itertools.pairwise([min(rows.label.min(), cuts[0]), *cuts, np.inf]))


def _mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Weighted mean (r) of values (n) under weights (r n)."""
  total = weights.sum(axis=1)
  return weights @ values / np.where(total > 0, total, np.nan)


def _median(weights: np.ndarray, ordered: np.ndarray) -> np.ndarray:
  """Median (r) of ascending values (n) under weights (r n)."""
  cumulative = np.cumsum(weights, axis=1)
  half, rounding = cumulative[:, -1:] / 2, 1e-9 * cumulative[:, -1:]
  lower = ordered[(cumulative >= half - rounding).argmax(axis=1)]
  upper = ordered[(cumulative > half + rounding).argmax(axis=1)]
  return (lower + upper) / 2
