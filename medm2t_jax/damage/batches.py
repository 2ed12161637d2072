"""Damages batches: times, entries, values, whole modalities, the first hours.

Each function returns a new batch of the same shapes, as the data set would have given it:
entries in order of time without gaps, zeros under False masks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from medm2t_jax.modalities import Modality, draws
from medm2t_jax.modalities.base import Level
from medm2t_jax.modalities.fitting import Statistics

Batch = Mapping[str, Any]
Modalities = Sequence[Modality]
TENFOLD = 10.0
# Of a variable reported in a unit ten times as large, such as g/dL in place of g/L.
OTHER_UNIT = 0.1


def earlier(batch: Batch, modalities: Modalities, hours: float) -> dict[str, Any]:
  """Moves everything with a time `hours` (0 or more) back in time."""
  return _each(batch, modalities, lambda one, arrays: one.earlier(arrays, hours))


def known_since(batch: Batch, modalities: Modalities, hours: float) -> dict[str, Any]:
  """Removes everything from before the last `hours`; data without a time stay."""
  return _each(batch, modalities, lambda one, arrays: one.known_since(arrays, hours))


def thinned(
  batch: Batch, modalities: Modalities, percent: float, seed: int
) -> dict[str, Any]:
  """Removes `percent` of the events and observed grid cells at random.

  Entries removed at a lower percentage are also removed at a higher one.
  """
  rows, share = batch['row'], percent / 100
  left = {
    each.name: each.thinned(batch[each.name], rows, share, seed)
    for each in modalities
    if each.thinned_by_damage
  }
  return {**batch, **left}


def charted_every(batch: Batch, modalities: Modalities, minutes: Level) -> dict[str, Any]:
  """Keeps one value of each variable, the last, in every so many minutes."""
  return _each(batch, modalities, lambda one, arrays: one.charted_every(arrays, minutes))


def charted_late(batch: Batch, modalities: Modalities, hours: Level) -> dict[str, Any]:
  """Removes what the last `hours` brought, because it is not charted yet."""
  return _each(batch, modalities, lambda one, arrays: one.charted_late(arrays, hours))


def noisy_values(
  batch: Batch,
  modalities: Modalities,
  strength: Level,
  seed: int,
  statistics: Statistics,
) -> dict[str, Any]:
  """Adds normal noise to every number of an event or a grid cell.

  Args:
    batch: to damage.
    modalities: of the model.
    strength: standard deviation of the noise, in those of the variable.
    seed: of the noise; at another strength it is the same noise, louder.
    statistics: of the training subjects, with each variable's spread.
  """

  def noisy(one: Modality, arrays: Mapping[str, Any]) -> Mapping[str, Any]:
    spread = one.spread(statistics[one.name])

    def change(value: np.ndarray, item: np.ndarray) -> np.ndarray:
      drawn = draws.uniform(batch['row'], seed, f'noise {one.name}', value.shape[2:])
      normal = special.ndtri(np.clip(drawn, 1e-12, 1 - 1e-12))
      return value + _wide(strength, value) * spread[item] * normal

    return one.with_numbers(arrays, change)

  return _each(batch, modalities, noisy)


def tenfold_values(
  batch: Batch, modalities: Modalities, percent: Level, seed: int
) -> dict[str, Any]:
  """Multiplies `percent` of the numbers, chosen at random, by ten."""

  def slipped(one: Modality, arrays: Mapping[str, Any]) -> Mapping[str, Any]:
    def change(value: np.ndarray, item: np.ndarray) -> np.ndarray:
      del item
      drawn = draws.uniform(batch['row'], seed, f'tenfold {one.name}', value.shape[2:])
      return np.where(drawn < _wide(percent, value) / 100, value * TENFOLD, value)

    return one.with_numbers(arrays, change)

  return _each(batch, modalities, slipped)


def variables_swapped(
  batch: Batch, modalities: Modalities, pairs: Level, seed: int
) -> dict[str, Any]:
  """Exchanges the numbers of `pairs` pairs of variables in each modality.

  The pairs are the same for all samples; more pairs include those of fewer.
  """

  def swapped(one: Modality, arrays: Mapping[str, Any]) -> Mapping[str, Any]:
    chosen = _numeric(one, seed)
    count = len(chosen) // 2
    first, second = chosen[0 : 2 * count : 2], chosen[1 : 2 * count : 2]
    here = np.arange(count) < _of_rows(batch, pairs)[..., np.newaxis]
    order = np.broadcast_to(
      np.arange(len(one.spec.variables)), (*here.shape[:2], len(one.spec.variables))
    ).copy()
    order[..., first] = np.where(here, second, first)
    order[..., second] = np.where(here, first, second)
    return one.relabelled(arrays, order)

  return _each(batch, modalities, swapped)


def units_changed(
  batch: Batch, modalities: Modalities, variables: Level, seed: int
) -> dict[str, Any]:
  """Gives the numbers of `variables` variables of each modality in another unit.

  The variables are the same for all samples; more of them include fewer.
  """

  def changed(one: Modality, arrays: Mapping[str, Any]) -> Mapping[str, Any]:
    chosen = _numeric(one, seed)
    place = np.full(len(one.spec.variables), len(chosen))
    place[chosen] = np.arange(len(chosen))
    count = np.minimum(_of_rows(batch, variables), len(chosen))

    def change(value: np.ndarray, item: np.ndarray) -> np.ndarray:
      return np.where(place[item] < _wide(count, value), value * OTHER_UNIT, value)

    return one.with_numbers(arrays, change)

  return _each(batch, modalities, changed)


def _each(
  batch: Batch,
  modalities: Modalities,
  change: Callable[[Modality, Mapping[str, Any]], Mapping[str, Any]],
) -> dict[str, Any]:
  """The batch with every timed modality changed."""
  changed = {
    each.name: change(each, batch[each.name])
    for each in modalities
    if each.timed and each.name in batch
  }
  return {**batch, **changed}


def _numeric(modality: Modality, seed: int) -> np.ndarray:
  """Indices of the variables with numbers, in a random order."""
  variables = modality.spec.variables
  numbers = [index for index, each in enumerate(variables) if not each.categories]
  order = draws.generator(0, seed, f'variables {modality.name}').permutation(len(numbers))
  return np.array(numbers, np.int64)[order]


def _of_rows(batch: Batch, level: Level) -> np.ndarray:
  return np.broadcast_to(np.asarray(level), batch['row'].shape)


def _wide(level: Level, like: np.ndarray) -> np.ndarray:
  """A level with the axes of an array that begins with d b."""
  level = np.asarray(level, np.float64)
  return (
    level.reshape(*level.shape, *(1,) * (like.ndim - level.ndim)) if level.ndim else level
  )


def modalities_lost(
  batch: Batch, modalities: Modalities, percent: float, seed: int
) -> dict[str, Any]:
  """Removes each modality of each sample with a probability of `percent`."""
  result = dict(batch)
  for each in modalities:
    keep = draws.uniform(batch['row'], seed, f'lose {each.name}') >= percent / 100
    result[each.name] = each.lost(batch[each.name], keep)
  return result
