"""A modality of a known kind under a name that no config and no table knows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from configs import common, mortality
from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.modalities import Events, Grid, Static, Waveform
from data_pipeline.format.schema import DataError, Item, Schema
from medm2t_jax.experiment import read
from medm2t_jax.experiment.model_config import model_config
from medm2t_jax.modalities.windows import Windows
from medm2t_jax.runs.run import make_runs
from medm2t_jax.training import train
from medm2t_jax.training.starting import recipe_of, sources_of
from tests.support import fake_batch, kinds, static_data

ITEMS = fake_batch.schema().modalities['labs'].items


def with_new_ones():
  new = {'urine': Events(ITEMS), 'monitor': Grid(ITEMS[:2], 48, 0.5)}
  return kinds.replaced(fake_batch.schema(), **new)


@pytest.mark.parametrize('size', ['paper', 'small'])
def test_its_encoder_has_the_sizes_of_its_kind(size):
  model = model_config(
    'mortality', dataclasses.replace(fake_batch.OPTIONS, size=size), with_new_ones()
  )
  labs, urine = model.modality('labs').config, model.modality('urine').config
  assert (urine.width, urine.decoder) == (labs.width, labs.decoder)
  vitals, monitor = model.modality('vitals').config, model.modality('monitor').config
  assert (monitor.mlp, len(monitor.micro)) == (vitals.mlp, len(vitals.micro))
  assert {'urine', 'monitor_segments_12', 'monitor'} <= model.stages.keys()


def test_its_windows_are_of_the_observation_window():
  schema = with_new_ones()
  of = lambda schema: model_config('mortality', fake_batch.OPTIONS, schema).modality
  windows = of(schema)('urine').windows
  assert windows == Windows('hours', tuple(range(-21, 0, 3)))
  whole = Schema(**{**vars(schema), 'observation_hours': None})
  assert of(whole)('urine').windows == Windows('percentiles', (20.0, 40.0, 60.0, 80.0))
  assert of(whole)('labs').windows == of(schema)('labs').windows, 'those of the config'


def test_names_are_checked_where_the_data_set_is_prepared():
  for name in ('Urine', 'a-b', '9', 'label', 'multimodal'):
    with pytest.raises(DataError, match='modality'):
      kinds.replaced(fake_batch.schema(), **{name: Events(ITEMS)})
  with pytest.raises(DataError, match=r'recordings\.parquet'):
    kinds.replaced(fake_batch.schema(), ecg2=Waveform(()))
  with pytest.raises(DataError, match=r"'ecg_signal'.*differently"):
    schema = kinds.replaced(fake_batch.schema(), ecg_signal=Static((Item('a', 'a'),)))
    model_config('mortality', fake_batch.OPTIONS, schema)


def test_one_entry_of_the_config_trains_it(tmp_path):
  """Its name is in no config: recipe of its kind, default windows and padded length."""
  data = open_dataset(static_data.build(tmp_path, events=('notes',)))
  config = static_data.config(data.directory)
  config.stages = 'notes'
  del config.recipe['events']
  with pytest.raises(DataError, match=r"'notes'.* notes, events"):
    make_runs(read(config), data, tmp_path / 'without')
  config.recipe.events = common.stage(16, 1e-3, epochs=1)
  (run,) = make_runs(read(config), data, tmp_path / 'with')
  train.train([run])
  record = run.record('notes')
  assert record is not None and record.epochs == 1
  assert recipe_of(run, 'notes') == run.config.recipe['events']
  assert sources_of(run, 'multimodal') == ('static', 'notes')
  assert 'notes' not in mortality.get_config().recipe.multimodal.starts_from
  assert np.isfinite(record.validation_loss)
