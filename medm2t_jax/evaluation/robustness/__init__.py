"""How predictions change when the test input is damaged: one curve per kind of damage.

The restored model predicts the same samples without damage and at every level; nothing is
trained again. Levels of a random damage are nested: entries removed at a lower level are
also removed at a higher one. `robustness_sections.py` draws the curves.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from data_pipeline.ecg import rereading
from data_pipeline.ecg.rereading import Damage
from medm2t_jax.evaluation.context import DamageCurve, DamageLevel
from medm2t_jax.evaluation.random_rows import random_rows
from medm2t_jax.evaluation.robustness import damaged
from medm2t_jax.evaluation.robustness.raw_recordings import RawRecordings
from medm2t_jax.modalities import Modality
from medm2t_jax.modalities.base import Damage as OwnDamage
from medm2t_jax.modalities.fitting import Statistics
from medm2t_jax.runs.hosts import distributed
from medm2t_jax.runs.reader import Batch
from medm2t_jax.runs.run import Run
from medm2t_jax.training import prediction
from medm2t_jax.training.steps import Predictor

HOURS_EARLIER = (1.0, 3.0, 6.0, 12.0)
HOURS_KNOWN = (18.0, 12.0, 6.0, 3.0, 1.0)
MINUTES_BETWEEN = (15.0, 60.0, 240.0)
HOURS_LATE = (1.0, 2.0, 4.0)
PERCENT = (10.0, 30.0, 50.0, 70.0, 90.0)
NOISE = (0.1, 0.3, 1.0)
PERCENT_TENFOLD = (1.0, 5.0)
PAIRS_SWAPPED = (1.0, 3.0)
OTHER_UNITS = (1.0, 3.0)
_UNDAMAGED = 'undamaged'


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
    raw: kind of `rereading.Damage`, '' if the batch itself is damaged.
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
        lambda batch, level: damaged.known_since(batch, modalities, level),
      ),
      Curve(
        'times_earlier',
        'Times too early',
        'Hours by which all times are too early',
        HOURS_EARLIER,
        timed,
        lambda batch, level: damaged.earlier(batch, modalities, level),
      ),
      Curve(
        'charted_late',
        'Charted late',
        'Hours until a value is charted',
        HOURS_LATE,
        timed,
        lambda batch, level: damaged.charted_late(batch, modalities, level),
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
        lambda batch, level: damaged.thinned(batch, modalities, level, seed),
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
      lambda batch, level: damaged.modalities_lost(batch, modalities, level, seed),
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
      version=lambda batch, level: damaged.charted_every(batch, modalities, level),
    ),
    make(
      'values_noisy',
      'Noise on every value',
      'Noise (standard deviations of the variable)',
      NOISE,
      version=lambda batch, level: damaged.noisy_values(
        batch, modalities, level, seed, statistics
      ),
    ),
    make(
      'values_tenfold',
      'Values ten times too large',
      'Values times ten (%)',
      PERCENT_TENFOLD,
      version=lambda batch, level: damaged.tenfold_values(batch, modalities, level, seed),
    ),
    make(
      'variables_swapped',
      'Variables exchanged',
      'Pairs of variables exchanged',
      PAIRS_SWAPPED,
      version=lambda batch, level: damaged.variables_swapped(
        batch, modalities, level, seed
      ),
    ),
    make(
      'units_changed',
      'Variables in a unit ten times as large',
      'Variables in another unit',
      OTHER_UNITS,
      version=lambda batch, level: damaged.units_changed(batch, modalities, level, seed),
    ),
  ]


def _own(modality: Modality, damage: OwnDamage, seed: int) -> Curve:
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


def damaged_predictions(fold: Run, predictor: Predictor, samples: int) -> list[DamageCurve]:
  """Predicts test samples of a fold under every damage.

  Args:
    fold: of the checkpoint.
    predictor: of the multimodal stage.
    samples: largest number of samples per curve, drawn from those that can be damaged.

  Raises:
    DataError: a raw recording exists but cannot be read.
  """
  seed = fold.config.seed
  groups: dict[tuple[str, ...], list[Curve]] = defaultdict(list)
  order = curves(fold.model_config.modalities, fold.statistics, seed)
  for curve in order:
    groups[curve.of].append(curve)
  found: dict[str, DamageCurve] = {}
  for of, group in groups.items():
    rows = choose(fold, of, samples)
    found |= {curve.name: curve for curve in _predict_group(fold, predictor, group, rows)}
  return [found[curve.name] for curve in order]


def choose(fold: Run, of: Sequence[str], samples: int) -> np.ndarray:
  """At most `samples` random test rows with one of the modalities `of`, ascending."""
  rows = fold.splits.rows('test')
  if of:
    rows = rows[np.any([fold.dataset.lengths(name)[rows] > 0 for name in of], axis=0)]
  return random_rows(fold, rows, samples)


def pooled(folds: Sequence[Sequence[DamageCurve]]) -> list[DamageCurve]:
  """One curve per damage over all folds; a curve without samples has a reason."""
  result = []
  for parts in zip(*folds, strict=True):
    reasons = [part.reason for part in parts if part.reason]
    filled = [part for part in parts if part.undamaged is not None]
    if reasons or not filled:
      result.append(
        dataclasses.replace(
          _empty(parts[0]),
          reason=(reasons or ['no test sample has the modality that it damages'])[0],
        )
      )
      continue
    join = lambda arrays: np.concatenate(list(arrays))
    levels = [
      DamageLevel(
        each[0].level,
        join(one.prediction for one in each),
        sum(one.refused for one in each),
      )
      for each in zip(*(part.levels for part in filled), strict=True)
    ]
    result.append(
      dataclasses.replace(
        parts[0],
        samples=join(part.samples for part in filled),
        undamaged=join(part.undamaged for part in filled),
        levels=levels,
      )
    )
  return result


def _predict_group(
  fold: Run,
  predictor: Predictor,
  group: Sequence[Curve],
  rows: np.ndarray,
) -> Iterator[DamageCurve]:
  """Curves over the same samples, predicted in one pass."""
  if not len(rows):
    yield from (_empty(curve) for curve in group)
    return
  reason = raw = None
  if any(curve.raw for curve in group):
    most = fold.config.data.max_recordings
    # Decided by the first process, so that all processes do the same.
    reason = distributed.from_first(lambda: _why_not_found(fold, rows, most))
    if reason is None:
      (name,) = group[0].of
      located = rereading.locate(fold.dataset, rows, most)
      raw = RawRecordings(name, located, fold.config.seed)
  in_batch = [(curve, level) for curve in group if curve.version for level in curve.levels]
  of_raw = [
    (curve, level) for curve in group if curve.raw and raw for level in curve.levels
  ]
  damages = [Damage(curve.raw, level) for curve, level in of_raw]

  def versions(batch: Batch) -> Iterator[Batch]:
    yield batch
    for curve, level in in_batch:
      assert curve.version is not None
      yield curve.version(batch, level)
    if raw is not None:
      yield from raw.versions(batch, damages)

  stage = 'multimodal'
  modalities = fold.modalities_of(stage)
  found, predictions = prediction.predict(
    fold,
    stage,
    predictor,
    fold.reader.plan(rows, modalities, fold.config.evaluation.batch_size),
    f'damaged {" or ".join(group[0].of) or "samples"}',
    names=[_UNDAMAGED, *(_key(*each) for each in (*in_batch, *of_raw))],
    versions=versions,
  )
  refused = np.array([[0 if raw is None else raw.refused[each] for each in damages]])
  refused = dict(zip(damages, distributed.gather(refused).sum(axis=0), strict=True))
  for curve in group:
    if curve.raw and raw is None:
      yield dataclasses.replace(_empty(curve), reason=reason)
      continue
    levels = [
      DamageLevel(
        level,
        predictions[_key(curve, level)],
        int(refused.get(Damage(curve.raw, level), 0)),
      )
      for level in curve.levels
    ]
    yield dataclasses.replace(
      _empty(curve),
      samples=fold.dataset.index['sample_id'][found],
      undamaged=predictions[_UNDAMAGED],
      levels=levels,
    )


def _empty(curve: Curve | DamageCurve) -> DamageCurve:
  return DamageCurve(curve.name, curve.title, curve.axis)


def _key(curve: Curve, level: float) -> str:
  return f'{curve.name} {level:g}'


def _why_not_found(fold: Run, rows: np.ndarray, most: int) -> str | None:
  try:
    rereading.locate(fold.dataset, rows, most)
  except rereading.RawRecordingsNotFound as error:
    return str(error)
  return None
