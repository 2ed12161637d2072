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
from data_pipeline.sources.simulated.best_possible import first_stays

PATIENTS = 400


@pytest.fixture(scope='module')
def truth():
  return first_stays(0, PATIENTS)


def write(directory, name, truth, predictions, column='p1'):
  """Test predictions in two folds."""
  for fold in range(2):
    here = np.arange(fold, len(truth['stay_id']), 2)
    file = directory / f'fold{fold}' / 'baselines' / f'{name}.parquet'
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {'sample_id': truth['stay_id'][here], column: predictions[here]}
    pq.write_table(pa.table(columns), file)


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
  noise = np.random.default_rng(0).normal(size=len(truth['swing']))
  write(run, 'multimodal', truth, special.expit(truth['swing'] - truth['drift'] - 2))
  write(run, 'single_labs', truth, special.expit(noise))
  blind = workdir(run / 'ablations' / 'without_vitals', 'mortality')
  write(blind, 'multimodal', truth, special.expit(truth['drift']))
  write(blind, 'single_labs', truth, special.expit(noise))
  unfinished = workdir(run / 'ablations' / 'windows_1', 'mortality')
  write(unfinished, 'multimodal', truth, special.expit(noise))
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
  write(run, 'multimodal', truth, truth['days'] ** 2, 'prediction')
  models = planted_effects(run)['models']
  np.testing.assert_allclose(
    models['multimodal']['rank_correlation']['value'], 1, atol=0.01
  )
  assert 0.2 < models['truth']['rank_correlation']['value'] < 0.7


def test_other_runs_are_refused(tmp_path):
  with pytest.raises(DataError, match='mortality or los'):
    planted_effects(workdir(tmp_path / 'cvd', 'cvd'))
  with pytest.raises(DataError, match='simulated'):
    planted_effects(workdir(tmp_path / 'real', 'mortality', 'data/mimic'))
  with pytest.raises(DataError, match='no test predictions'):
    planted_effects(workdir(tmp_path / 'empty', 'mortality'))
