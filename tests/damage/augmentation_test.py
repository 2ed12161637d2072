"""Training samples are damaged at random, each on its own, and nobody else is."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from data_pipeline.format.dataset import open_dataset
from medm2t_jax.damage import augmentation
from medm2t_jax.damage.curves import curves
from medm2t_jax.experiment import read
from medm2t_jax.runs.restoring import restore_best
from medm2t_jax.runs.run import Run
from medm2t_jax.training import train
from tests.support import static_data
from tests.support.damaged_batches import (
  MODALITIES,
  SCHEMA,
  assert_contract,
  assert_equal,
  events_of,
  recordings_of,
  two_devices,
)

SPREAD = {
  name: {
    'knots': np.tile(np.linspace(-1, 1, 12), (8, 1)),
    'scale': np.ones(8),
  }
  for name in SCHEMA.names
}


def damaged(batch, rate=0.2, seed=0):
  return augmentation.augmented(batch, MODALITIES, SPREAD, rate, seed)


def test_samples_are_damaged_at_the_rate_and_others_stay_as_they_are():
  kinds = sum(each.in_training for each in curves(MODALITIES, SPREAD, 0))
  changed = count = 0
  for seed in range(20):
    batch = two_devices(seed)
    found = damaged(batch, rate=0.05, seed=seed)
    assert_contract(found, batch)
    assert_equal(found['static'], batch['static'])
    for device in range(2):
      for row in np.flatnonzero(batch['row'][device] >= 0):
        parts = [
          (
            [events_of(each, name, device, row) for name in ('labs', 'vitals_categorical')],
            each['vitals']['value'][device, row].tolist(),
            recordings_of(each, device, row),
          )
          for each in (found, batch)
        ]
        changed += parts[0] != parts[1]
        count += 1
  # A level that finds nothing to damage changes nothing.
  assert 0.1 < changed / count <= 1 - (1 - 0.05) ** kinds + 0.1


def test_damage_follows_the_sample_and_the_seed():
  batch = two_devices()
  assert_equal(damaged(batch), damaged(batch))
  assert not np.array_equal(
    damaged(batch, seed=1)['vitals']['value'], damaged(batch)['vitals']['value']
  )
  other = two_devices(seed=3)
  other['row'] = np.where(other['row'] >= 0, other['row'] + 1000, -1).astype(np.int32)
  mixed = {**other, 'row': np.array(other['row'])}
  mixed['row'][1, 2] = batch['row'][0, 0]
  for name in ('labs', 'vitals'):
    mixed[name] = {key: np.array(array) for key, array in other[name].items()}
    for key, array in mixed[name].items():
      array[1, 2] = batch[name][key][0, 0]
  alone, among = damaged(batch, 0.9), damaged(mixed, 0.9)
  assert events_of(among, 'labs', 1, 2) == events_of(alone, 'labs', 0, 0)
  assert_equal(among['vitals']['value'][1, 2], alone['vitals']['value'][0, 0])


def test_a_stage_of_one_modality_is_damaged_too():
  batch = two_devices()
  labs = {'row': batch['row'], 'labs': batch['labs']}
  assert_equal(damaged(labs)['labs'], damaged(batch)['labs'])


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
  return open_dataset(static_data.build(tmp_path_factory.mktemp('data'), events=('labs',)))


def trained(dataset, folder, rate):
  options = static_data.config(dataset.directory)
  options.stages = 'labs'
  options.augmentation = rate
  options.data.buckets = ({'labs': 16},)
  options.recipe.labs.update(batch_size=16, epochs=2)
  run = Run(read(options), dataset, 0, folder)
  train.train_stage(run, 'labs')
  record = run.record('labs')
  assert record is not None
  return restore_best(run, 'labs')[0]['params'], record.history


def test_training_sees_damage_validation_does_not(dataset, tmp_path, monkeypatch):
  seen = {}
  augmented = augmentation.augmented

  def noted(batch, **options):
    seen.setdefault(options['seed'], set()).update(batch['row'][batch['row'] >= 0])
    return augmented(batch, **options)

  monkeypatch.setattr(augmentation, 'augmented', noted)
  plain, _ = trained(dataset, tmp_path / 'plain', 0.0)
  assert not seen
  one, history = trained(dataset, tmp_path / 'one', 0.5)
  assert len(seen) == len(history) == 2, 'another seed in every epoch'
  training = set(
    dataset.rows(0, 'train')[dataset.lengths('labs')[dataset.rows(0, 'train')] > 0]
  )
  assert all(rows == training for rows in seen.values())
  again, _ = trained(dataset, tmp_path / 'again', 0.5)
  assert_equal(one, again)
  differs = jax.tree.map(lambda a, b: not np.array_equal(a, b), one, plain)
  assert any(jax.tree.leaves(differs))
