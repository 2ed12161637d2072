"""Means of all observations in time windows: the inputs of the GRU.

If a task has an observation window of fixed length, a time window is one hour. If it
observes the whole history, time windows are log-spaced: the last is the hour before the
prediction time, the first is everything older than `OLDEST_HOURS`.

Letters: n samples, t windows, l levels: one per numeric item or signal, and one per
category of a categorical item.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from data_pipeline.format.schema import Item
from medm2t_jax.baselines.reading import Batch
from medm2t_jax.modalities import Modality
from medm2t_jax.modalities.base import Observations

LOG_SPACED = 24
OLDEST_HOURS = 24.0 * 365 * 5


def window_ends(observation_hours: float | None) -> np.ndarray:
  """End of each window, in hours, ascending to 0: float64 (t).

  Args:
    observation_hours: of the data set; None: the whole history.
  """
  if observation_hours is not None:
    return np.arange(1.0 - math.ceil(observation_hours), 1.0)
  return np.append(-np.geomspace(OLDEST_HOURS, 1.0, LOG_SPACED - 1), 0.0)


def windowed(
  batches: Iterable[Batch], modalities: Sequence[Modality], observation_hours: float | None
) -> np.ndarray:
  """Mean of each level in each window, float32 (n t l), NaN where nothing was observed.

  For a category it is the share of the item's observations in the window. Samples are in
  the order of the data set's index.

  Args:
    batches: from `reading.batches`.
    modalities: of the model; those that are `windowed` are read.
    observation_hours: as in `window_ends`.
  """
  cuts = window_ends(observation_hours)[:-1]
  rows, parts = [], []
  for batch in batches:
    valid = batch['row'] >= 0
    rows.append(batch['row'][valid])
    parts.append(_means(batch, modalities, cuts)[valid])
  return np.concatenate(parts)[np.argsort(np.concatenate(rows))]


def _means(batch: Batch, modalities: Sequence[Modality], cuts: np.ndarray) -> np.ndarray:
  samples = len(batch['row'])
  parts = [np.zeros((samples, len(cuts) + 1, 0), np.float32)]
  for each in modalities:
    if each.windowed:
      observed = each.observations(batch[each.name])
      parts.append(_modality(observed, each.spec.variables, cuts, samples))
  return np.concatenate(parts, axis=2)


def _modality(
  observed: tuple[Observations, Observations | None],
  items: tuple[Item, ...],
  cuts: np.ndarray,
  samples: int,
) -> np.ndarray:
  """Windowed means of one modality, float32 (n t l)."""
  levels = [max(1, len(item.categories)) for item in items]
  first = np.concatenate([[0], np.cumsum(levels)])
  item_of_level = np.repeat(np.arange(len(items)), levels)
  shape = (samples, len(cuts) + 1)
  total = np.zeros((*shape, first[-1]))
  count = np.zeros((*shape, len(items)))
  numbers, categories = observed
  for each, categorical in ((numbers, False), (categories, True)):
    if each is None:
      continue
    window = np.searchsorted(cuts, each.time, side='right')
    cell = each.sample * shape[1] + window
    level = first[each.item] + (each.value.astype(np.int64) if categorical else 0)
    value = np.ones(len(cell)) if categorical else each.value
    total += _sums(cell * total.shape[2] + level, value, total.shape)
    count += _sums(cell * len(items) + each.item, np.ones(len(cell)), count.shape)
  count = count[:, :, item_of_level]
  return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _sums(index: np.ndarray, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Sums of values with equal flat index, as an array of `shape`."""
  return np.bincount(index, value, minlength=math.prod(shape)).reshape(shape)
