"""Predicts with a network in its fitted blend (`inference/blend.py`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medm2t_jax.models.blend import simple_models
from medm2t_jax.models.blend.weighted_sum import OURS, blend
from medm2t_jax.models.config import ModelConfig
from medm2t_jax.models.link import Link, normalized
from medm2t_jax.models.trunk import columns
from medm2t_jax.runs.hosts.devices import on_devices
from medm2t_jax.training.steps import Batch, Predictor

# A batch -> outputs (d b c) of the network alone, and of what predicts.
AloneAndBlended = Callable[[Batch], tuple[Float[Array, 'd b c'], Float[Array, 'd b c']]]


def blended(config: ModelConfig, fitted: Mapping[str, Any], ours: Predictor) -> Predictor:
  """The predictor `ours` in a blend; arguments as of `alone_and_blended`."""
  both = alone_and_blended(config, fitted, ours)
  return lambda batch: both(batch)[1]


def alone_and_blended(
  config: ModelConfig, fitted: Mapping[str, Any], ours: Predictor
) -> AloneAndBlended:
  """The predictor `ours` alone and in a blend, from one forward pass.

  Args:
    config: of the model: its columns, which the baselines read, and its link.
    fitted: from `medm2t_jax.inference.blend.restore`.
    ours: the predictor of our model.
  """
  kinds = config.columns
  step = _blend_step(kinds, config.link)

  def both(batch: Batch) -> tuple[Float[Array, 'd b c'], Float[Array, 'd b c']]:
    logits = ours(batch)
    return logits, step(fitted, columns.read_of(kinds, batch), logits)

  return both


@functools.lru_cache(maxsize=64)
def _blend_step(
  kinds: tuple[tuple[str, columns.ColumnKind], ...], link: Link
) -> Callable[[Mapping[str, Any], Batch, Array], Float[Array, 'd b c']]:
  """Blends our model's outputs with those of baselines that read the same columns."""

  def step(
    fitted: Mapping[str, Any], batch: Batch, logits: Float[Array, 'b c']
  ) -> Float[Array, 'b c']:
    table = table_of_device(kinds, batch)
    return outputs(fitted, table, logits, link)

  return on_devices(step, in_axes=(None, 0, 0), out_axes=0)


def table_of_device(
  kinds: tuple[tuple[str, columns.ColumnKind], ...], batch: Batch
) -> Float[Array, 'b n']:
  """The columns of a batch without a device axis, NaN where missing."""
  return columns.table(kinds, jax.tree.map(lambda x: x[jnp.newaxis], dict(batch)))


def outputs(
  fitted: Mapping[str, Any],
  table: Float[Array, 'b n'],
  logits: Float[Array, 'b c'],
  link: Link,
) -> Float[Array, 'b c']:
  """Normalised outputs of the blend.

  Args:
    fitted: from `medm2t_jax.inference.blend.restore`.
    table: the columns that the baselines read.
    logits: of our model.
    link: of the outputs.
  """
  predictors = {
    name: simple_models.outputs(arrays, table) for name, arrays in fitted['models'].items()
  }
  ours = normalized(logits, link)
  return blend({OURS: ours, **predictors}, fitted['weights'], fitted['prior'], link)
