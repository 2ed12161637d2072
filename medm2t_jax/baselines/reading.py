"""What the baselines read: the same samples and the same events that the model is given.

Batches come from the input pipeline, so a sample that is longer than the last bucket is
cut for the baselines as it is for the model. ECG signals are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from data_pipeline.format.dataset import Split
from data_pipeline.format.schema import Schema
from medm2t_jax.runs.run import Run

Batch = Mapping[str, Any]


class Observations(NamedTuple):
  """Observations of a batch's samples, those of a sample in the order of their times.

  Attributes:
    sample: row of the batch, int64 (o).
    item: index into the modality's items, int64 (o).
    value: float64 (o); of a category, its index among the item's categories.
    time: hours, at most 0; of a grid cell its middle, float64 (o).
  """

  sample: np.ndarray
  item: np.ndarray
  value: np.ndarray
  time: np.ndarray


def batches(fold: Run, split: Split) -> Iterator[Batch]:
  """All samples of a split once, without ECG signals and without a device axis.

  Reads in this process alone, whatever the number of processes.

  Raises:
    DataError: a record is damaged.
  """
  modalities = fold.dataset.schema.modalities
  plan = fold.plan(split, modalities, fold.config.evaluation.batch_size)
  steps = fold.reader.read_here(plan, modalities, signals=False)
  name = f'fold {fold.fold} {split}, for baselines'
  for batch in tqdm(steps, desc=name, total=len(plan), unit='step', leave=False):
    yield joined(batch)


def joined(batch: Batch) -> Batch:
  """A batch of several devices as one of a single device, without the device axis."""
  devices, rows = batch['row'].shape
  result = jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), dict(batch))
  if 'ecg' in result:
    recordings = batch['ecg']['owner'].shape[1]
    first = np.repeat(rows * np.arange(devices, dtype=np.int32), recordings)
    result['ecg']['owner'] = result['ecg']['owner'] + first
  return result


def numbers(batch: Batch, schema: Schema, modality: str) -> Observations:
  """The observed numbers of an event modality, a grid, or the ECG measurements."""
  if modality in schema.grids:
    return _cells(batch[modality], schema.grids[modality].step_hours)
  if modality == 'ecg':
    return _measurements(batch['ecg'])
  events = batch[modality]
  return _events(events, events['mask'] & (events['category'] < 0), 'value')


def categories(batch: Batch, modality: str) -> Observations:
  """The observed categories of an event modality."""
  events = batch[modality]
  return _events(events, events['mask'] & (events['category'] >= 0), 'category')


def _events(events: Batch, chosen: np.ndarray, value: str) -> Observations:
  sample, _ = np.nonzero(chosen)
  return Observations(
    sample,
    events['item'][chosen].astype(np.int64),
    events[value][chosen].astype(np.float64),
    events['time'][chosen].astype(np.float64),
  )


def _cells(grid: Batch, step_hours: float) -> Observations:
  sample, step, signal = np.nonzero(grid['observed'])
  steps = grid['observed'].shape[1]
  value = grid['value'][sample, step, signal].astype(np.float64)
  return Observations(sample, signal, value, (step + 0.5 - steps) * step_hours)


def _measurements(ecg: Batch) -> Observations:
  recording, measurement = np.nonzero(ecg['measurements_mask'] & ecg['mask'][:, None])
  return Observations(
    ecg['owner'][recording].astype(np.int64),
    measurement,
    ecg['measurements'][recording, measurement].astype(np.float64),
    ecg['time'][recording].astype(np.float64),
  )
