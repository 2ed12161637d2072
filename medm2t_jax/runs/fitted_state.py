"""The fitted state of a run: fitted once, kept in its workdir."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

import medm2t_jax
from data_pipeline.format.schema import write_json
from medm2t_jax.modalities import fitting
from medm2t_jax.models.config import ModelConfig
from medm2t_jax.runs import distributed
from medm2t_jax.runs.reader import Reader
from medm2t_jax.runs.splits import Splits

_SEPARATOR = '/'


def fit(reader: Reader, splits: Splits, model: ModelConfig) -> fitting.Statistics:
  """Fits the state on the training samples, in this process."""
  config, schema = reader.config, reader.dataset.schema
  modalities = schema.modalities
  rows = splits.rows('train')
  plan = reader.plan(rows, modalities, config.evaluation.batch_size)
  batches = reader.read_here(plan, modalities, signals=False)
  return fitting.fit(batches, schema, config.model.windows, model.columns)


def kept_or_fitted(
  reader: Reader, splits: Splits, model: ModelConfig, folder: Path
) -> fitting.Statistics:
  """The state in `folder` if it was fitted on the same samples, else a new one, kept there.

  Of batches that are changed on their way nothing is kept. All processes get the same.
  """
  if reader.change is not None:
    return distributed.from_first(lambda: fit(reader, splits, model))
  made_from = _made_from(reader, splits, model)

  def read_or_fit() -> fitting.Statistics:
    kept = _read(folder, made_from)
    if kept is None:
      kept = fit(reader, splits, model)
      _write(folder, made_from, kept)
    return kept

  return distributed.from_first(read_or_fit)


def _made_from(reader: Reader, splits: Splits, model: ModelConfig) -> dict[str, Any]:
  """All that the state depends on, JSON-able."""
  rows = splits.rows('train').astype('<i8').tobytes()
  data = reader.config.data
  made = {
    'data_version': reader.dataset.version,
    'rows': hashlib.sha256(rows).hexdigest(),
    'modalities': reader.dataset.schema.modalities,
    'windows': dict(reader.config.model.windows),
    'columns': [repr(kind) for kind in model.columns],
    'longest': dict(data.buckets[-1]) if data.buckets else {},
    'max_recordings': data.max_recordings,
    'package': medm2t_jax.__version__,
  }
  return json.loads(json.dumps(made))


def _read(folder: Path, made_from: dict[str, Any]) -> fitting.Statistics | None:
  path = folder / 'made_from.json'
  if not path.exists() or json.loads(path.read_text()) != made_from:
    return None
  state: fitting.Statistics = {}
  with np.load(folder / 'state.npz', allow_pickle=False) as arrays:
    for key, array in arrays.items():
      owner, _, name = key.partition(_SEPARATOR)
      state.setdefault(owner, {})[name] = array
  return state


def _write(folder: Path, made_from: dict[str, Any], state: fitting.Statistics) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  arrays = {
    f'{owner}{_SEPARATOR}{name}': array
    for owner, variables in state.items()
    for name, array in variables.items()
  }
  # The arrays are those of the record beside them, or there is no record.
  (folder / 'made_from.json').unlink(missing_ok=True)
  np.savez(folder / 'state.npz', allow_pickle=False, **arrays)
  write_json(folder / 'made_from.json', made_from)
