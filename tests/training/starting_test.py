"""Which recipe a stage has, and which stages it continues from."""

from __future__ import annotations

import dataclasses

import pytest

from configs import mortality
from data_pipeline.format.schema import DataError
from medm2t_jax.experiment import default_data, read
from medm2t_jax.runs.run import Run
from medm2t_jax.training import train
from medm2t_jax.training.starting import recipe_of, sources_of


def run_of(dataset, tmp_path, lengths):
  config = read(mortality.get_config('small')).changed({'model.segment_lengths': lengths})
  chosen = default_data.only(dataset, ('static', 'vitals'))
  return Run(config, chosen, 0, tmp_path)


@pytest.mark.parametrize('lengths', [(2, 5), (3,), (1, 4, 6)])
def test_segments_of_any_length_have_a_recipe(dataset, tmp_path, lengths):
  run = run_of(dataset, tmp_path, lengths)
  stages = [f'vitals_segments_{length}' for length in lengths]
  assert [each for each in run.stages if each in stages] == stages
  assert list(sources_of(run, 'vitals')) == stages
  recipes = run.config.recipe
  for stage in stages:
    assert recipe_of(run, stage) == recipes.get(stage, recipes['vitals_segments'])
  assert not sources_of(run, stages[0])


def test_a_stage_without_a_recipe_is_named(dataset, tmp_path):
  run = run_of(dataset, tmp_path, (2, 6))
  recipe = {k: v for k, v in run.config.recipe.items() if k != 'vitals_segments'}
  run.config = dataclasses.replace(run.config, recipe=recipe)
  with pytest.raises(
    DataError,
    match=r"no entry for .* 'vitals_segments_2': .* vitals_segments, grid_segments",
  ):
    train.train([run])
