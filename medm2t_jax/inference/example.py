"""Generates a synthetic request for a model's self-test, without data of any patient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from data_pipeline.format.schema import Schema
from data_pipeline.reading.batching import Batching
from data_pipeline.reading.padding import padding

ROWS = 2


def invented(schema: Schema, batching: Batching) -> dict[str, Any]:
  """A batch of `ROWS` synthetic rows without a device axis, with entries of every modality.

  Args:
    schema: of the model's data.
    batching: capacities of a batch.
  """
  generator = np.random.default_rng(0)
  batch = {
    **padding(schema, modalities=schema.names, batching=batching, rows=ROWS),
    'row': np.arange(ROWS, dtype=np.int32),
    'weight': np.ones(ROWS, np.float32),
  }
  for name, modality in schema.modalities.items():
    batch[name] = modality.invented(batch[name], generator)
  return batch


def padded(
  example: Mapping[str, Any],
  schema: Schema,
  rows: int,
  capacity: int,
  lengths: Mapping[str, int] | None = None,
) -> dict[str, Any]:
  """The example in the usual batch shapes, so that it needs no program of its own.

  Args:
    example: from `invented`.
    schema: of the model's data.
    rows: of a device's batch.
    capacity: number of entries of a packed modality in a device's batch.
    lengths: padded modality -> its number of entries; other modalities keep theirs.
  """
  lengths = lengths or {}

  def longer(array: np.ndarray, *counts: int, padding: int) -> np.ndarray:
    shape = (*counts, *array.shape[len(counts) :])
    widths = [(0, new - old) for new, old in zip(shape, array.shape, strict=True)]
    return np.pad(array, widths, constant_values=padding)

  result: dict[str, Any] = {
    key: longer(value, rows, padding=-1 if key == 'row' else 0)
    for key, value in example.items()
    if key not in schema.modalities
  }
  for name, modality in schema.modalities.items():
    counts = [capacity if modality.layout == 'packed' else rows]
    counts += [lengths[name]] if name in lengths else []
    padding = {key: each.padding for key, each in modality.arrays.items()}
    result[name] = {
      key: longer(array, *counts, padding=padding.get(key, 0))
      for key, array in example[name].items()
    }
  return result
