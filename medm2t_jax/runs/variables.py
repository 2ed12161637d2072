"""The variables of a stage before training: their shapes and first values."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from data_pipeline.reading.padding import padding
from medm2t_jax.modalities import fitting
from medm2t_jax.models import medm2t
from medm2t_jax.models.config import ModelConfig
from medm2t_jax.runs.reader import Batch
from medm2t_jax.runs.run import Run

# A stage without BatchNorm has no such collection.
_WITHOUT_LAYERS: Mapping[str, Any] = {'batch_stats': {}}

Initialise = Callable[[jax.Array, Batch], Any]


def init(
  run: Run, stage: str, given: Mapping[tuple[str, ...], Any] | None = None
) -> dict[str, Any]:
  """Initial variables of a stage: parameters, batch statistics and fitted state.

  Args:
    run: whose model it is.
    stage: of the model.
    given: path -> parameters or batch statistics that take the place of fresh ones.
  """
  declared = traverse_util.flatten_dict(shapes(run, stage))
  given = given or {}
  fresh = tuple(path for path in declared if path[0] != 'fitted' and path not in given)
  initialise = _initialise(run.model_config, stage, fresh)
  made = initialise(key(run, stage), _example(run, stage))
  variables = dict(zip(fresh, made, strict=True))
  variables |= {path: given[path] for path in given if path in declared}
  fitted = traverse_util.unflatten_dict(declared)['fitted']
  return {
    **_WITHOUT_LAYERS,
    **traverse_util.unflatten_dict(variables),
    'fitted': fitting.into_collection(run.statistics, fitted),
  }


@functools.lru_cache(maxsize=256)
def shapes(run: Run, stage: str) -> dict[str, Any]:
  """The variables of a stage as shapes, without computing anything."""
  variables = _variables(run.model_config, stage)
  return jax.eval_shape(variables, key(run, stage), _example(run, stage))


def key(run: Run, stage: str) -> jax.Array:
  """The random key of a stage of this fold and seed.

  Of JAX's fast generator: a step with dropout compiles three times faster than with
  threefry, whose rounds are unrolled at every draw.
  """
  key = jax.random.key(run.config.seed, impl='unsafe_rbg')
  key = jax.random.fold_in(key, run.fold)
  return jax.random.fold_in(key, np.uint32(zlib.crc32(stage.encode())))


# Traced once for all folds, runs and seeds alike.
@functools.lru_cache(maxsize=64)
def _variables(config: ModelConfig, stage: str) -> Initialise:
  model = medm2t.MedM2T(config)  # no device axis in an initialisation

  def variables(key: jax.Array, batch: Batch) -> dict[str, Any]:
    return {**_WITHOUT_LAYERS, **model.init(key, batch, stage=stage, train=False)}

  return jax.jit(variables)


@functools.lru_cache(maxsize=64)
def _initialise(
  config: ModelConfig, stage: str, paths: tuple[tuple[str, ...], ...]
) -> Initialise:
  variables = _variables(config, stage)

  def initialise(key: jax.Array, batch: Batch) -> list[Any]:
    # What nobody asks for is not compiled.
    made = traverse_util.flatten_dict(variables(key, batch))
    return [made[path] for path in paths]

  return jax.jit(initialise)


def _example(run: Run, stage: str) -> Batch:
  """A batch for its shapes, of which those of the variables need no more than a row."""
  return padding(
    run.dataset.schema,
    modalities=run.modalities_of(stage),
    batching=run.config.data,
    rows=1,
  )
