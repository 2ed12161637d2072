"""A small schema and random batches, for tests of the model and what uses it.

The schema has all modalities of a task at tiny sizes; batches follow docs/design.md,
"The batch", without the device axis.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from configs import mortality
from data_pipeline.format.modalities import Events, Grid, Static, Waveform
from data_pipeline.format.modalities.waveform import ECG_MEASUREMENTS
from data_pipeline.format.schema import Item, Schema, Target
from medm2t_jax import experiment
from medm2t_jax.experiment.model_config import model_config
from medm2t_jax.models.config import ModelConfig
from tests.support import kinds

Batch = dict[str, Any]

# The published form: its parts have oracles. Pair vectors count at once.
OPTIONS = dataclasses.replace(
  experiment.read(mortality.get_config('small,published')).model, pairs_from_zero=False
)


def schema(task: str = 'mortality') -> Schema:
  """A schema with the modalities of a task and a few items each."""
  numeric = tuple(Item(f'n{i}', f'numeric {i}') for i in range(3))
  text = (Item('c0', 'text 0', categories=('low', 'high')),)
  rhythm = (
    Item('r0', 'rhythm', categories=('sinus', 'paced', 'fibrillation')),
    Item('r1', 'ectopy', categories=('rare', 'frequent')),
  )
  icu = task != 'cvd'
  signals = tuple(Item(f'v{i}', f'signal {i}') for i in range(8))
  target = {
    'cvd': Target('multiclass', ('none', 'chd', 'stroke', 'hf')),
    'mortality': Target('binary', ('alive', 'dead')),
    'los': Target('regression', unit='days', low=0.0),
  }[task]
  return Schema(
    task=task,
    source='fake',
    target=target,
    modalities={
      'static': Static(
        (Item('age', 'age'), Item('weight', 'weight')),
        (Item('gender', 'gender', categories=('F', 'M')),),
      ),
      'labs': Events(numeric + text),
      **({'vitals_categorical': Events(rhythm)} if icu else {}),
      **({'vitals': Grid(signals, 240, 0.1)} if icu else {}),
      'ecg': Waveform(tuple(f'term {i}' for i in range(7))),
    },
    attributes=(),
    observation_hours=24.0 if icu else None,
  )


def config(task: str = 'mortality', **options: Any) -> ModelConfig:
  """The small model of a task; `options` replace those of `OPTIONS`."""
  return model_config(task, dataclasses.replace(OPTIONS, **options), schema(task))


def tiny(task: str = 'mortality', **options: Any) -> ModelConfig:
  """The small model with one scale and one residual unit: it compiles in a third."""
  small = config(task, **{'segment_lengths': (12,), **options})
  return with_sizes(small, 'ecg', signal_plan=((4, 20),))


def with_sizes(model: ModelConfig, modality: str, **sizes: Any) -> ModelConfig:
  """The model with other sizes of one modality's encoder."""
  of = model.modality(modality)
  other = dataclasses.replace(of, config=dataclasses.replace(of.config, **sizes))
  modalities = tuple(other if each is of else each for each in model.modalities)
  return dataclasses.replace(model, modalities=modalities)


def batch(
  rows: int = 6,
  *,
  task: str = 'mortality',
  events: int = 12,
  recordings: int = 8,
  samples: int = 1250,
  seed: int = 0,
) -> Batch:
  """A random batch in which modalities are missing and the last row is padding.

  Args:
    rows: rows, the last one padding where there is more than one.
    task: of `schema`.
    events: padded number of events of every event modality.
    recordings: ECG capacity; about two thirds are used.
    samples: samples of a recording.
    seed: of all random numbers.
  """
  rng = np.random.default_rng(seed)
  names = schema(task)
  real = max(rows - 1, 1)
  weight = (np.arange(rows) < real).astype(np.float32)
  outputs = names.target.outputs
  label = rng.integers(outputs, size=rows) if outputs > 1 else rng.exponential(4, rows)
  made: Batch = {
    'label': (label * weight).astype(np.float32),
    'weight': weight,
    'row': np.where(weight > 0, np.arange(rows), -1).astype(np.int32),
    'static': _static(rng, rows, real),
  }
  for name, items in kinds.events(names).items():
    made[name] = _events(rng, items, rows, real, events)
  for name, grid in kinds.grids(names).items():
    made[name] = _grid(rng, grid, rows, real)
  terms = len(names.modalities['ecg'].terms)
  made['ecg'] = _ecg(rng, terms, real, recordings, samples)
  return made


