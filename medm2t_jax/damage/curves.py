"""The kinds of damage that models are tested with, and trained with.

Levels of a random damage are nested: entries removed at a lower level are also removed at
a higher one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medm2t_jax.damage import batches
from medm2t_jax.modalities import Modality
from medm2t_jax.modalities.base import Damage
from medm2t_jax.modalities.fitting import Statistics

Batch = Mapping[str, Any]

HOURS_EARLIER = (1.0, 3.0, 6.0, 12.0)
HOURS_KNOWN = (18.0, 12.0, 6.0, 3.0, 1.0)
MINUTES_BETWEEN = (15.0, 60.0, 240.0)
HOURS_LATE = (1.0, 2.0, 4.0)
PERCENT = (10.0, 30.0, 50.0, 70.0, 90.0)
NOISE = (0.1, 0.3, 1.0)
PERCENT_TENFOLD = (1.0, 5.0)
PAIRS_SWAPPED = (1.0, 3.0)
OTHER_UNITS = (1.0, 3.0)


@dataclasses.dataclass(frozen=True)
class Curve:
  """One kind of damage.

  Attributes:
    name: of the curve.
    title: in words.
    axis: what a level measures; curves with the same axis share a picture.
    levels: from mild to severe.
    of: only samples with one of these modalities are damaged; () means all samples.
    version: (batch, level) -> the damaged batch; None for damage of raw recordings.
    raw: kind of `rereading.Damage`, '' if the batch itself is batches.
    in_training: whether `config.augmentation` does it to training samples; `version` then
      takes a level for each of them (d b).
  """

  name: str
  title: str
  axis: str
  levels: tuple[float, ...]
  of: tuple[str, ...]
  version: Callable[[Batch, Any], Batch] | None = None
  raw: str = ''
  in_training: bool = False


def curves(
  modalities: Sequence[Modality], statistics: Statistics, seed: int
) -> list[Curve]:
  """Every damage that applies to a model's modalities, in the order of the report.

  Args:
    modalities: of the model.
    statistics: of its training subjects.
    seed: of random damage.
  """
  timed = tuple(each.name for each in modalities if each.timed)
  counted = tuple(each.name for each in modalities if each.thinned_by_damage)
  result = []
  if timed:
    result += [
      Curve(
        'later_start',
        'Observation starts later',
        'Hours known before the prediction time',
        HOURS_KNOWN,
        timed,
        lambda batch, level: batches.known_since(batch, modalities, level),
      ),
      Curve(
        'times_earlier',
        'Times too early',
        'Hours by which all times are too early',
        HOURS_EARLIER,
        timed,
        lambda batch, level: batches.earlier(batch, modalities, level),
      ),
      Curve(
        'charted_late',
        'Charted late',
        'Hours until a value is charted',
        HOURS_LATE,
        timed,
        lambda batch, level: batches.charted_late(batch, modalities, level),
        in_training=True,
      ),
    ]
  if counted:
    result.append(
      Curve(
        'events_removed',
        'Events and grid cells removed at random',
        'Removed (%)',
        PERCENT,
        counted,
        lambda batch, level: batches.thinned(batch, modalities, level, seed),
      )
    )
    result += _of_values(modalities, statistics, seed, counted)
  result.append(
    Curve(
      'modalities_lost',
      'Modalities lost at random',
      'Modalities lost (%)',
      PERCENT,
      (),
      lambda batch, level: batches.modalities_lost(batch, modalities, level, seed),
    )
  )
  return result + [
    _own(each, damage, seed) for each in modalities for damage in each.damages()
  ]


def _of_values(
  modalities: Sequence[Modality], statistics: Statistics, seed: int, of: tuple[str, ...]
) -> list[Curve]:
  """Curves of how often variables are charted, and of wrong numbers."""
  make = functools.partial(Curve, of=of, in_training=True)
  return [
    make(
      'charted_rarely',
      'Charted rarely',
      'Minutes for each value of a variable',
      MINUTES_BETWEEN,
      version=lambda batch, level: batches.charted_every(batch, modalities, level),
    ),
    make(
      'values_noisy',
      'Noise on every value',
      'Noise (standard deviations of the variable)',
      NOISE,
      version=lambda batch, level: batches.noisy_values(
        batch, modalities, level, seed, statistics
      ),
    ),
    make(
      'values_tenfold',
      'Values ten times too large',
      'Values times ten (%)',
      PERCENT_TENFOLD,
      version=lambda batch, level: batches.tenfold_values(batch, modalities, level, seed),
    ),
    make(
      'variables_swapped',
      'Variables exchanged',
      'Pairs of variables exchanged',
      PAIRS_SWAPPED,
      version=lambda batch, level: batches.variables_swapped(
        batch, modalities, level, seed
      ),
    ),
    make(
      'units_changed',
      'Variables in a unit ten times as large',
      'Variables in another unit',
      OTHER_UNITS,
      version=lambda batch, level: batches.units_changed(batch, modalities, level, seed),
    ),
  ]


def _own(modality: Modality, damage: Damage, seed: int) -> Curve:
  """The curve of a damage that only one kind of modality can have."""
  name, change = modality.name, damage.change

  def version(batch: Batch, level: Any) -> Batch:
    assert change is not None
    return {**batch, name: change(batch[name], batch['row'], level, seed)}

  return Curve(
    damage.name,
    damage.title,
    damage.axis,
    damage.levels,
    (name,),
    None if change is None else version,
    damage.raw,
    damage.in_training,
  )
