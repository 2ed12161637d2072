"""Subgroups and scenarios with fewer modalities."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data_pipeline.format.schema import DataError
from medm2t_jax.evaluation.missing_modality import missing_modality
from medm2t_jax.evaluation.rows import read_rows
from medm2t_jax.evaluation.subgroups import subgroups


def test_groups_partition_the_samples(predictions, context):
  rows, _ = read_rows(predictions('mortality', 600), context('mortality').schema)
  result = {each['by']: each['groups'] for each in subgroups(rows, resamples=20)}
  assert {'age (years)', 'sex', 'race', 'ecg data', 'data that are present'} <= set(result)
  for groups in result.values():
    assert sum(group['n'] for group in groups) == 600
  for group in result['sex']:
    member = rows.attributes['sex'] == group['name']
    expected = roc_auc_score(rows.label[member], rows.prediction[member, 1])
    assert group['figure']['value'] == pytest.approx(expected)
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
  assert none['figure']['value'] == 0.5
  assert none['difference']['high'] < 0


def test_scenario_of_other_rows_is_refused(predictions, context):
  rows, _ = read_rows(predictions('mortality', 40), context('mortality').schema)
  with pytest.raises(DataError, match='scenario labs: predictions of shape'):
    missing_modality(rows, {'labs': np.full((39, 2), 0.5)}, resamples=5)
