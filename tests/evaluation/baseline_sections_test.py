"""The report says who is better: planted winners and losers."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn import metrics as oracle

from data_pipeline.format.schema import DataError
from medm2t_jax.evaluation.reporting import write_report

SECTIONS = ('discrimination', 'baselines', 'card')


def _section(directory):
  page = (directory / 'report.html').read_text()
  section = page.split('<section id="baselines"')[1].split('</section>')[0]
  return re.sub(r'\s+', ' ', section.replace('\N{NO-BREAK SPACE}', ' '))


def _tested(table):
  frame = table.to_pandas()
  return frame[frame.split == 'test']


def _planted(task, tested):
  """A winner, a loser, and one that is nearly the model itself."""
  rng = np.random.default_rng(0)
  label = tested.label.to_numpy()
  if task == 'los':
    own = tested.prediction.to_numpy()
    noise = 0.01 * rng.normal(size=len(label))
    return {
      'logistic_regression': np.full(len(label), 30.0),
      'boosted_trees': label + noise,
      'gru': own + noise,
    }
  columns = [name for name in tested.columns if re.fullmatch(r'p\d', name)]
  own = tested[columns].to_numpy()
  scaled = lambda values: values / values.sum(axis=1, keepdims=True)
  return {
    'logistic_regression': scaled(rng.random(own.shape)),
    'boosted_trees': scaled(np.eye(own.shape[1])[label.astype(int)] + 0.01),
    'gru': scaled(own * np.exp(0.01 * rng.normal(size=own.shape))),
  }


@pytest.mark.parametrize(
  ('task', 'metric', 'linear'),
  [
    ('mortality', 'AUROC', 'logistic regression'),
    ('cvd', 'AUROC', 'logistic regression'),
    ('los', 'days of MAE', 'ridge regression'),
  ],
)
def test_the_section_says_who_is_better(
  task, metric, linear, tmp_path, predictions, context
):
  table = predictions(task, 400)
  planted = _planted(task, _tested(table))
  about = context(
    task, sections=SECTIONS, baselines=planted, left_out=['ecg alone: not trained.']
  )
  write_report(tmp_path, table, *about, resamples=100)
  section = _section(tmp_path)
  amount = rf'by \d\.\d+ \(\d\.\d+ to \d\.\d+\) {metric}\.'
  if task == 'los':
    amount = amount.replace(r'\d\.', r'\d+\.')
  assert re.search(
    rf'class="warning">Boosted trees are better than this model {amount}', section
  )
  assert re.search(rf'This model is better than {linear} {amount}', section)
  assert 'The GRU: no difference shown' in section
  assert 'Not compared: ecg alone: not trained.' in section
  assert section.index('Boosted trees are better') < section.index('<table')


def test_metrics_and_differences_are_those_of_sklearn(tmp_path, predictions, context):
  table = predictions('mortality', 400)
  tested = _tested(table)
  planted = _planted('mortality', tested)
  metrics = write_report(
    tmp_path,
    table,
    *context('mortality', sections=SECTIONS, baselines=planted),
    resamples=30,
  )
  assert [each['name'] for each in metrics['baselines']] == list(planted)
  for each in metrics['baselines']:
    for key, score in (
      ('auroc', oracle.roc_auc_score),
      ('average_precision', oracle.average_precision_score),
    ):
      theirs = score(tested.label, planted[each['name']][:, 1])
      assert each['metrics'][key]['value'] == pytest.approx(theirs)
      difference = theirs - score(tested.label, tested.p1)
      assert each['differences'][key]['value'] == pytest.approx(difference, abs=1e-9)
  # Paired: far narrower than the metrics' own intervals.
  near = metrics['baselines'][2]
  width = lambda estimate: estimate['high'] - estimate['low']
  assert width(near['differences']['auroc']) < width(near['metrics']['auroc']) / 5


def test_errors_in_days_are_those_of_sklearn(tmp_path, predictions, context):
  table = predictions('los', 200)
  tested = _tested(table)
  planted = _planted('los', tested)
  metrics = write_report(
    tmp_path, table, *context('los', sections=SECTIONS, baselines=planted), resamples=10
  )
  found = metrics['baselines'][0]['metrics']
  days = planted['logistic_regression']
  error = oracle.root_mean_squared_error(tested.label, days)
  assert found['rmse']['value'] == pytest.approx(error)
  absolute = oracle.mean_absolute_error(tested.label, days)
  assert found['mae']['value'] == pytest.approx(absolute)


def test_undefined_comparisons_say_why(tmp_path, predictions, context):
  table = predictions('mortality', 40, rate=0.0)
  planted = _planted('mortality', _tested(table))
  write_report(
    tmp_path,
    table,
    *context('mortality', sections=SECTIONS, baselines=planted),
    resamples=10,
  )
  section = _section(tmp_path)
  assert 'no comparison possible (no sample of class' in section
  assert 'better than' not in section


def test_predictions_of_other_rows_are_refused(tmp_path, predictions, context):
  about = context('mortality', sections=SECTIONS, baselines={'gru': np.full((39, 2), 0.5)})
  with pytest.raises(DataError, match='baseline gru: predictions have shape'):
    write_report(tmp_path, predictions('mortality', 40), *about, resamples=10)


def test_without_baselines_there_is_no_section(tmp_path, predictions, context):
  write_report(
    tmp_path,
    predictions('mortality', 40),
    *context('mortality', sections=SECTIONS),
    resamples=10,
  )
  assert 'Against baselines' not in (tmp_path / 'report.html').read_text()
