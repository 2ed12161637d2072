"""Parts of a batch that stay, and random numbers that follow the sample.

What is taken out of a batch leaves it as if it had never been recorded: what stays moves
together, and everything under a false mask is 0 (docs/design.md, "The batch"). Letters:
d devices, b batch rows, n events, m recordings, g grid steps, v signals.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

Arrays = Mapping[str, Any]


def keep_events(events: Arrays, keep: np.ndarray) -> dict[str, Any]:
  """The events of an event modality where `keep`, bool (d b n), and its mask are true."""
  return _keep(events, np.asarray(events['mask'] & keep))


def keep_recordings(ecg: Arrays, keep: np.ndarray) -> dict[str, Any]:
  """The recordings where `keep`, bool (d m), and their mask are true."""
  return _keep(ecg, np.asarray(ecg['mask'] & keep))


def keep_cells(grid: Arrays, keep: np.ndarray) -> dict[str, Any]:
  """The cells of a grid modality where `keep` (d b g v) is true and one was observed."""
  observed = grid['observed'] & keep
  return {'value': np.where(observed, grid['value'], np.float32(0)), 'observed': observed}


def keep_static(static: Arrays, keep: np.ndarray) -> dict[str, Any]:
  """The static variables of the rows where `keep`, bool (d b), is true."""
  keep = keep[..., None]
  return {
    'numeric': np.where(keep, static['numeric'], np.float32(0)),
    'numeric_mask': static['numeric_mask'] & keep,
    'categorical': np.where(keep, static['categorical'], np.int32(-1)),
  }


def owners(batch: Arrays) -> np.ndarray:
  """Index row of the sample of each recording slot: int32 (d m)."""
  return np.take_along_axis(batch['row'], batch['ecg']['owner'], axis=1)


def uniform(
  rows: np.ndarray, seed: int, name: str, shape: tuple[int, ...] = ()
) -> np.ndarray:
  """Random numbers in [0, 1) for each sample: float64 (d b *shape).

  They are a function of the seed, the sample and the name, and a longer first axis of
  `shape` only adds numbers, so that neither batch mates nor padding change a draw.

  Args:
    rows: (d b) index rows, -1 for padding, which draws nothing: 1.
    seed: of the draws.
    name: of what is drawn.
    shape: of the numbers of one sample.
  """
  result = np.ones((*rows.shape, *shape))
  for place in np.argwhere(rows >= 0):
    place = tuple(place)
    result[place] = generator(int(rows[place]), seed, name).random(shape)
  return result


def generator(row: int, seed: int, name: str) -> np.random.Generator:
  """Random numbers of one sample."""
  return np.random.default_rng((seed, row, zlib.crc32(name.encode())))


def _keep(arrays: Arrays, kept: np.ndarray) -> dict[str, Any]:
  """Moves what is kept to the front of the last axis of `kept`; zeros follow."""
  if np.array_equal(kept, arrays['mask']):
    return dict(arrays)
  axis = kept.ndim - 1
  order = np.argsort(~kept, axis=axis, kind='stable')
  mask = np.take_along_axis(kept, order, axis)
  result = {}
  for name, array in arrays.items():
    wide = lambda index, array=array: index.reshape(
      index.shape + (1,) * (array.ndim - index.ndim)
    )
    moved = np.take_along_axis(array, wide(order), axis)
    result[name] = np.where(wide(mask), moved, np.zeros((), moved.dtype))
  return {**result, 'mask': mask}
