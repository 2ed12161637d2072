"""What an experiment may name is what there is; it is said before anything is trained."""

from __future__ import annotations

import typing

import pytest

from configs import mortality
from data_pipeline.format.schema import DataError
from medm2t_jax import baselines
from medm2t_jax.experiment import options, read, validation
from medm2t_jax.experiment.model_config import model_config
from medm2t_jax.inference import blend
from medm2t_jax.training import optimizer
from tests.support import fake_batch


def test_every_name_of_the_options_is_one_that_exists():
  assert set(typing.get_args(options.Baseline)) == set(baselines.KNOWN)
  assert set(typing.get_args(options.Blended)) == set(blend.BASELINES)
  known = {*optimizer.COUPLED, *optimizer.DECOUPLED}
  assert set(typing.get_args(options.Optimizer)) == known


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'folds': '0,5'}, r"config\.folds='0,5'"),
    ({'stages': 'static,lab'}, r"config\.stages='static,lab': unknown 'lab'.*mean 'labs'"),
    ({'recipe.labs.loss': 'nl'}, r"config\.recipe\.labs\.loss='nl'.*mean 'nll'"),
    ({'recipe.labs.loss': 'squared'}, r"labs\.loss='squared' is not for this task"),
    ({'recipe.labs.select_by': 'mae'}, r"labs\.select_by='mae' is not for this task"),
    ({'recipe.labs.class_weights': (1.0,)}, r'labs\.class_weights.*2 classes'),
    ({'recipe.ecg.prior_correction': True}, r'ecg\.prior_correction corrects'),
  ],
)
def test_what_does_not_suit_the_data_set_is_refused(changes, message):
  schema = fake_batch.schema()
  experiment = read(mortality.get_config('small'))
  stages = model_config(experiment.task, experiment.model, schema).stages
  validation.require_suits(experiment, schema.target, stages)
  with pytest.raises(DataError, match=message):
    validation.require_suits(experiment.changed(changes), schema.target, stages)


@pytest.mark.parametrize('field', ['blend', 'evaluation.baselines'])
def test_an_unknown_baseline_is_one_clear_error(field):
  with pytest.raises(DataError, match=rf"{field}.*'boosted_tree'.*mean 'boosted_trees'"):
    read(mortality.get_config()).changed({field: ('boosted_tree',)})


def test_a_stage_without_a_recipe_is_refused_if_it_is_trained():
  schema = fake_batch.schema()
  experiment = read(mortality.get_config('small'))
  stages = model_config(experiment.task, experiment.model, schema).stages
  recipe = {name: each for name, each in experiment.recipe.items() if name != 'static'}
  without = experiment.changed({'recipe': recipe})
  validation.require_suits(without.changed({'stages': 'labs'}), schema.target, stages)
  with pytest.raises(DataError, match=r"config\.recipe has no entry for .*'static'"):
    validation.require_suits(without, schema.target, stages)
