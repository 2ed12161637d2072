"""Reads a whole record, modality by modality."""

from __future__ import annotations

import numpy as np

from data_pipeline.format import examples, records
from data_pipeline.format.dataset import Dataset
from data_pipeline.format.modalities.base import arrays_of


def read_sample(dataset: Dataset, row: int) -> dict[str, dict[str, np.ndarray]]:
  """Modality -> its arrays for an index row, as the shards store them.

  Raises:
    DataError: the shard is missing or corrupt.
  """
  index, schema = dataset.index, dataset.as_prepared().schema
  record = records.read_record(
    dataset.directory / dataset.files[index['file'][row]],
    int(index['offset'][row]),
    int(index['bytes'][row]),
    row,
  )
  features = examples.deserialize(record, examples.features(schema))
  return {
    name: arrays_of(name, modality, features)
    for name, modality in schema.modalities.items()
  }
