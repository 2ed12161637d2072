"""Subgroups and scenarios with fewer modalities."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from data_pipeline.format.schema import DataError
from medm2t_jax.evaluation.reporting import write_report
from medm2t_jax.evaluation.rows import read_rows
from medm2t_jax.evaluation.sections.missing_modality import missing_modality
from medm2t_jax.evaluation.sections.subgroups import subgroups


def test_groups_partition_the_samples(predictions, context):
  rows, _ = read_rows(predictions('mortality', 600), context('mortality').schema)
  result = {each['by']: each['groups'] for each in subgroups(rows, resamples=20)}
  assert {'age (years)', 'sex', 'race', 'ecg data', 'data that are present'} <= set(result)
  for groups in result.values():
    assert sum(group['n'] for group in groups) == 600
  for group in result['sex']:
    member = rows.attributes['sex'] == group['name']
    expected = roc_auc_score(rows.label[member], rows.prediction[member, 1])
    assert group['metric']['value'] == pytest.approx(expected)
  names = [group['name'] for group in result['age (years)']]
  assert names == ['18–44', '45–64', '65–74', '75–84', '85 and above', 'unknown']


def test_small_groups_carry_a_warning_and_rare_levels_are_pooled(predictions, context):
  rows, _ = read_rows(predictions('mortality', 600), context('mortality').schema)
  rows.attributes['race'][:] = [f'level {i % 20 if i < 60 else 0}' for i in range(600)]
  result = {each['by']: each['groups'] for each in subgroups(rows, resamples=10)}
  race = {group['name']: group for group in result['race']}
  assert len(race) == 9
  assert race['12 smaller groups']['n'] == 36
  assert race['level 0']['warning'] is None
  assert 'fewer than 100 samples' in race['level 1']['warning']
  few = 'fewer than 100 samples and 10 cases of the rarest class'
  assert race['level 1']['warning'] == few


def test_differences_are_paired(predictions, context):
  rows, _ = read_rows(predictions('mortality', 300), context('mortality').schema)
  same, none = missing_modality(
    rows, {'same': rows.prediction, 'nothing': np.full((300, 2), 0.5)}, resamples=100
  )
  assert same['difference']['value'] == 0
  assert same['difference']['low'] == same['difference']['high'] == 0
  assert none['metric']['value'] == 0.5
  assert none['difference']['high'] < 0


def test_scenario_of_other_rows_is_refused(predictions, context):
  rows, _ = read_rows(predictions('mortality', 40), context('mortality').schema)
  with pytest.raises(DataError, match='scenario labs: predictions have shape'):
    missing_modality(rows, {'labs': np.full((39, 2), 0.5)}, resamples=5)


def test_small_groups_are_folded_away(tmp_path, predictions, context):
  about = context('mortality', 600, sections=['subgroups'])
  metrics = write_report(tmp_path, predictions('mortality', 600), *about, resamples=5)
  page = (tmp_path / 'report.html').read_text()
  shown, _, folded = page.partition('<details>')
  groups = [group for each in metrics['subgroups'] for group in each['groups']]
  small = [group for group in groups if group['warning']]
  assert f'<summary>{len(small)} groups too small to judge alone</summary>' in folded
  assert 'fewer than' in folded and 'fewer than' not in shown
  assert 0 < len(small) < len(groups)


def test_tables_and_curves_can_be_saved_as_csv(tmp_path, predictions, context):
  table = predictions('mortality', 300)
  about = context('mortality', 300, sections=['discrimination', 'subgroups'])
  metrics = write_report(tmp_path, table, *about, resamples=5)
  page = (tmp_path / 'report.html').read_text()
  saved = {
    name: pd.read_csv(io.StringIO(base64.b64decode(data).decode()))
    for name, data in re.findall(
      r'download="([a-z0-9_]+)\.csv" href="data:text/csv;base64,([^"]+)"', page
    )
  }
  test = table.to_pandas().query('split == "test"')
  curve = saved['roc_curve_died']
  area = np.trapezoid(curve.iloc[:, 2], curve.iloc[:, 1])
  assert area == pytest.approx(roc_auc_score(test.label, test.p1), abs=1e-4)
  shown = saved['one_class_against_the_rest_all_test_samples'].set_index('Unnamed: 0')
  auroc = metrics['pooled']['classes']['died']['auroc']
  assert float(shown.loc['AUROC', 'Value']) == pytest.approx(auroc['value'], abs=5e-4)
