"""A fold without a model: a data set with all modalities, predicted by a cheap sum."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np

from data_pipeline.reading.batching import Batching
from medm2t_jax.experiment.model_config import model_config
from medm2t_jax.runs.reader import Reader
from medm2t_jax.runs.splits import Splits
from tests.support import fake_batch


class StandIn:
  """A fold that reads a data set and has no model."""

  def __init__(self, dataset):
    self.dataset, self.fold, self.name = dataset, 0, 'fold 0'
    self.splits = Splits(dataset, 0)
    batching = Batching(({'labs': 32, 'notes': 32},), 3, 3.0)
    self.config = SimpleNamespace(
      seed=0, evaluation=SimpleNamespace(batch_size=8), data=batching
    )
    self.reader = Reader(dataset, batching)
    options = dataclasses.replace(fake_batch.OPTIONS, segment_lengths=(2,))
    self.model_config = model_config('mortality', options, dataset.schema)
    self.statistics = {
      name: {
        'knots': np.linspace(-1, 1, 12 * len(each.variables)).reshape(-1, 12),
        'scale': np.ones(len(each.variables)),
      }
      for name, each in dataset.schema.modalities.items()
    }

  def modalities_of(self, stage):
    del stage
    return self.dataset.schema.names

  def plan(self, split, modalities, batch_size):
    return self.reader.plan(self.splits.rows(split), modalities, batch_size)


def predictor(batch):
  """A model that is a sum over everything that a sample has."""
  total = np.zeros(batch['row'].shape)
  for name in ('labs', 'notes'):
    arrays = batch[name]
    each = np.cos(arrays['time']) * (1 + arrays['item'] + arrays['value'])
    total += (each * arrays['mask']).sum(axis=-1)
  total += batch['vitals']['value'].sum(axis=(2, 3)) / 80
  total += batch['static']['numeric'].sum(axis=2) / 80
  ecg = batch['ecg']
  ramp = np.arange(1.0, 13.0)
  each = np.abs(ecg['signal']).mean(axis=2) @ ramp / np.maximum(ecg['gain'], 1)
  for device, slot in np.argwhere(ecg['mask']):
    total[device, ecg['owner'][device, slot]] += each[device, slot]
  return np.stack([np.zeros_like(total), np.tanh(total / 50)], axis=-1)
