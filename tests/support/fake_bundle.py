"""A trained model of random variables: what needs a bundle and no training.

It reads modalities of `staging_fixture.SCHEMA`, one of every layout, and trees and a linear
model are in its blend.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from configs import mortality
from data_pipeline.format.schema import Schema, Target
from data_pipeline.reading.batching import Batching
from data_pipeline.reading.padding import padding
from medm2t_jax import experiment
from medm2t_jax.inference.example import invented
from medm2t_jax.inference.trained_model import STAGE, Member, TrainedModel, with_answer
from medm2t_jax.models.blend.weighted_sum import OURS
from medm2t_jax.models.medm2t import MedM2T
from medm2t_jax.runs.checkpoint import Lineage
from tests.support import fake_batch, staging_fixture

MODALITIES = ('static', 'labs', 'ecg')
BATCHING = Batching(
  buckets=({'labs': 16}, {'labs': 32}),
  max_recordings=2,
  recordings_per_row=1.0,
)


def fake_bundle(
  members: int = 2, target: Target = staging_fixture.SCHEMA.target, **options: Any
) -> TrainedModel:
  """A model with its answer, unsaved.

  Args:
    members: how many, each with other variables.
    target: of `staging_fixture.SCHEMA`, in place of its own.
    **options: of the model, in place of those of the smoke test.
  """
  schema = dataclasses.replace(staging_fixture.SCHEMA, target=target).only(MODALITIES)
  smoke = experiment.read(mortality.get_config('smoke')).model
  model = TrainedModel(
    schema=schema,
    options=dataclasses.replace(smoke, **options),
    batching=BATCHING,
    batch_size=8,
    members=(),
    found={name: [1.0] * len(schema.variables(name)) for name in schema.names},
    key_fingerprint='',
    tests={},
    card='',
    example=invented(schema, BATCHING),
    answer=np.empty(0),
  )
  made = tuple(_member(model, seed) for seed in range(members))
  return with_answer(dataclasses.replace(model, members=made))


def _member(model: TrainedModel, seed: int) -> Member:
  config = model.model_config
  network = MedM2T(config)
  init = lambda batch: network.init(jax.random.key(0), batch, stage=STAGE, train=False)
  shapes = jax.eval_shape(init, _padding(model.schema))
  variables = {'batch_stats': {}, **fake_batch.variables(shapes, seed)}
  rng = np.random.default_rng(seed)
  columns, outputs = sum(kind.count for _, kind in config.columns), config.outputs
  blend = {
    'weights': {
      name: np.float32(weight)
      for name, weight in (
        (OURS, 0.5),
        ('boosted_trees', 0.3),
        ('logistic_regression', 0.2),
      )
    },
    'prior': np.log(np.full(outputs, 1 / outputs, np.float32)),
    'models': {
      'boosted_trees': _trees(rng, columns, outputs, count=3 + seed),
      'logistic_regression': _linear(rng, columns, outputs),
    },
  }
  return Member(variables, blend, Lineage(0, frozenset(), frozenset(), '', '', {}))


def _padding(schema: Schema) -> dict[str, Any]:
  return padding(schema, modalities=schema.names, batching=BATCHING, rows=1)


def _trees(rng, columns: int, outputs: int, count: int) -> dict[str, np.ndarray]:
  """Trees of three leaves: nodes 1, 3 and 4 of five are leaves."""
  leaf = np.tile([False, True, False, True, True], count)
  nodes = 5 * count
  first = np.repeat(5 * np.arange(count), 5)
  left = first + np.tile([1, 1, 3, 3, 4], count)
  return {
    'feature': np.where(leaf, 0, rng.integers(columns, size=nodes)).astype(np.int32),
    'threshold': np.where(leaf, np.inf, rng.normal(size=nodes)).astype(np.float32),
    'missing_left': leaf | (rng.random(nodes) < 0.5),
    'left': left.astype(np.int32),
    'leaf_value': np.where(leaf, rng.normal(size=nodes), 0).astype(np.float32),
    'root': (5 * np.arange(count, dtype=np.int32))[:, np.newaxis],
    'depth': np.asarray(2, np.int32),
    'tree_class': np.array([outputs - 1], np.int32),
    'start': np.zeros(outputs, np.float32),
  }


def _linear(rng, columns: int, outputs: int) -> dict[str, np.ndarray]:
  normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
  return {
    'median': normal(columns),
    'mean': normal(columns),
    'scale': np.ones(columns, np.float32),
    'limit': np.asarray(5, np.float32),
    'coefficient': normal(columns, outputs) / columns,
    'missing_coefficient': normal(columns, outputs) / columns,
    'intercept': normal(outputs),
  }
