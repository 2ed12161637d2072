"""Weights of samples in what the evaluation measures, against scikit-learn's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import special
from sklearn import metrics as oracle
from sklearn.linear_model import LogisticRegression

from data_pipeline.format.schema import DataError
from medm2t_jax import targets
from medm2t_jax.evaluation import external, reporting
from medm2t_jax.evaluation.metrics import calibration
from medm2t_jax.evaluation.metrics.metrics import score
from medm2t_jax.evaluation.rows import read_rows
from medm2t_jax.evaluation.sections import decisions
from medm2t_jax.training import selection

TASKS = ('mortality', 'cvd', 'phenotypes', 'los')


def weighted(predictions, context, task, samples=400, **options):
  rows, validation = read_rows(predictions(task, samples, **options), context(task).schema)
  draw = lambda each, seed: dataclasses.replace(
    each, weight=np.random.default_rng(seed).choice([0.1, 0.5, 1, 3], len(each))
  )
  return draw(rows, 1), draw(validation, 2)


def copied(rows):
  """The same rows with whole weights, as so many copies of each."""
  return dataclasses.replace(
    rows.take(np.repeat(np.arange(len(rows)), rows.weight.astype(int))),
    weight=np.ones(int(rows.weight.sum())),
  )


@pytest.mark.parametrize('task', ['mortality', 'cvd', 'phenotypes'])
def test_metrics_of_classes_are_those_of_scikit_learn(predictions, context, task):
  rows, _ = weighted(predictions, context, task)
  found = score(rows, resamples=5)
  for each in rows.outcomes:
    metrics, weight = found['classes'][each.name], rows.weight[each.row]
    assert metrics['prevalence'] == pytest.approx(np.average(each.positive, weights=weight))
    if not each.positive.any():
      continue
    given = (each.positive, each.probability)
    assert metrics['auroc']['value'] == pytest.approx(
      oracle.roc_auc_score(*given, sample_weight=weight)
    )
    assert metrics['average_precision']['value'] == pytest.approx(
      oracle.average_precision_score(*given, sample_weight=weight)
    )
    assert metrics['auroc']['n'] == len(each.row)
    assert metrics['auroc']['events'] == each.positive.sum()
  measured = calibration.class_calibration(rows, resamples=5)
  if task != 'phenotypes':
    label = rows.label.astype(int)
    loss = oracle.log_loss(label, rows.prediction, sample_weight=rows.weight)
    assert measured['log_loss']['value'] == pytest.approx(loss)
  each = rows.outcomes[0]
  brier = oracle.brier_score_loss(
    each.positive, each.probability, sample_weight=rows.weight[each.row]
  )
  assert measured['classes'][each.name]['brier']['value'] == pytest.approx(brier)


def test_metrics_of_numbers_are_those_of_scikit_learn(predictions, context):
  rows, _ = weighted(predictions, context, 'los')
  found = score(rows, resamples=5)['overall']
  given = {'sample_weight': rows.weight}
  pair = (rows.label, rows.prediction)
  for name, expected in {
    'mae': oracle.mean_absolute_error(*pair, **given),
    'rmse': oracle.root_mean_squared_error(*pair, **given),
    'r2': oracle.r2_score(*pair, **given),
  }.items():
    assert found[name]['value'] == pytest.approx(expected), name


@pytest.mark.parametrize('task', TASKS)
def test_a_weight_of_three_is_three_copies(predictions, context, task):
  """Of all that is measured: whole weights are as many samples, in bins too."""
  rows, _ = weighted(predictions, context, task)
  whole = dataclasses.replace(rows, weight=rows.weight.round().clip(1))
  twins = copied(whole)
  assert len(twins) > len(rows)

  def values(found):
    if isinstance(found, dict):
      if 'value' in found:
        return found['value'], found['low'], found['high']
      return {k: values(v) for k, v in found.items() if k not in ('n', 'curve')}
    return found

  def metrics(rows):
    if task == 'los':
      found = (
        score(rows, resamples=20)['overall'],
        calibration.numeric_calibration(rows, 20),
      )
    else:
      measured = calibration.class_calibration(rows, 20)
      for each in measured['classes'].values():
        del each['ece']  # by bins of equal numbers of samples
      outcome = rows.outcomes[0]
      found = (
        {k: v for k, v in score(rows, 20).items() if k != 'average'},
        measured,
        dict(enumerate(decisions.operating_points(rows, outcome, 20))),
        decisions.decision_curve(rows, outcome),
      )
    return [values(each) for each in found]

  def compare(one, other):
    if isinstance(one, dict):
      assert one.keys() == other.keys()
      for key in one:
        compare(one[key], other[key])
    elif isinstance(one, tuple | list):
      for a, b in zip(one, other, strict=True):
        compare(a, b)
    elif isinstance(one, float):
      assert one == pytest.approx(other, rel=1e-5, abs=1e-9)
    else:
      assert one == other

  compare(metrics(whole), metrics(twins))


def test_slope_and_reliability_are_weighted(predictions, context):
  rows, _ = weighted(predictions, context, 'mortality')
  found = calibration.class_calibration(rows, 20)['classes']['died']
  each = rows.outcomes[0]
  logit = special.logit(each.probability)[:, np.newaxis]
  model = LogisticRegression(C=np.inf, tol=1e-10).fit(logit, each.positive, rows.weight)
  assert found['slope']['value'] == pytest.approx(model.coef_[0, 0], rel=1e-4)
  member = calibration.quantile_bins(each.probability)
  gaps = []
  for index, point in enumerate(found['curve']):
    inside = member == index
    mean = lambda of, inside=inside: np.average(of[inside], weights=rows.weight[inside])
    assert point['predicted'] == pytest.approx(mean(each.probability))
    assert point['observed'] == pytest.approx(mean(each.positive))
    gap = abs(point['predicted'] - point['observed'])
    gaps.append(gap * rows.weight[inside].sum() / rows.weight.sum())
  assert found['ece']['value'] == pytest.approx(sum(gaps))


@pytest.mark.parametrize('task', ['mortality', 'cvd', 'phenotypes'])
def test_the_temperature_is_that_of_copies(predictions, context, task):
  test, validation = weighted(predictions, context, task)
  whole = dataclasses.replace(validation, weight=validation.weight.round().clip(1))
  found = calibration.fit_temperatures(test, whole)
  twins = calibration.fit_temperatures(test, copied(whole))
  unweighted = dataclasses.replace(whole, weight=np.ones(len(whole)))
  others = calibration.fit_temperatures(test, unweighted)
  for fold, each in found.items():
    assert each.value == pytest.approx(twins[fold].value, rel=1e-4)
    assert each.value != pytest.approx(others[fold].value, rel=1e-3)


@pytest.mark.parametrize('task', TASKS)
def test_a_recalibration_is_that_of_copies(predictions, context, task):
  rows, _ = weighted(predictions, context, task)
  rows = dataclasses.replace(rows, weight=rows.weight.round().clip(1))
  one, other = (external.recalibration(r, slope=True) for r in (rows, copied(rows)))
  np.testing.assert_allclose(one(rows.prediction), other(rows.prediction), rtol=2e-3)


@pytest.mark.parametrize('task', TASKS)
def test_what_is_said_of_labels_together_is_that_of_copies(predictions, context, task):
  rows, _ = weighted(predictions, context, task)
  rows = dataclasses.replace(rows, weight=rows.weight.round().clip(1))
  twins, kind = copied(rows), targets.of(rows.target)
  label = lambda rows: np.nan_to_num(rows.label, nan=-1)
  both = lambda f: np.testing.assert_allclose(f(rows), f(twins), rtol=1e-9)
  both(lambda rows: kind.prior(label(rows), rows.weight))
  both(lambda rows: kind.shares(label(rows), rows.weight))
  both(lambda rows: kind.mean_loss(rows.prediction, label(rows), rows.weight))
  outputs = lambda rows: kind.outputs(rows.prediction)
  if task != 'los':  # smooth by the spread of the labels, without weights
    both(lambda rows: kind.summed_loss(outputs(rows), label(rows), rows.weight)[0])
  given = lambda rows: (outputs(rows), label(rows), rows.weight, rows.target, 'labs')
  for metric in kind.selection_metrics:
    both(lambda rows, metric=metric: selection.value(metric, *given(rows)))


def test_intervals_draw_subjects_whatever_their_samples_weigh(predictions, context):
  """Many samples of one subject, each with a part of a weight, say as much as one."""
  rows, _ = read_rows(predictions('mortality', 200), context('mortality').schema)
  rows = dataclasses.replace(rows, subject=np.arange(len(rows)))
  many = dataclasses.replace(
    rows.take(np.repeat(np.arange(len(rows)), 7)), weight=np.full(7 * len(rows), 1 / 7)
  )
  few, found = (score(each, resamples=100)['overall']['auroc'] for each in (rows, many))
  for end in ('value', 'low', 'high'):
    assert found[end] == pytest.approx(few[end])
  assert found['n'] == 7 * few['n'] and found['subjects'] == few['subjects']


def test_the_report_says_that_samples_have_weights(predictions, context):
  table = predictions('mortality', 240)
  equal = reporting.evaluated(table, *context('mortality'), 5)
  assert not any('weights' in note for note in equal.metrics['notes'])
  weights = np.where(np.arange(len(table)) % 2, 0.25, 1.0)
  place = table.column_names.index('weight')
  unequal = table.set_column(place, 'weight', [weights])
  notes = reporting.evaluated(unequal, *context('mortality'), 5).metrics['notes']
  assert any('0.25 to 1' in note for note in notes)
  with pytest.raises(DataError, match='weight'):
    read_rows(table.set_column(place, 'weight', [0 * weights]), context('mortality').schema)
