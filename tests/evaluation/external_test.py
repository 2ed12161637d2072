"""External validation: metrics here and there, recalibration, the page."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import special
from sklearn.linear_model import LogisticRegression

from data_pipeline.format.dataset import Dataset
from data_pipeline.format.schema import DataError, Target
from medm2t_jax.evaluation import external
from medm2t_jax.evaluation.metrics.metrics import score
from medm2t_jax.evaluation.rows import Rows
from medm2t_jax.inference.predicting import Predicted
from tests.support import fake_batch

COUNT = 600
SCHEMA = dataclasses.replace(fake_batch.schema(), attributes=('sex',))
VARIABLE = {
  'modality': 'labs', 'code': '1', 'name': '<b>Sodium</b>', 'unit': 'mmol/L',
  'samples': 300, 'share': 0.5, 'training_share': 0.9, 'drift': -1.25,
}  # fmt: skip


def made(target=SCHEMA.target, seed=0):
  """A model that is overconfident and predicts too low, on data of a hundred subjects."""
  rng = np.random.default_rng(seed)
  truth = rng.normal(0, 2, COUNT)
  if target.numeric:
    label = np.exp(truth / 2)
    prediction = 0.5 * label + rng.normal(1, 0.1, COUNT)
  else:
    label = (rng.random(COUNT) < special.expit(truth)).astype(float)
    p = special.expit(2 * truth - 1.5)
    prediction = np.stack([1 - p, p], axis=1)
  index = {
    'sample_id': np.arange(COUNT),
    'subject_id': np.repeat(np.arange(COUNT // 4), 4),
    'label': label,
    'weight': np.ones(COUNT),
    'sex': np.array(['F', 'M'] * (COUNT // 2), object),
    **{f'n_{name}': np.ones(COUNT, int) for name in SCHEMA.modalities},
  }
  schema = dataclasses.replace(SCHEMA, target=target)
  dataset = Dataset(Path('D'), schema, 'v', index, (), '00' * 16, {})
  coverage = {
    'coverage': 0.8,
    'variables': [VARIABLE],
    'absent': [{'modality': 'ecg', 'code': 'x', 'name': 'x', 'reason': 'none'}],
    'ignored': [{'modality': 'labs', 'code': '9', 'name': '<i>', 'reason': 'unknown'}],
    'overlap': 'cannot be tested',
    'notes': ['The model was trained on another window.'],
  }
  rows = Rows(
    target, index['sample_id'], index['subject_id'], np.zeros(COUNT, int), label,
    np.ones(COUNT), prediction, {}, {},
  )  # fmt: skip
  pooled = score(rows, 20)
  model = SimpleNamespace(schema=schema, tests={'pooled': pooled, 'calibration': {}})
  return model, dataset, Predicted(np.arange(COUNT), prediction, coverage)


@pytest.fixture(scope='module')
def found():
  return external.compute(*made(), resamples=50)


def test_metrics_are_those_of_an_evaluation(found):
  model, _, _ = made()
  expected = model.tests['pooled']['overall']['auroc']['value']
  assert found['here']['overall']['auroc']['value'] == expected
  assert found['there']['overall']['auroc']['value'] == expected
  assert found['headline'] == 'auroc'


def test_recalibration_is_a_logistic_regression_on_a_fifth_of_the_subjects(found):
  _, dataset, predicted = made()
  of = found['recalibration']
  assert of['fitted_on']['subjects'] == 30 and of['measured_on']['subjects'] == 120
  subjects = np.unique(dataset.index['subject_id'])
  chosen = np.random.default_rng(0).permutation(subjects)[:30]
  inside = np.isin(dataset.index['subject_id'], chosen)
  logit = special.logit(predicted.predictions[:, 1])[:, None]
  label = dataset.index['label']
  oracle = LogisticRegression(C=np.inf).fit(logit[inside], label[inside])
  p = oracle.predict_proba(logit[~inside])
  rest = -np.log(p[np.arange(len(p)), label[~inside].astype(int)]).mean()
  versions = of['versions']
  np.testing.assert_allclose(
    versions['intercept and slope']['log_loss']['value'], rest, rtol=1e-4
  )
  order = ('as predicted', 'intercept', 'intercept and slope')
  losses = [versions[name]['log_loss']['value'] for name in order]
  assert losses[0] > losses[1] > losses[2]


def test_nobody_who_is_measured_recalibrates():
  model, dataset, predicted = made()
  subjects = np.unique(dataset.index['subject_id'])
  chosen = np.random.default_rng(0).permutation(subjects)[:30]
  inside = np.isin(dataset.index['subject_id'], chosen)
  rows = external._rows(model, dataset, predicted)
  one = external.recalibration(rows.take(inside), slope=True)(predicted.predictions)
  dataset.index['label'] = np.where(inside, dataset.index['label'], 0.0)
  again = external._rows(model, dataset, predicted)
  two = external.recalibration(again.take(inside), slope=True)(predicted.predictions)
  np.testing.assert_array_equal(one, two)


def test_days_are_recalibrated_by_a_line():
  found = external.compute(*made(Target('regression', unit='days', low=0.0)), resamples=20)
  versions = found['recalibration']['versions']
  order = ('as predicted', 'intercept', 'intercept and slope')
  errors = [versions[name]['rmse']['value'] for name in order]
  assert errors[0] > errors[2] and errors[1] > errors[2]
  assert versions['intercept and slope']['slope']['value'] == pytest.approx(1, abs=0.05)
  assert 'RMSE (days)' in external.render(found)


def test_too_few_events_recalibrate_nothing():
  model, dataset, predicted = made()
  dataset.index['label'] = (np.arange(COUNT) % 60 == 0).astype(float)
  found = external.compute(model, dataset, predicted, resamples=20)
  assert list(found['recalibration']['versions']) == ['as predicted']
  assert 'nothing is fitted' in external.render(found)


def test_samples_without_a_label_do_not_count():
  model, dataset, predicted = made()
  label = dataset.index['label'].copy()
  dataset.index['label'] = np.where(np.arange(COUNT) < 300, label, np.nan)
  found = external.compute(model, dataset, predicted, resamples=20)
  assert found['here']['counts']['n'] == 300
  dataset.index['label'] = np.full(COUNT, np.nan)
  with pytest.raises(DataError, match='no predicted sample has a label'):
    external.compute(model, dataset, predicted)


def test_the_page_escapes_what_the_data_say(found):
  page = external.render(found)
  assert '<b>Sodium' not in page and '&lt;b&gt;Sodium&lt;/b&gt;' in page
  assert '&lt;i&gt;' in page and '−1.25' in page
  assert 'cannot be tested' in page and '1 of the 1 variables' in page
  assert 'trained on another window' in page
  assert "default-src 'none'" in page and '<script' not in page


def test_every_section_of_the_page_begins_with_a_verdict(found):
  page = external.render(found)
  shown = re.findall(r'<section id="(\w+)"><h2>[^<]+</h2>\n<p class="verdict">[^<]', page)
  assert shown == ['discrimination', 'calibration', 'coverage', 'subgroups']
  tables = re.findall(r'<table>.*?</table>', page, re.DOTALL)
  assert all('text/csv' in each for each in tables) and len(tables) >= 5
  less = found['recalibration']['versions']['intercept and slope']['log_loss']['value']
  assert f'{less:.3f}' in page and 'it gains' in page
