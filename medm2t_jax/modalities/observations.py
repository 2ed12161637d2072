"""Observations of a modality one by one, as baselines read them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


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
