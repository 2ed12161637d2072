"""Calibration metrics on predictions whose calibration is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import special
from sklearn.linear_model import LogisticRegression

from data_pipeline.format.schema import Target
from medm2t_jax.evaluation.metrics import calibration
from medm2t_jax.evaluation.rows import Rows


def _rows(
  stretch: float, n: int = 4000, seed: int = 0, subjects: int | None = None
) -> Rows:
  """True log odds, multiplied by `stretch` in the prediction."""
  random = np.random.default_rng(seed)
  logit = random.normal(-1, 1.5, n)
  label = (random.random(n) < special.expit(logit)).astype(float)
  probability = special.expit(stretch * logit)
  return Rows(
    target=Target('binary', ('no', 'yes')),
    sample=np.arange(n),
    subject=np.arange(n) % (subjects or n),
    fold=np.arange(n) % 2,
    label=label,
    weight=np.ones(n),
    prediction=np.stack([1 - probability, probability], axis=1),
    attributes={},
    present={},
  )


def test_perfect_predictions():
  metrics = calibration.class_calibration(_rows(1.0), resamples=100)['classes']['yes']
  assert metrics['slope']['low'] < 1 < metrics['slope']['high']
  assert metrics['intercept']['low'] < 0 < metrics['intercept']['high']
  assert metrics['ece']['value'] < 0.03


def test_slope_equals_unpenalised_logistic_regression():
  rows = _rows(2.0)
  metrics = calibration.class_calibration(rows, resamples=20)['classes']['yes']
  logit = special.logit(rows.prediction[:, 1:])
  fit = LogisticRegression(C=np.inf, tol=1e-10).fit(logit, rows.label)
  assert metrics['slope']['value'] == pytest.approx(fit.coef_[0, 0], abs=1e-4)
  assert metrics['slope']['value'] == pytest.approx(0.5, abs=0.04)


def test_brier_and_ece_by_hand():
  rows = _rows(1.5, n=300)
  metrics = calibration.class_calibration(rows, resamples=20)
  p, y = rows.prediction[:, 1], rows.label
  assert metrics['brier']['value'] == pytest.approx(np.mean((p - y) ** 2))
  member = calibration.quantile_bins(p)
  gaps = [abs((y - p)[member == index].sum()) for index in range(10)]
  assert metrics['classes']['yes']['ece']['value'] == pytest.approx(sum(gaps) / 300)
  assert [each['n'] for each in metrics['classes']['yes']['curve']] == [30] * 10


def test_repeated_samples_of_a_subject_add_no_certainty():
  width = lambda rows: np.ptp(
    [
      calibration.class_calibration(rows, resamples=5)['classes']['yes']['slope'][end]
      for end in ('low', 'high')
    ]
  )
  once = _rows(1.0, n=500)
  five = dataclasses.replace(once.take(np.arange(2500) % 500), sample=np.arange(2500))
  assert width(five) == pytest.approx(width(once), rel=1e-3)


def test_temperature_is_fitted_on_validation_of_the_same_fold_only():
  test, validation = _rows(1.0, seed=1), _rows(2.5, seed=2)
  validation = dataclasses.replace(
    validation,
    prediction=np.where(
      (validation.fold == 1)[:, None], _rows(1.0, seed=2).prediction, validation.prediction
    ),
  )
  temperatures = calibration.fit_temperatures(test, validation)
  assert temperatures[0].value == pytest.approx(2.5, abs=0.2)
  assert temperatures[1].value == pytest.approx(1.0, abs=0.1)
  assert temperatures[0].samples == 2000
  flipped = dataclasses.replace(test, label=1 - test.label)
  assert calibration.fit_temperatures(flipped, validation) == temperatures
  scaled = calibration.scale(test, temperatures)
  expected = special.expit(special.logit(test.prediction[0, 1]) / temperatures[0].value)
  assert scaled.prediction[0, 1] == pytest.approx(expected)


def test_temperature_needs_both_classes():
  test, validation = _rows(1.0, n=20), _rows(1.0, n=20)
  nobody = dataclasses.replace(validation, label=np.zeros(20))
  temperatures = calibration.fit_temperatures(test, nobody)
  assert 'validation samples are of class "no"' in temperatures[0].reason
  assert calibration.scale(test, temperatures) is None
  nothing = calibration.fit_temperatures(test, validation.take(np.zeros(20, bool)))
  assert nothing[1].reason == 'no validation predictions'


def test_separated_and_equal_predictions_have_no_slope():
  rows = _rows(1.0, n=40)
  apart = np.where(rows.label == 1, 0.8, 0.2) + np.linspace(0, 0.1, 40)
  for probability, reason in (
    (apart, 'the prediction separates the classes completely'),
    (np.full(40, 0.3), 'all predicted probabilities are equal'),
  ):
    prediction = np.stack([1 - probability, probability], axis=1)
    same = dataclasses.replace(rows, prediction=prediction)
    metrics = calibration.class_calibration(same, resamples=5)['classes']['yes']
    assert metrics['slope']['value'] is None
    assert metrics['slope']['reason'] == reason


def test_days_slope_equals_least_squares():
  random = np.random.default_rng(0)
  predicted = random.gamma(2, 2, 400)
  rows = dataclasses.replace(
    _rows(1.0, n=400),
    target=Target('regression', unit='days', low=0.0),
    label=1 + 0.7 * predicted + random.normal(0, 1, 400),
    prediction=predicted,
  )
  metrics = calibration.numeric_calibration(rows, resamples=200)
  slope, intercept = np.polyfit(predicted, rows.label, 1)
  assert metrics['slope']['value'] == pytest.approx(slope)
  assert metrics['intercept']['value'] == pytest.approx(intercept)
  assert metrics['slope']['low'] < 0.7 < metrics['slope']['high']


def test_percentiles_of_the_predictions_by_outcome():
  rows = _rows(1.0, n=5000)
  (found,) = calibration.predicted(rows).items()
  assert found[0] == 'yes' and len(found[1]) == 99
  for percent in (1, 50, 99):
    below = (rows.prediction[:, 1] <= found[1][percent - 1]).mean()
    assert below == pytest.approx(percent / 100, abs=1e-3)
  number = dataclasses.replace(
    rows, target=Target('regression', unit='days'), prediction=rows.prediction[:, 1]
  )
  assert calibration.predicted(number) == {'': found[1]}
