"""Reads what the records say, one after the other, without their ECG signals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from data_pipeline import examples, records
from data_pipeline.dataset import Dataset


def read_heads(dataset: Dataset) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
  """Index row and features of every record, in the order of the shards.

  Features are those of `examples.features` but `ecg/signal`, with a length of their own
  a sample. One record is in memory at a time.

  Raises:
    DataError: a shard is missing or corrupt.
  """
  specs = examples.features(dataset.schema)
  index = dataset.index
  for row in np.lexsort((index['offset'], index['file'])).tolist():
    head = records.read_head(
      dataset.directory / dataset.files[index['file'][row]],
      int(index['offset'][row]),
      int(index['head_bytes'][row]),
      int(index['head_crc'][row]),
      row,
    )
    yield row, examples.deserialize(head, specs)
