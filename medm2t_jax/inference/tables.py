"""Writes predictions to files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.format.atomic import replacing
from data_pipeline.format.dataset import Dataset
from data_pipeline.format.schema import DataError, Schema
from medm2t_jax.inference.predicting import Predicted
from medm2t_jax.training.prediction import prediction_columns

Write = Callable[[Path, Dataset, Predicted], None]


def writer(name: str, schema: Schema) -> Write:
  """Returns the function that writes predictions to a file.

  Args:
    name: 'table' or 'meds'.
    schema: of the model.

  Raises:
    DataError: MEDS has no columns for the model's kind of prediction.
  """
  if name == 'meds' and schema.target.kind != 'binary':
    raise DataError(
      f'--format=meds: MEDS only has columns for tasks of two classes, and {schema.task!r} '
      'is not one. Leave --format out.'
    )
  make = _meds if name == 'meds' else _table

  def write(path: Path, dataset: Dataset, predicted: Predicted) -> None:
    table = make(dataset, predicted)
    with replacing(path) as partial:
      pq.write_table(table, partial)

  return write


def _table(dataset: Dataset, predicted: Predicted) -> pa.Table:
  """Columns sample_id, subject_id, and `p0`, `p1`, ... or `prediction` of a number."""
  columns: dict[str, Any] = {
    name: dataset.index[name][predicted.rows] for name in ('sample_id', 'subject_id')
  }
  return pa.table({**columns, **prediction_columns(predicted.predictions)})


def _meds(dataset: Dataset, predicted: Predicted) -> pa.Table:
  """The columns of meds-evaluation 0.1 for a binary task; the second class is true."""
  times = dataset.index['prediction_time'][predicted.rows]
  label = dataset.index['label'][predicted.rows]
  probability = predicted.predictions[:, 1]
  return pa.table(
    {
      'subject_id': pa.array(dataset.index['subject_id'][predicted.rows], pa.int64()),
      'prediction_time': pa.array(times * 1_000_000, pa.timestamp('us')),
      'boolean_value': pa.array(label == 1, mask=np.isnan(label)),
      'predicted_boolean_value': pa.array(probability >= 0.5),
      'predicted_boolean_probability': pa.array(probability.astype(np.float32)),
    }
  )
