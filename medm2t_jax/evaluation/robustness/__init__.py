"""How predictions change when the test input is damaged: one curve per kind of damage.

The restored model predicts the same samples without damage and at every level; nothing is
trained again.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from data_pipeline.ecg import rereading
from data_pipeline.ecg.rereading import Damage
from medm2t_jax.damage.curves import Curve, curves
from medm2t_jax.evaluation.context import DamageCurve, DamageLevel
from medm2t_jax.evaluation.random_rows import random_rows
from medm2t_jax.evaluation.robustness.raw_recordings import RawRecordings
from medm2t_jax.runs.hosts import distributed
from medm2t_jax.runs.reader import Batch
from medm2t_jax.runs.run import Run
from medm2t_jax.training import prediction
from medm2t_jax.training.steps import Predictor

_UNDAMAGED = 'undamaged'


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
