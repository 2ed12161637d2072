"""Keeps predictions of baselines in `W/fold{k}/baselines/`, with their dependencies."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import medm2t_jax
from data_pipeline.format.atomic import replacing
from data_pipeline.format.schema import DataError
from medm2t_jax.baselines.inputs import SPLITS
from medm2t_jax.runs import workdir
from medm2t_jax.runs.run import Run
from medm2t_jax.training.prediction import prediction_columns

_KEY = b'made_from'


def path(fold: Run, name: str) -> Path:
  """The file of a baseline's predictions."""
  directory = workdir.stage_directory(fold.workdir, fold.fold, 'baselines')
  return directory / f'{name}.parquet'


def identity(fold: Run, name: str, settings: Any) -> str:
  """Everything that a baseline's predictions depend on, as JSON.

  Args:
    fold: in which it is fitted.
    name: of the baseline.
    settings: of the baseline, JSON-able.
  """
  digest = hashlib.sha256()
  for split in SPLITS:
    digest.update('\n'.join([split, *sorted(fold.splits.subject_hashes(split))]).encode())
    rows = fold.splits.rows(split)
    digest.update(fold.dataset.index['sample_id'][rows].astype('<i8').tobytes())
  config = fold.config
  return json.dumps(
    {
      'baseline': name,
      'settings': settings,
      'seed': config.seed,
      'refit': config.refit,
      'data_version': fold.dataset.version,
      'splits': digest.hexdigest(),
      'buckets': config.data.buckets,
      'max_recordings': config.data.max_recordings,
      'package': medm2t_jax.__version__,
    },
    sort_keys=True,
  )


def read(fold: Run, name: str, made_from: str) -> np.ndarray | None:
  """Kept predictions of the test samples; None if there are none with these dependencies.

  Raises:
    DataError: the file is damaged.
  """
  file = path(fold, name)
  if not file.exists():
    return None
  try:
    table = pq.read_table(file)
  except pa.ArrowInvalid as error:
    raise DataError(
      f'{file}: not a parquet file. Delete it; it will be recreated.'
    ) from error
  if (table.schema.metadata or {}).get(_KEY) != made_from.encode():
    return None
  columns = [table[column].to_numpy() for column in table.column_names[1:]]
  if table.column_names[1] == 'prediction':
    return columns[0]
  return np.stack(columns, axis=1)


def write(fold: Run, name: str, made_from: str, prediction: np.ndarray) -> None:
  """Writes predictions of the test samples, in the order of the index, atomically."""
  columns = {'sample_id': fold.dataset.index['sample_id'][fold.splits.rows('test')]}
  columns |= prediction_columns(prediction)
  table = pa.table(columns).replace_schema_metadata({_KEY: made_from})
  file = path(fold, name)
  file.parent.mkdir(parents=True, exist_ok=True)
  with replacing(file) as partial:
    pq.write_table(table, partial)
