"""Slopes on the planted effects of predictions whose slopes are known."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import special

from benchmarks.planted_effects import planted_effects
from data_pipeline.format.schema import DataError
from data_pipeline.sources.mimic_iv.tasks import phenotypes
from data_pipeline.sources.simulated.best_possible import first_stays
from data_pipeline.sources.simulated.hospitals import HOSPITALS
from data_pipeline.sources.simulated.outcomes import conditions
from data_pipeline.sources.simulated.outcomes import truth as outcomes

PATIENTS = 400


@pytest.fixture(scope='module')
def truth():
  return first_stays(0, PATIENTS)


def write(directory, name, samples, columns):
  """Test predictions in two folds."""
  for fold in range(2):
    here = np.arange(fold, len(samples), 2)
    file = directory / f'fold{fold}' / 'baselines' / f'{name}.parquet'
    file.parent.mkdir(parents=True, exist_ok=True)
    columns_here = {column: values[here] for column, values in columns.items()}
    pq.write_table(pa.table({'sample_id': samples[here], **columns_here}), file)


def risk(log_odds):
  return {'p1': special.expit(log_odds)}


def workdir(directory, task, source='simulated'):
  config = {
    'task': task,
    'data': {'dir': source, 'simulated_seed': 0, 'simulated_patients': PATIENTS},
  }
  directory.mkdir(parents=True, exist_ok=True)
  (directory / 'config.json').write_text(json.dumps(config))
  return directory


def test_slopes_say_which_effect_a_model_has_found(truth, tmp_path):
  run = workdir(tmp_path, 'mortality')
  stays = truth['stay_id']
  noise = np.random.default_rng(0).normal(size=len(stays))
  write(run, 'multimodal', stays, risk(truth['swing'] - truth['drift'] - 2))
  write(run, 'single_labs', stays, risk(noise))
  blind = workdir(run / 'ablations' / 'without_vitals', 'mortality')
  write(blind, 'multimodal', stays, risk(truth['drift']))
  write(blind, 'single_labs', stays, risk(noise))
  unfinished = workdir(run / 'ablations' / 'windows_1', 'mortality')
  write(unfinished, 'multimodal', stays, risk(noise))
  (unfinished / 'fold1/baselines/multimodal.parquet').unlink()
  found = planted_effects(run)
  assert (found['task'], found['folds']) == ('mortality', 2)
  models = found['models']
  ablated = {'without_vitals', 'without_vitals, single_labs'}
  assert set(models) == {'multimodal', 'truth', 'single_labs', *ablated}
  slopes = {
    name: [each[effect]['value'] for effect in ('swing', 'drift', 'pairing')]
    for name, each in models.items()
  }
  np.testing.assert_allclose(slopes['multimodal'], [0.7, -0.7, 0], atol=0.1)
  np.testing.assert_allclose(slopes['without_vitals'], [0, 1, 0], atol=0.1)
  assert min(slopes['truth']) > 0.3
  for effect in ('swing', 'drift', 'pairing'):
    metric = models['single_labs'][effect]
    assert metric['low'] < 0 < metric['high']
    difference = models['without_vitals'][effect]['difference']['value']
    full, other = slopes['multimodal'], slopes['without_vitals']
    index = ('swing', 'drift', 'pairing').index(effect)
    np.testing.assert_allclose(difference, other[index] - full[index])
  assert models['truth']['auroc']['low'] > models['single_labs']['auroc']['high']


def test_days_are_ranked(truth, tmp_path):
  run = workdir(tmp_path, 'los')
  write(run, 'multimodal', truth['stay_id'], {'prediction': truth['days'] ** 2})
  models = planted_effects(run)['models']
  np.testing.assert_allclose(
    models['multimodal']['rank_correlation']['value'], 1, atol=0.01
  )
  assert 0.2 < models['truth']['rank_correlation']['value'] < 0.7


def test_a_stay_of_many_samples_counts_as_one(tmp_path):
  """A model that knows severity, and of the longer stays only noise."""
  known = outcomes.decompensation(0, PATIENTS, HOSPITALS['a'])
  _, stay, count = np.unique(known.patient, return_inverse=True, return_counts=True)
  long = count[stay] > np.median(count)
  noise = np.random.default_rng(0).normal(size=len(long))
  run = workdir(tmp_path, 'decompensation')
  severity = known.effects['severity']
  write(run, 'multimodal', known.sample_id, risk(np.where(long, noise, severity)))
  models = planted_effects(run)['models']
  # By samples, four in five are of the longer half of the stays.
  assert long.mean() > 0.75
  assert 0.4 < models['multimodal']['severity']['value'] < 0.65
  assert models['truth']['severity']['low'] > 0
  assert abs(models['multimodal']['swing']['value']) < 0.15


def test_every_label_is_asked_for_its_cause(tmp_path):
  known = outcomes.phenotypes(0, PATIENTS, HOSPITALS['a'])
  run = workdir(tmp_path, 'phenotypes')
  columns = [special.expit(known.effects['renal'])] * len(known.names)
  named = {f'p{index}': column for index, column in enumerate(columns)}
  write(run, 'multimodal', known.sample_id, named)
  labels = planted_effects(run)['labels']
  assert list(labels) == [each.phenotype for each in conditions.CONDITIONS]
  for each in conditions.CONDITIONS:
    models = labels[each.phenotype]
    slope = models['multimodal'][each.component]['value']
    assert abs(slope - (each.component == 'renal')) < 0.2, each
    assert models['truth'][each.component]['low'] > 0.3, each
  assert labels['Chronic kidney disease']['multimodal']['auroc']['low'] > 0.6
  assert known.names == phenotypes.names()


@pytest.mark.parametrize(
  ('task', 'patients', 'causes'),
  [('readmission', 150, ('failure', 'renal')), ('aki', 350, ('decline', 'scatter'))],
)
def test_further_outcomes_are_known(task, patients, causes, tmp_path):
  known = getattr(outcomes, task)(0, patients, HOSPITALS['a'])
  prepared = tmp_path / 'data'
  prepared.mkdir()
  request = {'source': 'simulated', 'seed': 0, 'patients': patients}
  (prepared / 'dataset.json').write_text(json.dumps({'request': request}))
  run = workdir(tmp_path / 'run', task, str(prepared))
  write(run, 'multimodal', known.sample_id, risk(special.logit(known.risk)))
  models = planted_effects(run)['models']
  for name in causes:
    assert models['truth'][name]['low'] > 0, name
  np.testing.assert_allclose(
    models['multimodal']['auroc']['value'], models['truth']['auroc']['value'], atol=0.02
  )
  write(run, 'multimodal', known.sample_id + 10**9, risk(special.logit(known.risk)))
  with pytest.raises(DataError, match='another version of the simulation'):
    planted_effects(run)


def test_other_runs_are_refused(tmp_path):
  with pytest.raises(DataError, match='decompensation, los, mortality'):
    planted_effects(workdir(tmp_path / 'cvd', 'cvd'))
  real = workdir(tmp_path / 'real', 'mortality', 'data/mimic')
  write(real, 'multimodal', np.arange(4), risk(np.arange(4.0)))
  with pytest.raises(DataError, match='hospital a of the simulation'):
    planted_effects(real)
  with pytest.raises(DataError, match='no test predictions'):
    planted_effects(workdir(tmp_path / 'empty', 'mortality'))
