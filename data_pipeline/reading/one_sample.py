"""Reads one complete sample of a data set, in the variables of a model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_pipeline.format.dataset import Dataset
from data_pipeline.format.modalities import Modality
from data_pipeline.format.schema import DataError, Schema
from data_pipeline.format.whole_record import read_sample
from data_pipeline.reading.alignment import Alignment
from data_pipeline.reading.arranging import Example, arrange_whole


def row_of(dataset: Dataset, sample_id: int) -> int:
  """The index row of a sample.

  Raises:
    DataError: the data set has no such sample.
  """
  found = np.flatnonzero(dataset.index['sample_id'] == sample_id)
  if not len(found):
    raise DataError(
      f'{dataset.directory} has no sample {sample_id}. The column sample_id of '
      'index.parquet lists its samples.'
    )
  return int(found[0])


def sample_of(dataset: Dataset, schema: Schema, row: int) -> Example:
  """Modality -> arrays of an index row, as a record of the model's own data stores them.

  Args:
    dataset: of the model's task.
    schema: of the model.
    row: of the index.

  Raises:
    DataError: the shard is missing or corrupt, or the data set is of another task.
  """
  stored = dataset.as_prepared().schema
  alignment = Alignment(schema, stored)
  example = read_sample(dataset, row)
  if alignment.identical:
    return example
  batch = arrange_whole(stored, example)
  batch |= {'label': np.zeros(1, np.float32), 'weight': np.zeros(1, np.float32)}
  aligned = alignment(_with_device(batch))
  return {
    name: _entries(modality, aligned[name]) for name, modality in schema.modalities.items()
  }


def _with_device(batch: Mapping) -> dict:
  return {
    key: _with_device(each) if isinstance(each, Mapping) else each[np.newaxis]
    for key, each in batch.items()
  }


def _entries(modality: Modality, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The arrays of the only row of the only device, without padding."""
  alone = {
    key: array[0] if modality.layout == 'packed' else array[0, 0]
    for key, array in arrays.items()
    if key in modality.arrays or key == 'mask'
  }
  mask = alone.pop('mask', None)
  return alone if mask is None else {key: array[mask] for key, array in alone.items()}
