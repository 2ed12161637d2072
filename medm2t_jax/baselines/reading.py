"""Reads the inputs of the baselines: the same samples and events as for the model.

Batches come from the input pipeline, so a sample longer than the last bucket is cut for the
baselines as it is for the model. ECG signals are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from data_pipeline.format.dataset import Split
from medm2t_jax.runs.run import Run

Batch = Mapping[str, Any]


def batches(fold: Run, split: Split) -> Iterator[Batch]:
  """All samples of a split once, without ECG signals and without a device axis.

  Every process reads all of them.

  Raises:
    DataError: a record is damaged.
  """
  modalities = fold.dataset.schema.names
  plan = fold.plan(split, modalities, fold.config.evaluation.batch_size)
  steps = fold.reader.read_here(plan, modalities, signals=False)
  name = f'fold {fold.fold} {split}, for baselines'
  for batch in tqdm(steps, desc=name, total=len(plan), unit='step', leave=False):
    yield joined(batch)


def joined(batch: Batch) -> Batch:
  """A batch of several devices as a batch of one device, without the device axis."""
  devices, rows = batch['row'].shape
  result = jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), dict(batch))
  for name, arrays in batch.items():
    if isinstance(arrays, Mapping) and 'owner' in arrays:
      slots = arrays['owner'].shape[1]
      first = np.repeat(rows * np.arange(devices, dtype=np.int32), slots)
      result[name]['owner'] = result[name]['owner'] + first
  return result
