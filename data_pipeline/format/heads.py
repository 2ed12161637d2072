"""Reads records without their heavy features, the ECG signals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from data_pipeline.format import examples, records
from data_pipeline.format.dataset import Dataset


def read_head(dataset: Dataset, row: int) -> dict[str, np.ndarray]:
  """All features of an index row except heavy ones.

  Raises:
    DataError: the shard is missing or corrupt.
  """
  return _read(dataset, row, examples.features(dataset.schema))


def read_heads(dataset: Dataset) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
  """Index row and light features of every record, in the order of the shards.

  Only one record is in memory at a time.

  Raises:
    DataError: a shard is missing or corrupt.
  """
  specs, index = examples.features(dataset.schema), dataset.index
  for row in np.lexsort((index['offset'], index['file'])).tolist():
    yield row, _read(dataset, row, specs)


def _read(
  dataset: Dataset, row: int, specs: Mapping[str, examples.Feature]
) -> dict[str, np.ndarray]:
  index = dataset.index
  head = records.read_head(
    dataset.directory / dataset.files[index['file'][row]],
    int(index['offset'][row]),
    int(index['head_bytes'][row]),
    int(index['head_crc'][row]),
    row,
  )
  return examples.deserialize(head, specs)
