"""Plans the steps of an epoch for all devices of all hosts, from the index only.

A sample goes to the first bucket that holds all its events. Batches of one bucket are
filled row by row; a batch closes early when the packed ECG recordings of the next row would
not fit, so no recording is ever dropped because of other samples in the batch. A step is
one batch per device, all of one bucket, so every host compiles and runs the same shapes in
the same order. The last step of a bucket is seldom full: if the last step of a longer
bucket has room for all its rows, they go there, which saves a step. Letters: d devices of
all hosts, b batch rows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data_pipeline.format.dataset import Dataset
from data_pipeline.format.schema import DataError
from data_pipeline.reading.batching import Batching

# Share of the samples that the padded length of a modality without buckets holds.
_HELD = 0.99
_MULTIPLE = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """The steps of one epoch.

  Attributes:
    bucket: int32 (steps,), index into the buckets.
    rows: int32 (steps, d, b), index rows; -1 is padding.
    capacity: entries of a packed modality (ECG recordings) in a device's batch.
    truncated: padded modality -> number of samples longer than the last bucket.
    overflowing: number of samples with more than `max_recordings` packed entries.
  """

  bucket: np.ndarray
  rows: np.ndarray
  capacity: int
  truncated: Mapping[str, int]
  overflowing: int

  def __len__(self) -> int:
    return len(self.bucket)

  @property
  def batch_size(self) -> int:
    """Samples of a full step, over all devices."""
    return self.rows.shape[1] * self.rows.shape[2]

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


def rows_each(batch_size: int, devices: int) -> int:
  """Rows of one device's batch: `batch_size` is rounded up until the devices divide it."""
  return math.ceil(batch_size / devices)


def plan_epoch(
  dataset: Dataset,
  rows: np.ndarray,
  *,
  modalities: Sequence[str],
  batching: Batching,
  batch_rows: int,
  devices: int = 1,
  shuffle: tuple[int, int] | None = None,
  require: str | None = None,
) -> Plan:
  """Plans one epoch over `rows`; a repeated row appears repeatedly.

  Args:
    dataset: the data set.
    rows: index rows, for example `dataset.rows(fold, 'train')`.
    modalities: in the batches; others do not influence buckets.
    batching: capacities of a batch.
    batch_rows: rows of one device's batch.
    devices: of all hosts together.
    shuffle: (seed, epoch) of the order; None: by bucket, then index.
    require: only use samples that have this modality.

  Raises:
    DataError: the buckets do not fit the data set.
  """
  rows = np.sort(np.asarray(rows, np.int64))
  if require is not None:
    rows = rows[dataset.lengths(require)[rows] > 0]
  lengths = {name: dataset.lengths(name)[rows] for name in _padded(dataset, modalities)}
  buckets = buckets_of(dataset, batching, modalities)
  bucket = assign_buckets(lengths, buckets, count=len(rows))
  packed = _packed(dataset, modalities)
  recordings = np.zeros((max(1, len(packed)), len(rows)), np.int64)
  most, overflowing, capacity = batching.max_recordings, 0, 0
  for place, name in enumerate(packed):
    recorded = dataset.lengths(name)[rows]
    recordings[place] = np.minimum(recorded, most)
    overflowing += int((recorded > most).sum())
    per_row = recordings_per_row(dataset, batching, require=require)
    capacity = recordings_capacity(batching, batch_rows, per_row)

  order = np.arange(len(rows))
  generator = None
  if shuffle is not None:
    generator = np.random.default_rng(shuffle)
    generator.shuffle(order)
  fill = lambda inside: _fill(
    order[inside[order]], recordings, batch_rows=batch_rows, devices=devices,
    capacity=capacity,
  )  # fmt: skip
  filled = [fill(bucket == b) for b in range(len(buckets))]
  for b in reversed(range(len(filled) - 1)):
    last = np.zeros(len(rows), bool)
    last[filled[b][-1:][filled[b][-1:] >= 0]] = True
    for longer in range(b + 1, len(filled)):
      merged = fill((bucket == longer) | last)
      if last.any() and len(merged) == len(filled[longer]):
        bucket[last] = longer
        filled[b], filled[longer] = filled[b][:-1], merged
        break
  step_bucket = np.repeat(np.arange(len(filled)), [len(steps) for steps in filled])
  step_bucket = step_bucket.astype(np.int32)
  chosen = np.concatenate(filled)
  step_rows = np.where(chosen >= 0, np.append(rows, -1)[chosen], -1).astype(np.int32)
  if generator is not None:
    shuffled = generator.permutation(len(step_bucket))
    step_rows, step_bucket = step_rows[shuffled], step_bucket[shuffled]
  return Plan(
    bucket=step_bucket,
    rows=step_rows,
    capacity=capacity,
    truncated={
      name: int((length > buckets[-1][name]).sum()) for name, length in lengths.items()
    },
    overflowing=overflowing,
  )