def fitted(collection: dict[str, Any], seed: int = 0) -> dict[str, Any]:
  """Plausible random values for a `fitted` collection of the same tree and shapes."""
  import jax

  rng = np.random.default_rng(seed)

  def value(path, leaf):
    name, shape = path[-1].key, np.shape(leaf)
    if name.endswith('knots'):
      return np.sort(rng.normal(0, 1.5, shape), axis=-1).astype(np.float32)
    if name == 'time_cuts':
      return np.linspace(-24, 0, shape[0] + 2)[1:-1].astype(np.float32)
    if name.endswith(('_seen', '_flagged')):
      return np.ones(shape, bool)
    if name.endswith('scale'):
      return rng.uniform(0.5, 2, shape).astype(np.float32)
    return rng.uniform(0, 1, shape).astype(np.float32)

  return jax.tree_util.tree_map_with_path(value, collection)


def _static(rng, rows: int, real: int) -> Batch:
  mask = rng.random((rows, 2)) < 0.8
  mask[:, 0] = True
  mask[real:] = False
  categorical = rng.integers(-1, 2, (rows, 1)).astype(np.int32)
  categorical[real:] = -1
  numeric = np.where(mask, rng.normal(1, 2, (rows, 2)), 0).astype(np.float32)
  return {'numeric': numeric, 'numeric_mask': mask, 'categorical': categorical}


def _events(rng, items, rows: int, real: int, length: int) -> Batch:
  counts = np.array([len(item.categories) for item in items])
  used = rng.integers(0, length + 1, rows)
  used[0], used[real:] = length, 0
  if real > 2:
    used[1] = 0
  mask = np.arange(length) < used[:, None]
  item = rng.integers(len(items), size=(rows, length))
  category = np.where(counts[item] > 0, rng.integers(0, 2, item.shape), -1)
  value = np.where(counts[item] > 0, 0, rng.normal(0, 2, item.shape))
  time = np.sort(rng.uniform(-24, 0, item.shape), axis=1)
  keep = lambda x, dtype: np.where(mask, x, 0).astype(dtype)
  return {
    'item': keep(item, np.int32),
    'value': keep(value, np.float32),
    'category': keep(category, np.int32),
    'time': keep(time, np.float32),
    'mask': mask,
  }


def _grid(rng, grid: Grid, rows: int, real: int) -> Batch:
  shape = (rows, grid.steps, len(grid.items))
  observed = rng.random(shape) < 0.2
  observed[:, :30] = False
  observed[real:] = False
  if real > 3:
    observed[2] = False
  value = np.where(observed, rng.normal(0, 2, shape), 0).astype(np.float32)
  return {'value': value, 'observed': observed}


def _ecg(rng, terms: int, real: int, recordings: int, samples: int) -> Batch:
  mask = np.arange(recordings) < (2 * recordings + 2) // 3
  owners = np.sort(rng.integers(real, size=recordings))
  measured = rng.random((recordings, len(ECG_MEASUREMENTS))) < 0.8
  measured &= mask[:, None]
  measured[0] = False
  reported = rng.random((recordings, terms)) < 0.4
  reported[:2] = [[False] * terms, [True] * terms][: len(reported)]
  keep = lambda x, dtype: np.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, 0).astype(
    dtype
  )
  shape = (recordings, samples, 12)
  return {
    'signal': keep(rng.integers(-500, 500, shape), np.int16),
    'gain': keep(np.full(recordings, 200.0), np.float32),
    'time': keep(rng.uniform(-24, 0, recordings), np.float32),
    'measurements': np.where(measured, rng.normal(0, 2, measured.shape), 0).astype(
      np.float32
    ),
    'measurements_mask': measured,
    'terms': keep(reported, np.uint8),
    'owner': keep(owners, np.int32),
    'mask': mask,
  }


def variables(shapes: Any, seed: int = 0) -> Any:
  """Random variables of the shapes of `jax.eval_shape(model.init, ...)`.

  Drawn with NumPy: compiling an init takes longer than most tests.
  """
  import jax

  rng = np.random.default_rng(seed)

  def value(path, leaf):
    name, shape = path[-1].key, leaf.shape
    if name in ('scale', 'var'):
      return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    is_matrix = 'kernel' in name or name in ('chunk_table', 'vector_table', 'head')
    fan_in = max(int(np.prod(shape[:-1])), 1) if is_matrix else 1
    return (rng.normal(0, 1, shape) / np.sqrt(fan_in)).astype(np.float32)

  made = {
    name: jax.tree_util.tree_map_with_path(value, tree)
    for name, tree in shapes.items()
    if name in ('params', 'batch_stats')
  }
  if 'fitted' in shapes:
    made['fitted'] = fitted(shapes['fitted'], seed)
  return made
