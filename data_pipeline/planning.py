"""Plans the steps of an epoch for all devices of all hosts, from the index alone.

A sample goes to the first bucket that holds all its events. Batches of one bucket
are filled row by row; a batch closes early when the packed ECG recordings of the
next row would not fit, so no recording is ever dropped because of batch mates. A
step is one batch per device, all of one bucket, so every host compiles and runs the
same shapes in the same order. Letters: d devices of all hosts, b batch rows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.dataset import Dataset
from data_pipeline.schema import DataError


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """The steps of one epoch.

  Attributes:
    bucket: int32 (steps,), index into the config's buckets.
    rows: int32 (steps, d, b), index rows; -1 is padding.
    capacity: ECG recordings that a device's batch holds.
    truncated: event modality -> samples that are longer than the last bucket.
    overflowing: samples with more than `max_recordings` recordings.
  """

  bucket: np.ndarray
  rows: np.ndarray
  capacity: int
  truncated: Mapping[str, int]
  overflowing: int

  def __len__(self) -> int:
    return len(self.bucket)

  def local_rows(self, host: int, hosts: int) -> np.ndarray:
    """The rows of one host's devices: (steps, d / hosts, b).

    Raises:
      ValueError: the devices do not divide evenly among the hosts.
    """
    devices = self.rows.shape[1]
    if devices % hosts or not 0 <= host < hosts:
      raise ValueError(f'{devices} devices cannot be shared: host {host} of {hosts}')
    share = devices // hosts
    return self.rows[:, host * share : (host + 1) * share]


def plan_epoch(
  dataset: Dataset,
  rows: np.ndarray,
  *,
  modalities: Sequence[str],
  config: Any,
  batch_rows: int,
  devices: int = 1,
  shuffle: tuple[int, int] | None = None,
  require: str | None = None,
) -> Plan:
  """Plans one epoch over `rows`; each of them appears exactly once.

  Args:
    dataset: the data set.
    rows: index rows, for example `dataset.rows(fold, 'train')`.
    modalities: those that the batches will hold; others do not matter for buckets.
    config: with `data.buckets` (mappings event modality -> padded length, ascending),
      `data.max_recordings`, `data.recordings_per_row`.
    batch_rows: rows of one device's batch.
    devices: of all hosts together.
    shuffle: (seed, epoch) of the order; None: by bucket, then index.
    require: only samples that have this modality.

  Raises:
    DataError: the config's buckets do not suit the data set.
  """
  rows = np.sort(np.asarray(rows, np.int64))
  if require is not None and require != 'static':
    rows = rows[dataset.lengths(require)[rows] > 0]
  lengths = {
    name: dataset.lengths(name)[rows]
    for name in modalities
    if name in dataset.schema.events
  }
  bucket = assign_buckets(lengths, config.data.buckets, count=len(rows))
  recordings = np.zeros(len(rows), np.int64)
  overflowing = 0
  if 'ecg' in modalities:
    recorded = dataset.lengths('ecg')[rows]
    recordings = np.minimum(recorded, config.data.max_recordings).astype(np.int64)
    overflowing = int((recorded > config.data.max_recordings).sum())
  capacity = max(
    config.data.max_recordings,
    math.ceil(batch_rows * config.data.recordings_per_row),
  )

  order = np.arange(len(rows))
  generator = None
  if shuffle is not None:
    generator = np.random.default_rng(shuffle)
    generator.shuffle(order)
  buckets, steps = [], []
  for b in range(max(1, len(config.data.buckets))):
    inside = order[bucket[order] == b]
    batches = _fill(rows[inside], recordings[inside], batch_rows, capacity)
    in_bucket = -(-len(batches) // devices)
    padding = np.full((in_bucket * devices - len(batches), batch_rows), -1, np.int32)
    batches = np.concatenate([batches, padding])
    steps.append(batches.reshape(in_bucket, devices, batch_rows))
    buckets.append(np.full(in_bucket, b, np.int32))
  step_rows, step_bucket = np.concatenate(steps), np.concatenate(buckets)
  if generator is not None:
    shuffled = generator.permutation(len(step_bucket))
    step_rows, step_bucket = step_rows[shuffled], step_bucket[shuffled]
  return Plan(
    bucket=step_bucket,
    rows=step_rows,
    capacity=capacity,
    truncated={
      name: int((lengths[name] > config.data.buckets[-1][name]).sum()) for name in lengths
    },
    overflowing=overflowing,
  )


def assign_buckets(
  lengths: Mapping[str, np.ndarray],
  buckets: Sequence[Mapping[str, int]],
  *,
  count: int,
) -> np.ndarray:
  """First bucket in which all lengths fit, else the last: int64 (count,).

  Args:
    lengths: event modality -> number of events (count,).
    buckets: padded length by event modality, ascending.
    count: number of samples.

  Raises:
    DataError: a modality has no padded length, or the buckets do not ascend.
  """
  for name in lengths:
    padded = [bucket[name] for bucket in buckets if name in bucket]
    if not padded or len(padded) < len(buckets):
      raise DataError(
        f'config.data.buckets: give the padded length of {name} in every bucket.'
      )
    if padded != sorted(padded) or padded[0] < 1:
      raise DataError(
        f'config.data.buckets: lengths of {name} are {padded}; they must ascend.'
      )
  chosen = np.zeros(count, np.int64)
  for bucket in buckets[:-1]:
    too_long = np.zeros(count, bool)
    for name, length in lengths.items():
      too_long |= length > bucket[name]
    # Lengths ascend, so what fits a bucket fits all later ones.
    chosen += too_long
  return chosen


def _fill(
  rows: np.ndarray, recordings: np.ndarray, batch_rows: int, capacity: int
) -> np.ndarray:
  """Fills batches in the order of `rows`: int32 (batches, batch_rows), -1 = padding."""
  ends = np.cumsum(recordings)
  batches = []
  start = 0
  while start < len(rows):
    used = ends[start - 1] if start else 0
    within = int(np.searchsorted(ends, used + capacity, side='right'))
    stop = min(start + batch_rows, within)
    batch = np.full(batch_rows, -1, np.int32)
    batch[: stop - start] = rows[start:stop]
    batches.append(batch)
    start = stop
  return np.array(batches, np.int32).reshape(-1, batch_rows)