def buckets_of(
  dataset: Dataset, batching: Batching, modalities: Iterable[str] | None = None
) -> list[dict[str, int]]:
  """The padded lengths of every bucket; without buckets in the options, of one bucket.

  A padded modality without bucket lengths has one length in all buckets, which holds all
  but a hundredth of the samples that have the modality.

  Args:
    dataset: the data set.
    batching: capacities of a batch.
    modalities: to include; None: all of the data set.
  """
  buckets = [dict(bucket) for bucket in batching.buckets] or [{}]
  every = dataset.schema.names if modalities is None else modalities
  for name in _padded(dataset, every):
    if not any(name in bucket for bucket in buckets):
      lengths = dataset.lengths(name)
      lengths = lengths[lengths > 0]
      most = np.quantile(lengths, _HELD, method='higher') if len(lengths) else 1
      for bucket in buckets:
        bucket[name] = math.ceil(most / _MULTIPLE) * _MULTIPLE
  return buckets


def _padded(dataset: Dataset, modalities: Iterable[str]) -> list[str]:
  of = dataset.schema.modalities
  return [name for name in modalities if of[name].layout == 'padded']


def _packed(dataset: Dataset, modalities: Iterable[str]) -> list[str]:
  of = dataset.schema.modalities
  return [name for name in modalities if of[name].layout == 'packed']


def recordings_per_row(
  dataset: Dataset, batching: Batching, *, require: str | None = None
) -> float:
  """The capacity for recordings of a batch, per row: the given one, or an ample default.

  Args:
    dataset: the data set.
    batching: capacities of a batch.
    require: as in `plan_epoch`.
  """
  packed = _packed(dataset, dataset.schema.modalities)
  if batching.recordings_per_row or not packed:
    return batching.recordings_per_row
  most = 0.0
  for name in packed:
    kept = np.minimum(dataset.lengths(name), batching.max_recordings).astype(np.int64)
    if require == name:
      kept = kept[kept > 0]
    # A sixth more than the mean, rounded up to quarters.
    mean = kept.mean() if len(kept) else 0.0
    most = max(most, math.ceil(4 * mean * 7 / 6) / 4)
  return most


def recordings_capacity(batching: Batching, batch_rows: int, per_row: float) -> int:
  """Number of recordings in a device's batch of so many rows."""
  return max(batching.max_recordings, math.ceil(batch_rows * per_row))


def assign_buckets(
  lengths: Mapping[str, np.ndarray],
  buckets: Sequence[Mapping[str, int]],
  *,
  count: int,
) -> np.ndarray:
  """First bucket in which all lengths fit, else the last: int64 (count,).

  Args:
    lengths: padded modality -> number of entries (count,).
    buckets: padded length by modality, ascending.
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
    # Lengths ascend, so a sample that fits a bucket fits all later ones.
    chosen += too_long
  return chosen


def _fill(
  order: np.ndarray,
  recordings: np.ndarray,
  *,
  batch_rows: int,
  devices: int,
  capacity: int,
) -> np.ndarray:
  """Fills steps with `order`, indices into `recordings` (p n): (steps, d, b), -1 = padding.

  p counts packed modalities.
  """
  ends = np.cumsum(recordings[:, order], axis=1)
  batches = []
  start = 0
  while start < len(order):
    stop = start + batch_rows
    for of_one in ends:
      used = of_one[start - 1] if start else 0
      stop = min(stop, int(np.searchsorted(of_one, used + capacity, side='right')))
    batch = np.full(batch_rows, -1)
    batch[: stop - start] = order[start:stop]
    batches.append(batch)
    start = stop
  batches.extend([np.full(batch_rows, -1)] * (-len(batches) % devices))
  return np.array(batches, np.int64).reshape(-1, devices, batch_rows)
