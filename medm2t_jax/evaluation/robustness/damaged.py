"""Damages batches: times, entries, whole modalities, the first hours.

Each function returns a new batch of the same shapes, as the data set would have given it:
entries in order of time without gaps, zeros under False masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medm2t_jax.modalities import Modality, draws
from medm2t_jax.runs.run import Batch

Modalities = Sequence[Modality]


def earlier(batch: Batch, modalities: Modalities, hours: float) -> dict[str, Any]:
  """Moves everything with a time `hours` (0 or more) back in time."""
  moved = {
    each.name: each.earlier(batch[each.name], hours) for each in modalities if each.timed
  }
  return {**batch, **moved}


def known_since(batch: Batch, modalities: Modalities, hours: float) -> dict[str, Any]:
  """Removes everything from before the last `hours`; data without a time stay."""
  known = {
    each.name: each.known_since(batch[each.name], hours)
    for each in modalities
    if each.timed
  }
  return {**batch, **known}


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


def modalities_lost(
  batch: Batch, modalities: Modalities, percent: float, seed: int
) -> dict[str, Any]:
  """Removes each modality of each sample with a probability of `percent`."""
  result = dict(batch)
  for each in modalities:
    keep = draws.uniform(batch['row'], seed, f'lose {each.name}') >= percent / 100
    result[each.name] = each.lost(batch[each.name], keep)
  return result
