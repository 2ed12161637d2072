"""All figures of a set of predictions: what `metrics.json` holds.

A new kind of figure is one more key here and one more section in `sections.py`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from medm2t_jax import targets
from medm2t_jax.evaluation import decisions
from medm2t_jax.evaluation.baseline_comparison import baselines
from medm2t_jax.evaluation.context import Context
from medm2t_jax.evaluation.explain.explanation import explanation
from medm2t_jax.evaluation.metrics import calibration
from medm2t_jax.evaluation.metrics.bootstrap import COVERAGE, RESAMPLES
from medm2t_jax.evaluation.metrics.metrics import NAMES, headline_figure, score
from medm2t_jax.evaluation.missing_modality import missing_modality
from medm2t_jax.evaluation.robustness.curve_metrics import robustness
from medm2t_jax.evaluation.rows import Rows, read_rows
from medm2t_jax.evaluation.subgroups import LEAST_EVENTS, LEAST_SAMPLES, subgroups

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Figures and the rows behind them.

  Attributes:
    metrics: the content of `metrics.json`.
    context: what the report says beside the predictions.
    test: the test rows of all folds that were run.
    calibrated: the same rows with scaled probabilities, None where not possible.
  """

  metrics: dict[str, Any]
  context: Context
  test: Rows
  calibrated: Rows | None


def evaluate(
  predictions: pa.Table, context: Context, resamples: int = RESAMPLES, seed: int = 0
) -> Evaluation:
  """Computes every figure over the test rows of `predictions`.

  Raises:
    DataError: the predictions do not fit the schema, the scenarios or the damage.
  """
  test, validation = read_rows(predictions, context.schema)
  target = context.schema.target
  pooled = score(test, resamples, seed)
  key = headline_figure(test)
  metrics: dict[str, Any] = {
    'format': FORMAT,
    'task': context.schema.task,
    'source': context.schema.source,
    'dataset_version': context.dataset_version,
    'target': dataclasses.asdict(target),
    'modalities': list(context.schema.modalities),
    'bootstrap': {
      'unit': 'subject',
      'resamples': resamples,
      'seed': seed,
      'coverage': COVERAGE,
    },
    'test': test.counts(),
    'headline': {
      'figure': key,
      'name': NAMES[key],
      'average': pooled.get('average'),
      **pooled['overall'][key],
    },
    'pooled': pooled,
    'folds': {
      str(fold): score(test.take(test.fold == fold), resamples, seed)
      for fold in np.unique(test.fold)
    },
    'predicted': calibration.predicted(test),
    'subgroups': subgroups(test, resamples, seed),
    'missing_modality': missing_modality(test, context.scenarios, resamples, seed),
    'baselines': baselines(test, context.baselines, resamples, seed),
    'robustness': robustness(test, context.damage, resamples, seed),
    'explanation': explanation(context.explanation),
    'trained_on': [dict(each) for each in context.trained_on],
    'stages': [dict(stage) for stage in context.stages],
  }
  scaled = None
  if not target.numeric:
    true = targets.of(target).is_true(test.label)
    metrics['test']['classes'] = {
      name: int((true[:, index] == 1).sum()) for index, name in enumerate(target.classes)
    }
    temperatures = calibration.fit_temperatures(test, validation)
    scaled = calibration.scale(test, temperatures)
    metrics['calibration'] = _calibration(test, scaled, temperatures, resamples, seed)
    used = test if scaled is None else scaled
    metrics['decisions'] = {
      'probabilities': 'predicted' if scaled is None else 'temperature-scaled',
      'classes': {
        outcome.name: {
          'operating_points': decisions.operating_points(used, outcome, resamples, seed),
          'decision_curve': decisions.decision_curve(used, outcome),
        }
        for outcome in used.outcomes
        if len(outcome.row)
      },
    }
  else:
    metrics['calibration'] = calibration.numeric_calibration(test, resamples, seed)
  metrics['notes'] = [*context.notes, *_notes(test, metrics)]
  return Evaluation(json_ready(metrics), context, test, scaled)


def json_ready(value: Any) -> Any:
  """`value` as plain JSON types: NumPy scalars unpacked, non-finite numbers None."""
  if isinstance(value, Mapping):
    return {str(key): json_ready(each) for key, each in value.items()}
  if isinstance(value, np.ndarray):
    value = value.tolist()
  if isinstance(value, Sequence) and not isinstance(value, str):
    return [json_ready(each) for each in value]
  if isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, float) and not math.isfinite(value):
    return None
  if value is None or isinstance(value, str | int | float):
    return value
  return str(value)


def fold_digest(fold_hashes: Any) -> str:
  """Sixteen hexadecimal digits that stand for the folds; '' where unknown."""
  if fold_hashes is None:
    return ''
  canonical = json.dumps(json_ready(fold_hashes), sort_keys=True)
  return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _calibration(
  test: Rows,
  scaled: Rows | None,
  temperatures: Mapping[int, calibration.Temperature],
  resamples: int,
  seed: int,
) -> dict[str, Any]:
  after = None if scaled is None else calibration.class_calibration(scaled, resamples, seed)
  missing = [
    f'fold {fold}: {each.reason}'
    for fold, each in temperatures.items()
    if each.value is None
  ]
  return {
    'method': 'temperature scaling, one temperature a fold, fitted on validation rows',
    'temperatures': {
      str(fold): dataclasses.asdict(each) for fold, each in temperatures.items()
    },
    'before': calibration.class_calibration(test, resamples, seed),
    'after': after,
    'reason': '; '.join(missing) or None,
  }


def _notes(test: Rows, metrics: Mapping[str, Any]) -> list[str]:
  """What a reader must know before any figure."""
  notes = []
  if np.ptp(test.weight) > 0:
    notes.append(
      f'Samples have weights, here {test.weight.min():.3g} to {test.weight.max():.3g}, and '
      'every figure counts a sample by its own; n and events are numbers of samples.'
    )
  if len(test) < LEAST_SAMPLES:
    notes.append(
      f'Only {len(test)} test samples: the figures below say little about the model.'
    )
  events = test.events()
  if events is not None and events < LEAST_EVENTS:
    what = (
      f'of class "{test.outcomes[0].name}"'
      if len(test.outcomes) == 1
      else f'of the rarest {"label" if test.target.kind == "multilabel" else "class"}'
    )
    few = f'Only {events}' if events else 'No'
    samples = 'sample' if events < 2 else 'samples'
    notes.append(f'{few} test {samples} {what}: discrimination is hardly measured.')
  if not test.target.numeric and metrics['calibration']['after'] is None:
    notes.append(
      f'Temperature scaling was not possible ({metrics["calibration"]["reason"]}): '
      'probabilities are shown as predicted.'
    )
  return notes
