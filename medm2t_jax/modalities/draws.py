"""Random numbers that depend on the sample.

Letters: d devices, b batch rows, m recordings.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np


def uniform(
  rows: np.ndarray, seed: int, name: str, shape: tuple[int, ...] = ()
) -> np.ndarray:
  """Random numbers in [0, 1) for each sample: float64 (d b *shape).

  They depend only on the seed, the sample and the name, and a longer first axis of `shape`
  only adds numbers. So neither other samples nor padding change a draw.

  Args:
    rows: (d b) index rows, -1 for padding, whose numbers are 1.
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
  """Random number generator of one sample."""
  return np.random.default_rng((seed, row, zlib.crc32(name.encode())))


def owners(rows: np.ndarray, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
  """Index row of the sample of each entry of packed arrays: int32 (d m)."""
  return np.take_along_axis(rows, arrays['owner'], axis=1)
