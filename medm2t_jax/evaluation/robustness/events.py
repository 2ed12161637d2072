"""Damage to what a batch knows: times, events, whole modalities, the first hours.

Each function returns a new batch of the same shapes that is what the data set would have
given: events in order of time without gaps, zeros under false masks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from data_pipeline.format.schema import Schema
from medm2t_jax.evaluation.robustness import masking
from medm2t_jax.runs.run import Batch


def earlier(batch: Batch, schema: Schema, hours: float) -> dict[str, Any]:
  """Everything with a time happened `hours` (0 or more) earlier than it did.

  Grid cells move by whole steps; those that leave the grid are lost.
  """
  result = dict(batch)
  timed = (*schema.events, *(name for name in ('ecg',) if name in schema.modalities))
  for name in timed:
    arrays = batch[name]
    moved = arrays['time'] - np.float32(hours)
    time = np.where(arrays['mask'], moved, np.float32(0))
    result[name] = {**arrays, 'time': time}
  for name, grid in schema.grids.items():
    steps = min(round(hours / grid.step_hours), grid.steps)
    result[name] = {
      key: np.concatenate([array[:, :, steps:], np.zeros_like(array[:, :, :steps])], axis=2)
      for key, array in batch[name].items()
    }
  return result


def thinned(batch: Batch, schema: Schema, percent: float, seed: int) -> dict[str, Any]:
  """`percent` of the events and of the observed grid cells removed at random.

  What a lower share removes, a higher one removes too.
  """
  result = dict(batch)
  rows, share = batch['row'], percent / 100
  for name in schema.events:
    drawn = masking.uniform(rows, seed, f'thin {name}', batch[name]['mask'].shape[2:])
    result[name] = masking.keep_events(batch[name], drawn >= share)
  for name in schema.grids:
    drawn = masking.uniform(rows, seed, f'thin {name}', batch[name]['value'].shape[2:])
    result[name] = masking.keep_cells(batch[name], drawn >= share)
  return result


def modalities_lost(
  batch: Batch, schema: Schema, percent: float, seed: int
) -> dict[str, Any]:
  """Each modality of each sample lost with a probability of `percent`."""
  result = dict(batch)
  for name in schema.modalities:
    keep = masking.uniform(batch['row'], seed, f'lose {name}') >= percent / 100
    if name == 'static':
      result[name] = masking.keep_static(batch[name], keep)
    elif name == 'ecg':
      kept = np.take_along_axis(keep, batch['ecg']['owner'], axis=1)
      result[name] = masking.keep_recordings(batch[name], kept)
    elif name in schema.grids:
      result[name] = masking.keep_cells(batch[name], keep[..., None, None])
    else:
      result[name] = masking.keep_events(batch[name], keep[..., None])
  return result


def known_since(batch: Batch, schema: Schema, hours: float) -> dict[str, Any]:
  """Only what lies in the last `hours` before the prediction time is known.

  Static variables stay. A grid ends at the prediction time and keeps its last whole
  steps.
  """
  result = dict(batch)
  for name in schema.events:
    keep = batch[name]['time'] >= np.float32(-hours)
    result[name] = masking.keep_events(batch[name], keep)
  for name, grid in schema.grids.items():
    # Rounded: 3 h of 0.1 h are 30 steps, not 29.
    known = min(grid.steps, np.floor(round(hours / grid.step_hours, 6)))
    keep = np.arange(grid.steps) >= grid.steps - known
    result[name] = masking.keep_cells(batch[name], keep[None, None, :, None])
  if 'ecg' in schema.modalities:
    keep = batch['ecg']['time'] >= np.float32(-hours)
    result['ecg'] = masking.keep_recordings(batch['ecg'], keep)
  return result
