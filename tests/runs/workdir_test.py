"""A workdir belongs to one configuration and one data set."""

from __future__ import annotations

import fnmatch
import json
import os

import pytest

from configs import cvd, los, mortality
from data_pipeline.format.schema import DataError
from medm2t_jax.experiment import read
from medm2t_jax.runs import workdir


def changed(**fields):
  return read(cvd.get_config('small')).changed(
    {name.replace('__', '.'): value for name, value in fields.items()}
  )


def test_the_same_configuration_may_come_back(tmp_path):
  workdir.claim(tmp_path, changed(), 'v1')
  workdir.claim(tmp_path, changed(folds='all', stages='labs'), 'v1')
  assert json.loads((tmp_path / 'config.json').read_text())['task'] == 'cvd'
  assert 'jax' in json.loads((tmp_path / 'environment.json').read_text())['packages']


@pytest.mark.parametrize(
  ('config', 'version', 'field'),
  [
    (changed(recipe__labs__learning_rate=0.5), 'v1', 'recipe.labs.learning_rate'),
    (changed(model__size='paper'), 'v1', 'model.size'),
    (changed(seed=3), 'v1', 'seed'),
    (changed(), 'v2', 'data.version'),
  ],
)
def test_another_configuration_is_refused_and_named(tmp_path, config, version, field):
  workdir.claim(tmp_path, changed(), 'v1')
  with pytest.raises(DataError, match=f'{field}=.*--workdir'):
    workdir.claim(tmp_path, config, version)


def test_a_data_set_is_its_version_and_not_its_place(tmp_path):
  for place in ('/disk/data', 'data', 'data/', '/elsewhere'):
    workdir.claim(tmp_path, changed(data__dir=place), 'v1')
    config = json.loads((tmp_path / 'config.json').read_text())
    assert config['data']['dir'] == place and config['data']['version'] == 'v1'
  with pytest.raises(DataError, match=r'data\.version='):
    workdir.claim(tmp_path, changed(data__dir='data'), 'v2')


def test_a_fold_of_a_workdir_has_one_writer_which_is_named(tmp_path):
  home = tmp_path / 'W'
  with workdir.held(home, [0, 2]), workdir.held(home, [1]):
    with (
      pytest.raises(DataError, match=rf'fold2\.lock: .*process {os.getpid()} on .*since'),
      workdir.held(home, [3, 2]),
    ):
      pass
    with workdir.held(home, [3]):  # it did not stay locked
      pass
  with workdir.held(home, [0, 1, 2, 3]):
    pass


@pytest.mark.parametrize('module', [cvd, mortality, los])
@pytest.mark.parametrize('variant', [None, 'small', 'smoke', 'small,smoke'])
def test_configs_are_locked_and_complete(module, variant):
  config = module.get_config(variant)
  with pytest.raises(AttributeError):
    config.model.sise = 'small'
  for name, recipe in config.recipe.items():
    for pattern in recipe.starts_from:
      found = fnmatch.filter(config.recipe, pattern)
      assert found and name not in found
  assert config.data.buckets
  with pytest.raises(ValueError, match='unknown variant'):
    module.get_config('tiny')
