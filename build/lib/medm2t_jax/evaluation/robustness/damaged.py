"""Damage to what a batch knows: times, entries, whole modalities, the first hours.

Each function returns a new batch of the same shapes that is what the data set would have
given: entries in order of time without gaps, zeros under false masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medm2t_jax.modalities import Modality, draws
from medm2t_jax.runs.run import Batch

Modalities = Sequence[Modality]


def earlier(batch: Batch, modalities: Modalities, hours: float) -> dict[str, Any]:
  """Everything with a time happened `hours` (0 or more) earlier than it did."""
  moved = {
    each.name: each.earlier(batch[each.name], hours) for each in modalities if each.timed
  }
  return {**batch, **moved}


def known_since(batch: Batch, modalities: Modalities, hours: float) -> dict[str, Any]:
  """Only what lies in the last `hours` before the prediction time is known.

  What has no time stays.
  """
  known = {
    each.name: each.known_since(batch[each.name], hours)
    for each in modalities
    if each.timed
  }
  return {**batch, **known}


def thinned(
  batch: Batch, modalities: Modalities, percent: float, seed: int
) -> dict[str, Any]:
  """`percent` of the events and of the observed grid cells removed at random.

  What a lower share removes, a higher one removes too.
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
  """Each modality of each sample lost with a probability of `percent`."""
  result = dict(batch)
  for each in modalities:
    keep = draws.uniform(batch['row'], seed, f'lose {each.name}') >= percent / 100
    result[each.name] = each.lost(batch[each.name], keep)
  return result
