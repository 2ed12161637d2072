"""Every experiment and variant: complete, locked, and repeated exactly by its record."""

from __future__ import annotations

import json
import statistics

import pytest

from configs import common, cvd, los, mortality, physionet2012, replay, task
from data_pipeline.format.schema import Target
from medm2t_jax.experiment import read
from medm2t_jax.experiment.validation import require_recipe
from medm2t_jax.runs import workdir
from medm2t_jax.training.losses import make_loss
from medm2t_jax.training.optimizer import make_optimizer
from tests.support import fake_batch

EXPERIMENTS = [cvd, mortality, los, physionet2012]
VARIANTS = [
  None, 'small', 'smoke', 'small,smoke', 'end_to_end', 'small,end_to_end', 'published',
  'small,published',
]  # fmt: skip
every_config = pytest.mark.parametrize('module', EXPERIMENTS)
every_variant = pytest.mark.parametrize('variant', VARIANTS)


@every_config
@every_variant
def test_a_replayed_config_is_the_original(module, variant, tmp_path):
  config = module.get_config(variant)
  workdir.claim(tmp_path, read(config), 'v1')
  replayed = replay.get_config(str(tmp_path / 'config.json'))
  assert replayed.is_locked and replayed.data.version == 'v1'
  with replayed.unlocked():
    replayed.data.version = ''
  # Tuples are no lists here, and integers no floats.
  assert repr(replayed.to_dict()) == repr(config.to_dict())
  assert replayed == config


def test_a_replay_may_go_on_in_the_same_workdir(tmp_path):
  workdir.claim(tmp_path, read(cvd.get_config('small')), 'v1')
  replayed = replay.get_config(str(tmp_path / 'config.json'))
  workdir.claim(tmp_path, read(replayed), 'v1')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda fields: fields['model'].pop('size'), 'model.size is missing'),
    (lambda fields: fields['recipe']['labs'].update(rate=1), 'recipe.labs.rate is unknown'),
    (lambda fields: fields.clear(), 'task is missing'),
  ],
)
def test_a_record_of_another_version_is_refused(tmp_path, change, message):
  fields = json.loads(cvd.get_config().to_json())
  change(fields)
  path = tmp_path / 'config.json'
  path.write_text(json.dumps(fields))
  with pytest.raises(ValueError, match=message):
    replay.get_config(str(path))


def test_what_is_no_record_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r'replay\.py:W/config\.json'):
    replay.get_config()
  path = tmp_path / 'config.json'
  path.write_text('{')
  with pytest.raises(ValueError, match='not valid JSON'):
    replay.get_config(str(path))


@every_config
@pytest.mark.parametrize('size', [None, 'small', 'smoke'])
def test_end_to_end_trains_the_multimodal_model_alone(module, size):
  staged = module.get_config(size)
  config = module.get_config(','.join(filter(None, [size, 'end_to_end'])))
  rates = [
    staged.recipe[name].learning_rate for name in staged.recipe.multimodal.starts_from
  ]
  multimodal = config.recipe.multimodal
  assert (config.stages, multimodal.starts_from) == ('multimodal', ())
  assert multimodal.learning_rate == statistics.median(rates)
  assert config.name != staged.name
  assert config.model.single_stages == 'none'
  # Nothing else differs.
  with config.unlocked():
    config.stages, config.name = staged.stages, staged.name
    config.recipe.multimodal = staged.recipe.multimodal
    config.model.single_stages = staged.model.single_stages
  assert config == staged


@every_config
def test_every_recipe_suits_the_task_and_makes_an_optimizer(module):
  config = read(module.get_config())
  target = fake_batch.schema(config.task).target
  for stage, recipe in config.recipe.items():
    require_recipe(recipe, target, stage)
    make_loss(recipe, target)
    make_optimizer(recipe, stage, 100)


def test_an_unknown_field_of_a_stage_is_refused():
  with pytest.raises(TypeError, match='learing_rate'):
    common.stage(8, 1e-3, learing_rate=1)


@pytest.mark.parametrize('target', ['binary', 'multiclass', 'multilabel', 'regression'])
def test_the_config_of_any_task_suits_every_target(target):
  classes = {'binary': 2, 'multiclass': 3, 'multilabel': 4, 'regression': 0}[target]
  made = Target(target, tuple('abcd'[:classes]))
  for variant in ('sepsis', 'sepsis,base', 'sepsis,paper', 'sepsis,smoke'):
    config = task.get_config(variant)
    assert config.is_locked and config.task == 'sepsis'
    for stage, recipe in read(config).recipe.items():
      require_recipe(recipe, made, stage)
      make_loss(recipe, made)


@pytest.mark.parametrize('variant', [None, '', 'Sepsis', 'aki,published', 'aki,base,paper'])
def test_a_task_without_a_name_or_with_another_variant_is_refused(variant):
  with pytest.raises(ValueError, match=r'configs/task\.py'):
    task.get_config(variant)
