"""Metrics, calibration and report of a multilabel target."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special
from sklearn import metrics as sklearn_metrics

from medm2t_jax.evaluation import external, reporting
from medm2t_jax.evaluation.metrics import calibration
from medm2t_jax.evaluation.metrics.metrics import score
from medm2t_jax.evaluation.rows import read_rows

TASK = 'phenotypes'


@pytest.fixture(scope='module')
def rows(predictions, context):
  return read_rows(predictions(TASK, 600), context(TASK).schema)


def _known(test, index):
  known = ~np.isnan(test.label[:, index])
  return test.label[known, index], test.prediction[known, index]


def test_metrics_are_those_of_the_known_labels(rows):
  test, _ = rows
  assert 0 < np.isnan(test.label).mean() < 0.1
  found = score(test, resamples=50)
  areas = []
  for index, name in enumerate(test.target.classes[:3]):
    true, predicted = _known(test, index)
    areas.append(sklearn_metrics.roc_auc_score(true, predicted))
    one = found['classes'][name]
    assert one['auroc']['value'] == pytest.approx(areas[-1])
    expected = sklearn_metrics.average_precision_score(true, predicted)
    assert one['average_precision']['value'] == pytest.approx(expected)
    assert one['auroc']['n'] == len(true) and one['auroc']['events'] == true.sum()
    assert one['auroc']['low'] < areas[-1] < one['auroc']['high']
  nobody = found['classes']['none has it']['auroc']
  assert nobody['value'] is None and 'no sample of class' in nobody['reason']
  assert found['average'] == 'macro'
  assert found['overall']['auroc']['value'] == pytest.approx(np.mean(areas))
  assert found['overall']['auroc']['low'] is not None
  true, predicted = np.concatenate([np.stack(_known(test, i)) for i in range(4)], axis=1)
  micro = sklearn_metrics.roc_auc_score(true, predicted)
  assert found['micro']['auroc']['value'] == pytest.approx(micro)


def test_calibration_is_of_the_known_labels(rows):
  test, validation = rows
  found = calibration.class_calibration(test, resamples=20)
  each = np.where(test.label == 1, test.prediction, 1 - test.prediction)
  each = np.where(np.isnan(test.label), np.nan, -np.log(each))
  assert found['log_loss']['value'] == pytest.approx(np.nanmean(each, axis=1).mean())
  true, predicted = _known(test, 1)
  brier = sklearn_metrics.brier_score_loss(true, predicted)
  assert found['classes']['sepsis']['brier']['value'] == pytest.approx(brier)
  temperatures = calibration.fit_temperatures(test, validation)
  scaled = calibration.scale(test, temperatures)
  assert scaled is not None
  first = test.fold == 0
  expected = special.expit(special.logit(test.prediction[first]) / temperatures[0].value)
  np.testing.assert_allclose(scaled.prediction[first], expected, rtol=1e-6)


def test_recalibration_moves_each_label_to_its_share(rows):
  test, _ = rows
  change = external.recalibration(test, slope=False)
  changed = change(test.prediction)
  for index in range(3):
    known = ~np.isnan(test.label[:, index])
    # The loss weighs a sample's labels by how many are known.
    weight = known / (~np.isnan(test.label)).sum(axis=1)
    share = np.average(test.label[known, index], weights=weight[known])
    found = np.average(changed[known, index], weights=weight[known])
    assert found == pytest.approx(share, abs=1e-3)


def test_the_report_is_written(predictions, context, tmp_path):
  metrics = reporting.write_report(
    tmp_path, predictions(TASK, 120), *context(TASK, test=120), resamples=20
  )
  assert metrics['headline']['name'] == 'AUROC'
  page = (tmp_path / 'report.html').read_text()
  for text in ('Micro average', 'Macro average', 'sepsis', '3 of 4'):
    assert text in page
