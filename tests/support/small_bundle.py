"""A trained model that nobody has trained: made in seconds, for all that only predicts.

Its data are of MIMIC-IV, or of any other schema.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from configs import mortality
from data_pipeline.format.modalities import Events, Grid, Static, Waveform
from data_pipeline.format.schema import Item, Schema, Target
from data_pipeline.reading.batching import Batching
from data_pipeline.reading.padding import padding
from data_pipeline.sources.meds import mapping
from medm2t_jax import experiment
from medm2t_jax.experiment.model_config import model_config
from medm2t_jax.inference.example import invented
from medm2t_jax.inference.trained_model import STAGE, Member, TrainedModel, with_answer
from medm2t_jax.models.blend.weighted_sum import OURS
from medm2t_jax.models.medm2t import MedM2T
from medm2t_jax.runs.checkpoint import Lineage
from tests.support import fake_batch

MAPPING = 'mimic_iv'
BATCHING = Batching(buckets=({'labs': 8}, {'labs': 32}), max_recordings=2)
# Potassium, creatinine and lactate, which FHIR's tests send, are among them.
_LABS = ('50971', '50912', '50813', '50983', '51222', '51301')
_VITALS = ('220045', '220179', '220277')
_TERMS = ('426783006', '164889003')


def schema(target: Target | None = None) -> Schema:
  """Laboratory values, vital signs, static columns and ECGs of MIMIC-IV."""
  known = mapping.load(mapping.path_of(MAPPING))
  of = lambda variables: {each.item.itemid: each.item for each in variables}
  labs, vitals = of(known.events['labs'].variables), known.grids['vitals']
  signals, static = of(vitals.variables), of(known.static)
  return Schema(
    task='mortality',
    source='mimic_iv',
    target=target
    or Target(
      'binary',
      ('survived', 'died'),
      description='death in hospital',
      horizon='before discharge',
    ),
    modalities={
      'static': Static((Item('age', 'Age', 'years', low=0),), (static['gender'],)),
      'labs': Events(tuple(labs[code] for code in _LABS)),
      'vitals': Grid(
        tuple(signals[code] for code in _VITALS), vitals.steps, vitals.step_hours
      ),
      'ecg': Waveform(_TERMS),
    },
    attributes=(),
    observation_hours=24.0,
  )


def model(
  target: Target | None = None,
  of: Schema | None = None,
  batching: Batching = BATCHING,
  members: int = 1,
  blended: bool = False,
  **changes: Any,
) -> TrainedModel:
  """The model with its answer, unsaved: random variables, and fitted state of no data.

  Args:
    target: of the schema above.
    of: another schema in its place.
    batching: with the lengths of its padded modalities.
    members: networks of the ensemble, each with other variables.
    blended: each in a blend with trees and a linear model of classes, likewise random.
    changes: of the options of the model.
  """
  options = dataclasses.replace(
    experiment.read(mortality.get_config('small')).model,
    size='tiny',
    trunk='decoder',
    fusion='none',
    single_stages='none',
    segment_lengths=(12,),
  )
  options = dataclasses.replace(options, **changes)
  of = of or schema(target)
  config = model_config(of.task, options, of)
  example = padding(of, modalities=of.names, batching=batching, rows=1)
  network = MedM2T(config)
  init = lambda: network.init(jax.random.key(0), example, stage=STAGE, train=False)
  shapes = jax.eval_shape(init)
  whole = TrainedModel(
    schema=of,
    options=options,
    batching=batching,
    batch_size=8,
    members=tuple(_member(config, shapes, seed, blended) for seed in range(members)),
    found={name: [0.9] * len(each.variables) for name, each in of.modalities.items()},
    key_fingerprint='none',
    tests={},
    card='# Model card\n\nOf a test.\n',
    example=invented(of, batching),
    answer=np.empty(0),
    version='0123456789abcdef',
  )
  return with_answer(whole)


def _member(config: Any, shapes: Any, seed: int, blended: bool) -> Member:
  made = {'batch_stats': {}, **fake_batch.variables(shapes, seed)}
  # Random parameters hardly pass on what a sample says.
  for name, part in made['params'].items():
    if name.startswith('trunks_'):
      part['head'] *= 20
  made['fitted'] = jax.tree_util.tree_map_with_path(_fitted, made['fitted'])
  blend = random_blend(config, seed) if blended else None
  return Member(made, blend, Lineage(0, frozenset(), frozenset(), '', '', {}))


def _fitted(path: tuple[Any, ...], array: np.ndarray) -> np.ndarray:
  """Something that a fit may have given."""
  name = path[-1].key
  if 'seen' in name:
    return np.ones_like(array)
  if 'knots' in name:
    return np.broadcast_to(np.linspace(0, 200, array.shape[-1]), array.shape).astype('f4')
  if 'cuts' in name:
    return np.linspace(-20, -1, array.size).reshape(array.shape).astype('f4')
  if 'scale' in name:
    return np.full_like(array, 1 if name == 'output_scale' else 30)
  if 'weights' in name:
    return np.full_like(array, 1 / array.size)
  return np.full_like(array, 50 if name.endswith('center') else 0)


def random_blend(config: Any, seed: int) -> dict[str, Any]:
  """Random trees, more for a higher seed, and a linear model beside a network."""
  rng = np.random.default_rng(seed)
  columns, outputs = sum(kind.count for _, kind in config.columns), config.outputs
  weights = {OURS: 0.5, 'boosted_trees': 0.3, 'logistic_regression': 0.2}
  return {
    'weights': {name: np.float32(weight) for name, weight in weights.items()},
    'prior': np.log(np.full(outputs, 1 / outputs, np.float32)),
    'models': {
      'boosted_trees': _trees(rng, columns, outputs, count=3 + seed),
      'logistic_regression': _linear(rng, columns, outputs),
    },
  }


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
    'cover': np.tile(np.array([100, 40, 60, 25, 35], np.float32), count),
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
    'missing_share': np.full(columns, 0.3, np.float32),
    'intercept': normal(outputs),
  }
