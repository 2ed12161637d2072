"""The fitted state of a run: fitted once and kept in its workdir."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import medm2t_jax
from data_pipeline.reading import planning
from medm2t_jax.modalities import Modality, fitting
from medm2t_jax.models.config import ModelConfig
from medm2t_jax.runs import kept_arrays
from medm2t_jax.runs.hosts import distributed
from medm2t_jax.runs.reader import Reader
from medm2t_jax.runs.splits import Splits

_NAME = 'fitted'


def fit(
  reader: Reader, splits: Splits, model: ModelConfig[Modality], batch_size: int
) -> fitting.Statistics:
  """Fits the state on the training samples, in this process."""
  schema = reader.dataset.schema
  modalities = schema.names
  rows = splits.rows('train')
  plan = reader.plan(rows, modalities, batch_size)
  batches = reader.read_here(plan, modalities, signals=False)
  return fitting.fit(batches, model.modalities, schema.target)


def kept_or_fitted(
  reader: Reader,
  splits: Splits,
  model: ModelConfig[Modality],
  folder: Path,
  *,
  batch_size: int,
) -> fitting.Statistics:
  """The state in `folder` if it was fitted on the same samples, else a newly fitted one.

  A new state is kept in `folder`, unless batches are changed while reading. All processes
  get the same state.
  """
  if reader.change is not None:
    return distributed.from_first(lambda: fit(reader, splits, model, batch_size))
  made_from = _made_from(reader, splits, model)

  def read_or_fit() -> fitting.Statistics:
    kept = kept_arrays.read(folder, _NAME, made_from)
    if kept is not None:
      return kept[0]
    state = fit(reader, splits, model, batch_size)
    kept_arrays.write(folder, _NAME, made_from, state)
    return state

  return distributed.from_first(read_or_fit)


def _made_from(
  reader: Reader, splits: Splits, model: ModelConfig[Modality]
) -> dict[str, Any]:
  """Everything that the state depends on, JSON-able."""
  rows = splits.rows('train').astype('<i8').tobytes()
  made = {
    'data_version': reader.dataset.version,
    'rows': hashlib.sha256(rows).hexdigest(),
    'modalities': reader.dataset.schema.names,
    'windows': [repr(each.windows) for each in model.modalities],
    'columns': [repr(kind) for kind in model.columns],
    'longest': planning.buckets_of(reader.dataset, reader.batching)[-1],
    'max_recordings': reader.batching.max_recordings,
    'package': medm2t_jax.__version__,
  }
  return json.loads(json.dumps(made))
