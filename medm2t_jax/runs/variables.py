"""The variables of a stage before training: their shapes and first values."""

from __future__ import annotations

import functools
import itertools
import zlib
from collections.abc import Mapping, Set
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jax.extend import core as jex
from jax.interpreters import partial_eval

from data_pipeline.reading.padding import padding
from medm2t_jax.modalities import fitting
from medm2t_jax.models import medm2t
from medm2t_jax.models.config import ModelConfig
from medm2t_jax.runs.reader import Batch
from medm2t_jax.runs.run import Run

# A stage without BatchNorm has no such collection.
_WITHOUT_LAYERS: Mapping[str, Any] = {'batch_stats': {}}

Path = tuple[str, ...]


def init(run: Run, stage: str, given: Mapping[Path, Any] | None = None) -> dict[str, Any]:
  """Initial variables of a stage: parameters, batch statistics and fitted state.

  Args:
    run: whose model is used.
    stage: of the model.
    given: path -> parameters or batch statistics that replace fresh ones.
  """
  declared = traverse_util.flatten_dict(shapes(run, stage))
  given = given or {}
  fresh = {path for path in declared if path[0] != 'fitted' and path not in given}
  variables = _draw(run, stage, fresh)
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

  Uses JAX's fast generator: a step with dropout compiles three times faster than with
  threefry, whose rounds are unrolled at every draw.
  """
  key = jax.random.key(run.config.seed, impl='unsafe_rbg')
  key = jax.random.fold_in(key, run.fold)
  return jax.random.fold_in(key, np.uint32(zlib.crc32(stage.encode())))


# Traced once for all folds, runs and seeds.
@functools.lru_cache(maxsize=64)
def _variables(config: ModelConfig, stage: str) -> Any:
  model = medm2t.MedM2T(config)  # initialisation has no device axis

  def variables(key: jax.Array, batch: Batch) -> dict[str, Any]:
    return {**_WITHOUT_LAYERS, **model.init(key, batch, stage=stage, train=False)}

  return jax.jit(variables)


def _draw(run: Run, stage: str, paths: Set[Path]) -> dict[Path, Any]:
  """First values of the variables at `paths`.

  Each is drawn separately, not in one program, which would take as long to compile as a
  training step: programs of single draws are small, and all stages share those of equal
  shapes.
  """
  arguments = key(run, stage), _example(run, stage)
  traced = _variables(run.model_config, stage).trace(*arguments)
  declared = [
    tuple(part.key for part in path)
    for path, _ in jax.tree.leaves_with_path(traced.out_info)
  ]
  wanted = [path in paths for path in declared]
  # Without the forward pass, which creates no variable.
  jaxpr, _ = partial_eval.dce_jaxpr(traced.jaxpr.jaxpr, wanted, instantiate=True)
  draw = jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr, traced.jaxpr.consts))
  made = draw(*jax.tree.leaves(arguments))
  return dict(zip(itertools.compress(declared, wanted), made, strict=True))


def _example(run: Run, stage: str) -> Batch:
  """A batch that defines shapes; variables need no more than one row."""
  return padding(
    run.dataset.schema,
    modalities=run.modalities_of(stage),
    batching=run.config.data,
    rows=1,
  )
