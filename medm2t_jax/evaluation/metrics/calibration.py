"""Calibration: reliability, ECE, Brier, slope and intercept; temperature scaling.

Temperature scaling (Guo et al. 2017, arXiv 1706.04599) is fitted for each fold on its
validation rows only and applied to its test rows. Slope and intercept follow Van
Calster et al. 2016 (doi 10.1016/j.jclinepi.2015.12.005): the slope is the coefficient
of logit(p) in a logistic regression of the outcome, the intercept is calibration in
the large, fitted with the slope held at 1. A perfect model has slope 1, intercept 0.
Every sample counts by its weight; the bins hold equal numbers of samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import optimize, special

from medm2t_jax import targets
from medm2t_jax.evaluation.metrics.bootstrap import RESAMPLES, Draws, bootstrap, estimate
from medm2t_jax.evaluation.rows import Outcome, Rows
from medm2t_jax.targets.kind import SMALLEST

BINS = 10
_LOG_TEMPERATURE = 3.0


@dataclasses.dataclass(frozen=True)
class Temperature:
  """Temperature of one fold: `value`, or None and a `reason`."""

  value: float | None
  samples: int
  reason: str | None = None


def fit_temperatures(test: Rows, validation: Rows) -> dict[int, Temperature]:
  """The temperature of every fold in `test`, fitted on its `validation` rows."""
  return {
    int(fold): _fit_temperature(validation.take(validation.fold == fold))
    for fold in np.unique(test.fold)
  }


def scale(test: Rows, temperatures: Mapping[int, Temperature]) -> Rows | None:
  """`test` with calibrated probabilities; None if a fold has no temperature."""
  if any(each.value is None for each in temperatures.values()):
    return None
  divisor = np.array([temperatures[int(fold)].value for fold in test.fold], np.float64)
  outputs = _outputs(test) / divisor[:, None]
  return test.with_prediction(targets.of(test.target).predictions(outputs), 'calibrated')


def class_calibration(
  rows: Rows, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
  """{'log_loss', 'brier': estimate, 'classes': {name: {...}}} of probabilities.

  `brier` is the mean over samples of the squared error summed over the classes; with two
  classes, that of the second class only; with labels, averaged over the known labels. Each
  class has estimates 'ece' (quantile bins), 'brier', 'bias' (mean of predicted minus
  observed), 'slope', 'intercept' and 'curve', a list of bins {'predicted', 'observed', 'n'}
  of weighted means.
  """
  kind = targets.of(rows.target)
  squared = (rows.prediction - kind.is_true(rows.label))[:, list(kind.scored)] ** 2
  # For labels the mean over the known ones, because a sample may lack some.
  brier = np.nanmean(squared, axis=1) if kind.link == 'sigmoid' else squared.sum(axis=1)
  columns = {'log_loss': kind.log_losses(rows.prediction, rows.label), 'brier': brier}
  draws = bootstrap(
    lambda w: _means(w, columns), rows.subject, rows.weight, resamples, seed
  )
  result: dict[str, Any] = {name: estimate(draws[name], rows.counts()) for name in columns}
  result['classes'] = {
    outcome.name: _one_class(rows, outcome, resamples, seed) for outcome in rows.outcomes
  }
  return result


def numeric_calibration(
  rows: Rows, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
  """{'slope', 'intercept': estimate, 'curve'} of true on predicted numbers."""
  x, y = rows.prediction, rows.label
  center = x.mean()

  def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
    columns = {'x': x - center, 'y': y, 'xx': (x - center) ** 2, 'xy': (x - center) * y}
    mean = _means(weights, columns)
    variance = mean['xx'] - mean['x'] ** 2
    varied = variance > 1e-12 * max(1.0, center**2)
    slope = (mean['xy'] - mean['x'] * mean['y']) / np.where(varied, variance, np.nan)
    return {'slope': slope, 'intercept': mean['y'] - slope * (mean['x'] + center)}

  draws = bootstrap(statistic, rows.subject, rows.weight, resamples, seed)
  reason = 'all predictions are equal'
  return {
    **{name: estimate(each, rows.counts(), reason) for name, each in draws.items()},
    'curve': _curve(x, y, rows.weight, quantile_bins(x)),
  }


def predicted(rows: Rows) -> dict[str, list[float]]:
  """Percentiles 1 to 99 of the predictions of each outcome; of a number under key ''."""
  if rows.target.numeric:
    of = {'': rows.prediction}
  else:
    of = {each.name: rows.prediction[:, each.index] for each in rows.outcomes}
  at = np.arange(1, 100)
  return {name: np.percentile(each, at).tolist() for name, each in of.items()}


def quantile_bins(values: np.ndarray, bins: int = BINS) -> np.ndarray:
  """Bin of each value (n), int (n); equal values share a bin, no bin is empty."""
  cuts = np.unique(np.quantile(values, np.arange(1, bins) / bins))
  return np.unique(np.searchsorted(cuts, values, side='left'), return_inverse=True)[1]


def _one_class(rows: Rows, outcome: Outcome, resamples: int, seed: int) -> dict[str, Any]:
  probability = outcome.probability
  positive = outcome.positive.astype(np.float64)
  counts = rows.of_outcome(outcome)
  if not len(positive):
    empty = estimate(Draws(np.nan, np.empty(0)), counts, 'unknown in all samples')
    keys = ('ece', 'brier', 'bias', 'slope', 'intercept')
    return {**dict.fromkeys(keys, empty), 'curve': []}
  member = quantile_bins(probability)
  gap = np.zeros((len(positive), member.max() + 1))
  gap[np.arange(len(positive)), member] = positive - probability

  def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
    weights = weights[:, outcome.row]
    total = weights.sum(axis=1)
    # In a resample the label may be unknown in all samples.
    total = np.where(total > 0, total, np.nan)
    ece = np.abs(weights @ gap).sum(axis=1) / total
    return {
      'ece': ece,
      'brier': weights @ (positive - probability) ** 2 / total,
      'bias': weights @ (probability - positive) / total,
    }

  draws = bootstrap(statistic, rows.subject, rows.weight, resamples, seed)
  result = {name: estimate(each, counts) for name, each in draws.items()}
  clipped = np.clip(probability, SMALLEST, 1 - SMALLEST)
  subjects, weight = rows.subject[outcome.row], rows.weight[outcome.row]
  result |= _logistic(special.logit(clipped), positive, weight, subjects, counts)
  return {**result, 'curve': _curve(probability, positive, weight, member)}


def _logistic(
  logit: np.ndarray,
  positive: np.ndarray,
  weight: np.ndarray,
  subjects: np.ndarray,
  counts: Mapping,
) -> dict[str, Any]:
  """Slope and intercept with 95 % intervals, robust to several samples per subject."""
  undefined = lambda reason: estimate(Draws(np.nan, np.empty(0)), counts, reason)
  if positive.min() == positive.max():
    reason = 'the samples are of one class only'
    return {'slope': undefined(reason), 'intercept': undefined(reason)}
  ones = np.ones((len(logit), 1))
  intercept = _newton(ones, positive, weight, logit, subjects, counts, 0)
  inside, outside = logit[positive == 1], logit[positive == 0]
  if logit.min() == logit.max():
    slope = undefined('all predicted probabilities are equal')
  elif inside.min() >= outside.max() or inside.max() <= outside.min():
    slope = undefined('the prediction separates the classes completely')
  else:
    design = np.stack([ones[:, 0], logit], axis=1)
    slope = _newton(design, positive, weight, np.zeros(len(logit)), subjects, counts, 1)
  return {'slope': slope, 'intercept': intercept}


def _newton(
  design: np.ndarray,
  positive: np.ndarray,
  weight: np.ndarray,
  offset: np.ndarray,
  subjects: np.ndarray,
  counts: Mapping,
  position: int,
) -> dict[str, Any]:
  """Coefficient `position` of a logistic regression, clustered Wald interval."""
  loss = lambda beta: (
    weight * (np.logaddexp(0, offset + design @ beta) - positive * (offset + design @ beta))
  ).sum()
  gradient = lambda beta: (
    design.T @ (weight * (special.expit(offset + design @ beta) - positive))
  )

  def hessian(beta: np.ndarray) -> np.ndarray:
    probability = special.expit(offset + design @ beta)
    return (design * (weight * probability * (1 - probability))[:, None]).T @ design

  fit = optimize.minimize(
    loss,
    np.zeros(design.shape[1]),
    jac=gradient,
    hess=hessian,
    method='trust-exact',
    options={'gtol': 1e-8 * weight.sum()},
  )
  result = {'value': float(fit.x[position]), 'low': None, 'high': None, **counts}
  clusters = np.unique(subjects, return_inverse=True)[1]
  number = clusters.max() + 1
  if number < 3:
    return {**result, 'reason': 'no interval: fewer than three subjects'}
  residual = weight * (positive - special.expit(offset + design @ fit.x))
  scores = np.zeros((number, design.shape[1]))
  np.add.at(scores, clusters, design * residual[:, None])
  bread = np.linalg.inv(hessian(fit.x))
  covariance = bread @ (scores.T @ scores) @ bread * number / (number - 1)
  margin = 1.959964 * float(np.sqrt(covariance[position, position]))
  low, high = result['value'] - margin, result['value'] + margin
  return {**result, 'low': low, 'high': high, 'reason': None}


def _fit_temperature(rows: Rows) -> Temperature:
  if not len(rows):
    return Temperature(None, 0, 'no validation predictions')
  kind = targets.of(rows.target)
  if all(len(np.unique(each.positive)) < 2 for each in rows.outcomes):
    which = kind.label_in_words(rows.label[0])
    reason = f'all {len(rows)} validation samples are of class "{which}"'
    return Temperature(None, len(rows), reason)
  outputs = _outputs(rows)

  def loss(log_temperature: float) -> float:
    total, _ = kind.summed_loss(outputs / np.exp(log_temperature), rows.label, rows.weight)
    return float(total) / rows.weight.sum()

  limits = (-_LOG_TEMPERATURE, _LOG_TEMPERATURE)
  fit: Mapping[str, Any] = optimize.minimize_scalar(
    loss, bounds=limits, method='bounded', options={'xatol': 1e-6}
  )
  optimum = float(fit['x'])
  if abs(optimum) > _LOG_TEMPERATURE - 1e-3:
    reason = f'no optimum inside {np.exp(limits[0]):.2f} to {np.exp(limits[1]):.0f}'
    return Temperature(None, len(rows), f'{reason} on {len(rows)} validation samples')
  return Temperature(float(np.exp(optimum)), len(rows))


def _curve(
  x: np.ndarray, y: np.ndarray, weight: np.ndarray, member: np.ndarray
) -> list[dict[str, Any]]:
  mean = lambda values, index: float(
    np.average(values[member == index], weights=weight[member == index])
  )
  return [
    {
      'predicted': mean(x, index),
      'observed': mean(y, index),
      'n': int((member == index).sum()),
    }
    for index in range(member.max() + 1)
  ]


def _outputs(rows: Rows) -> np.ndarray:
  """The predictions on the scale of the target's link (n c)."""
  return targets.of(rows.target).outputs(rows.prediction, SMALLEST)


def _means(weights: np.ndarray, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  total = weights.sum(axis=1)
  return {name: weights @ column / total for name, column in columns.items()}
