"""A trained model that nobody has trained, with variables of MIMIC-IV: made in seconds."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from flax import traverse_util

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
from medm2t_jax.models.medm2t import MedM2T
from medm2t_jax.runs.checkpoint import Lineage

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
  noise: float = 0.0,
  **changes: Any,
) -> TrainedModel:
  """The model: fresh parameters, and fitted state that no data gave.

  Args:
    target: of the schema above.
    of: another schema in its place.
    batching: with the lengths of its padded modalities.
    members: networks of the ensemble.
    noise: standard deviation of what is added to their parameters, of each its own.
    changes: of the options of the model.
  """
  options = dataclasses.replace(
    experiment.read(mortality.get_config('small')).model,
    size='tiny',
    trunk='decoder',
    fusion='none',
    segment_lengths=(12,),
  )
  options = dataclasses.replace(options, **changes)
  of = of or schema(target)
  config = model_config(of.task, options, of)
  example = padding(of, modalities=of.names, batching=batching, rows=1)
  network = MedM2T(config)
  initialise = jax.jit(
    lambda key, batch: network.init(key, batch, stage=STAGE, train=False)
  )
  made = initialise(jax.random.key(0), example)
  flat: dict[Any, Any] = traverse_util.flatten_dict(jax.tree.map(np.asarray, made))
  rng = np.random.default_rng(0)

  def variables() -> dict[str, Any]:
    found = dict(flat)
    for path, array in flat.items():
      if path[0] == 'fitted':
        found[path] = _fitted(path, array)
      elif path[0] == 'params' and noise:
        found[path] = (array + rng.normal(0, noise, array.shape)).astype(array.dtype)
    return traverse_util.unflatten_dict(found)

  lineage = Lineage(0, frozenset(), frozenset(), '', '', {})
  whole = TrainedModel(
    schema=of,
    options=options,
    batching=batching,
    batch_size=16,
    members=tuple(
      Member({'batch_stats': {}, **variables()}, None, lineage) for _ in range(members)
    ),
    found={name: [0.9] * len(each.variables) for name, each in of.modalities.items()},
    key_fingerprint='none',
    tests={},
    card='# Model card\n\nOf a test.\n',
    example=invented(of, batching),
    answer=np.empty(0),
    version='0123456789abcdef',
  )
  return with_answer(whole)


def _fitted(path: tuple[str, ...], array: np.ndarray) -> np.ndarray:
  """Something that a fit may have given."""
  name = path[-1]
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
