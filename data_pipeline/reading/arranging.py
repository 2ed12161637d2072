"""Makes batches of samples in memory, equal to those of the tf.data pipeline.

Letters: b batch rows, n entries of a padded modality, m of a packed one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.format.modalities import Modality
from data_pipeline.format.modalities.base import nothing
from data_pipeline.format.schema import Schema
from data_pipeline.reading.batching import Batching

# Modality -> arrays as a record stores them; a missing modality is empty.
Example = Mapping[str, Mapping[str, np.ndarray]]


def bucket_of(schema: Schema, batching: Batching, example: Example) -> int:
  """The first bucket that holds an example, or else the last.

  Args:
    schema: of the model.
    batching: with the padded length of every padded modality in every bucket.
    example: of the model's modalities.
  """
  lengths = {
    name: len(next(iter(arrays.values())))
    for name, arrays in example.items()
    if schema.modalities[name].layout == 'padded'
  }
  for place, bucket in enumerate(batching.buckets):
    if all(length <= bucket[name] for name, length in lengths.items()):
      return place
  return len(batching.buckets) - 1


def arrange(
  schema: Schema,
  batching: Batching,
  examples: Sequence[Example],
  *,
  bucket: int,
  rows: int,
  capacity: int,
) -> dict[str, Any]:
  """A batch without a device axis; `row` numbers the examples, -1 is padding.

  A sample that is too long for the bucket keeps its most recent entries.

  Args:
    schema: of the model.
    batching: of the model.
    examples: at most `rows`.
    bucket: whose lengths padded modalities have.
    rows: b.
    capacity: entries of packed modalities; the most recent `batching.max_recordings` of all
      examples must fit.

  Raises:
    ValueError: there are more examples than rows, or more recordings than the capacity.
  """
  if len(examples) > rows:
    raise ValueError(f'{len(examples)} examples do not fit into {rows} rows')
  row = np.full(rows, -1, np.int32)
  row[: len(examples)] = np.arange(len(examples))
  batch: dict[str, Any] = {'row': row}
  lengths = batching.buckets[bucket] if batching.buckets else {}
  for name, modality in schema.modalities.items():
    of_each = [example.get(name) for example in examples]
    if modality.layout == 'fixed':
      batch[name] = _fixed(modality, of_each, rows)
    elif modality.layout == 'padded':
      batch[name] = _padded(modality, of_each, rows, lengths[name])
    else:
      batch[name] = _packed(modality, of_each, capacity, batching.max_recordings)
  return batch


def arrange_whole(schema: Schema, example: Example) -> dict[str, Any]:
  """A batch of one example with all of its entries, and without a device axis.

  Args:
    schema: of the example.
    example: the arrays of its modalities.
  """
  counts = {
    name: max(1, len(next(iter(arrays.values())))) for name, arrays in example.items()
  }
  of_layout = lambda layout: {
    name: counts.get(name, 1)
    for name, modality in schema.modalities.items()
    if modality.layout == layout
  }
  most = max(of_layout('packed').values(), default=1)
  batching = Batching(buckets=(of_layout('padded'),), max_recordings=most)
  return arrange(schema, batching, [example], bucket=0, rows=1, capacity=most)


OfEach = Sequence[Mapping[str, np.ndarray] | None]


def _fixed(modality: Modality, of_each: OfEach, rows: int) -> dict[str, np.ndarray]:
  batch = nothing(modality, (rows,))
  for key, array in batch.items():
    for place, arrays in enumerate(of_each):
      if arrays is not None:
        array[place] = arrays[key]
  return batch


def _padded(
  modality: Modality, of_each: OfEach, rows: int, length: int
) -> dict[str, np.ndarray]:
  """The most recent `length` entries of each row: arrays (b n ...), and `mask`."""
  batch = nothing(modality, (rows,), length)
  for place, arrays in enumerate(of_each):
    if arrays is None:
      continue
    for key in batch.keys() - {'mask'}:
      kept = arrays[key][-length:]
      # NaN stands for no value; another array then has the category.
      is_number = np.issubdtype(kept.dtype, np.floating)
      batch[key][place, : len(kept)] = np.nan_to_num(kept, nan=0.0) if is_number else kept
      batch['mask'][place, : len(kept)] = True
  return batch


def _packed(
  modality: Modality, of_each: OfEach, capacity: int, most: int
) -> dict[str, np.ndarray]:
  """The most recent entries of all rows concatenated: arrays (m ...), `owner`, `mask`."""
  batch = nothing(modality, (len(of_each),), capacity)
  used = 0
  for place, arrays in enumerate(of_each):
    count = 0 if arrays is None else min(most, len(next(iter(arrays.values()))))
    if used + count > capacity:
      raise ValueError(f'more than {capacity} entries')
    if arrays is None or not count:
      continue
    filled = slice(used, used + count)
    for key in batch.keys() - {'mask', 'owner'}:
      batch[key][filled] = arrays[key][-count:]
    batch['owner'][filled] = place
    batch['mask'][filled] = True
    used += count
  return batch
