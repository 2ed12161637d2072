"""A batch of padding only: dtypes and shapes of all batches, without any data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipeline.format.modalities.base import nothing
from data_pipeline.format.schema import Schema
from data_pipeline.reading.batching import Batching

_UNNAMED = 8


def padding(
  schema: Schema, *, modalities: Sequence[str], batching: Batching, rows: int
) -> dict[str, Any]:
  """One device's batch of `rows` rows of padding, without the device axis.

  It has the dtypes of every batch and the shapes of one in the first bucket. A modality
  without bucket lengths has `_UNNAMED` entries.

  Args:
    schema: of the data set.
    modalities: to include.
    batching: capacities of a batch.
    rows: b.
  """
  first = dict(batching.buckets[0]) if batching.buckets else {}
  entries = {'padded': _UNNAMED, 'packed': batching.max_recordings, 'fixed': 0}
  target = schema.target
  labels = (rows, target.label_length) if target.kind == 'multilabel' else (rows,)
  batch: dict[str, Any] = {
    'label': np.zeros(labels, np.float32),
    'weight': np.zeros(rows, np.float32),
    'row': np.full(rows, -1, np.int32),
  }
  for name, modality in schema.modalities.items():
    if name in modalities:
      count = first.get(name, entries[modality.layout])
      batch[name] = nothing(modality, (rows,), count)
  return batch
