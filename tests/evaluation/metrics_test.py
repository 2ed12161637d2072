"""Metrics and intervals against scikit-learn and a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as oracle

from medm2t_jax.evaluation.metrics.bootstrap import bootstrap, estimate, resampled_weights
from medm2t_jax.evaluation.metrics.metrics import score
from medm2t_jax.evaluation.metrics.ranking import Ranking
from medm2t_jax.evaluation.rows import read_rows


def _area(positive, scores, weights):
  keep = weights > 0
  precision, recall, _ = oracle.precision_recall_curve(
    positive[keep], scores[keep], sample_weight=weights[keep]
  )
  return oracle.auc(recall, precision)


@pytest.mark.parametrize('digits', [1, 6])
def test_weighted_areas_equal_sklearn(digits):
  random = np.random.default_rng(0)
  positive = random.random(200) < 0.3
  # One digit makes many ties.
  scores = np.round(random.random(200) + 0.3 * positive, digits)
  weights = random.integers(0, 4, (20, 200)).astype(float)
  curves = Ranking(scores, positive).curves(weights)
  for row, weight in enumerate(weights):
    expected = oracle.roc_auc_score(positive, scores, sample_weight=weight)
    assert curves.auroc()[row] == pytest.approx(expected, abs=1e-12)
    expected = oracle.average_precision_score(positive, scores, sample_weight=weight)
    assert curves.average_precision()[row] == pytest.approx(expected, abs=1e-12)
    expected = _area(positive, scores, weight)
    assert curves.precision_recall_area()[row] == pytest.approx(expected, abs=1e-12)


def test_interval_equals_loop_that_copies_the_subjects(predictions, context):
  rows, _ = read_rows(predictions('mortality', 160), context('mortality').schema)
  metrics = score(rows, resamples=100, seed=3)['overall']
  distinct = np.unique(rows.subject)
  random = np.random.default_rng(3)
  values = []
  for _ in range(100):
    drawn = distinct[random.integers(len(distinct), size=len(distinct))]
    index = np.concatenate([np.flatnonzero(rows.subject == each) for each in drawn])
    values.append(oracle.roc_auc_score(rows.label[index], rows.prediction[index, 1]))
  expected = np.quantile(values, [0.025, 0.975])
  found = [metrics['auroc']['low'], metrics['auroc']['high']]
  np.testing.assert_allclose(found, expected, atol=1e-12)


def test_all_samples_of_a_subject_are_drawn_together():
  subjects = np.array([7, 7, 3, 9, 9, 9])
  weights = np.concatenate(list(resampled_weights(subjects, np.ones(len(subjects)), 50)))
  assert weights.shape == (50, 6)
  assert (weights[:, 0] == weights[:, 1]).all()
  assert (weights[:, 3:] == weights[:, 3:4]).all()
  assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()


def test_correlated_samples_widen_the_interval():
  random = np.random.default_rng(0)
  effect = random.normal(size=100)
  values = np.repeat(effect, 10)
  mean = lambda weights: {'mean': weights @ values / weights.sum(axis=1)}
  counts = {'n': 1000, 'subjects': 100, 'events': None}
  by_subject = estimate(
    bootstrap(mean, np.repeat(np.arange(100), 10), np.ones(1000))['mean'], counts
  )
  by_sample = estimate(bootstrap(mean, np.arange(1000), np.ones(1000))['mean'], counts)
  width = lambda metric: metric['high'] - metric['low']
  assert width(by_subject) > 2.5 * width(by_sample)


def test_classes_equal_sklearn(predictions, context):
  rows, _ = read_rows(predictions('cvd', 400), context('cvd').schema)
  result = score(rows, resamples=20)
  each = [
    oracle.roc_auc_score(rows.label == index, rows.prediction[:, index])
    for index in range(4)
  ]
  found = [metrics['auroc']['value'] for metrics in result['classes'].values()]
  np.testing.assert_allclose(found, each, atol=1e-12)
  assert result['overall']['auroc']['value'] == pytest.approx(np.mean(each))
  assert result['average'] == 'macro'
  smallest = min(int((rows.label == index).sum()) for index in range(4))
  assert result['overall']['auroc']['events'] == smallest


def test_days_equal_sklearn(predictions, context):
  rows, _ = read_rows(predictions('los', 300), context('los').schema)
  result = score(rows, resamples=50, seed=1)
  overall = {name: each['value'] for name, each in result['overall'].items()}
  true, predicted = rows.label, rows.prediction
  assert overall['mae'] == pytest.approx(oracle.mean_absolute_error(true, predicted))
  rmse = oracle.root_mean_squared_error(true, predicted)
  assert overall['rmse'] == pytest.approx(rmse)
  median = oracle.median_absolute_error(true, predicted)
  assert overall['median_absolute_error'] == pytest.approx(median)
  assert overall['r2'] == pytest.approx(oracle.r2_score(true, predicted))
  assert overall['bias'] == pytest.approx((predicted - true).mean())
  for band in result['bands']:
    inside = (true >= band['low']) & (true < (band['high'] or np.inf))
    assert band['bias']['n'] == inside.sum()
    assert band['bias']['value'] == pytest.approx((predicted - true)[inside].mean())
  loop = [
    np.median(np.repeat(np.abs(predicted - true), weight.astype(int)))
    for chunk in resampled_weights(rows.subject, rows.weight, 50, 1)
    for weight in chunk
  ]
  low, high = np.quantile(loop, [0.025, 0.975])
  metric = result['overall']['median_absolute_error']
  assert (metric['low'], metric['high']) == pytest.approx((low, high))


def test_one_class_is_undefined_and_says_why(predictions, context):
  table = predictions('mortality', 40, rate=0.0)
  rows, _ = read_rows(table, context('mortality').schema)
  for metric in score(rows, resamples=20)['overall'].values():
    assert metric['value'] is metric['low'] is metric['high'] is None
    assert metric['reason'] == 'no sample of class "died" among 40'


def test_one_event_has_a_value_without_an_interval(predictions, context):
  rows, _ = read_rows(predictions('mortality', 40, rate=0), context('mortality').schema)
  rows.label[3] = 1
  metric = score(rows, resamples=200)['overall']['auroc']
  assert metric['value'] is not None
  assert metric['low'] is None
  assert metric['events'] == 1
  assert 'too few subjects carry the outcome' in metric['reason']


def test_equal_days_have_no_r2(predictions, context):
  rows, _ = read_rows(predictions('los', 20), context('los').schema)
  rows.label[:] = 3.3
  metrics = score(rows, resamples=20)
  assert metrics['overall']['r2']['reason'] == 'all true values are equal'
  assert metrics['overall']['mae']['value'] > 0
  assert metrics['bands'][-1]['bias']['reason'] == 'no sample in this band'
