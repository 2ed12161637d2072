"""External validation: metrics of a trained model on other labelled data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import optimize

from data_pipeline.format.dataset import Dataset
from data_pipeline.format.schema import DataError
from medm2t_jax import targets
from medm2t_jax.evaluation.metrics import calibration
from medm2t_jax.evaluation.metrics.bootstrap import RESAMPLES
from medm2t_jax.evaluation.metrics.metrics import NAMES, headline_metric, score
from medm2t_jax.evaluation.results import LEAST_EVENTS, json_ready
from medm2t_jax.evaluation.rows import Rows, predictions_table, read_rows
from medm2t_jax.evaluation.sections.subgroups import subgroups
from medm2t_jax.inference.predicting import Predicted
from medm2t_jax.inference.trained_model import TrainedModel
from medm2t_jax.report import plots
from medm2t_jax.report.template import render as from_template
from medm2t_jax.report.text import (
  count,
  in_brackets,
  in_words,
  number,
  source_name,
  task_name,
)
from medm2t_jax.targets.kind import SMALLEST

NEEDS = 'labels'  # of the predicted samples
_RECALIBRATED_ON = 5  # one of so many subjects

Recalibration = Callable[[np.ndarray], np.ndarray]


def compute(
  model: TrainedModel,
  dataset: Dataset,
  predicted: Predicted,
  *,
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> dict[str, Any]:
  """Metrics of predictions on labelled data, next to those on the model's test subjects.

  Args:
    model: that predicted.
    dataset: predicted; samples without a label do not count.
    predicted: from `medm2t_jax.inference.predicting.predict`.
    resamples: of the bootstrap over subjects.
    seed: of the bootstrap, and of the fifth of the subjects used for recalibration.

  Returns:
    JSON-able: 'here' (`score`, 'calibration', counts), 'there' (the same for the model's
      own test subjects), 'recalibration', 'subgroups', 'coverage'.

  Raises:
    DataError: no predicted sample has a label.
  """
  rows = _rows(model, dataset, predicted)
  calibrated = (
    calibration.numeric_calibration
    if rows.target.numeric
    else calibration.class_calibration
  )
  return json_ready(
    {
      'format': 1,
      'task': model.schema.task,
      'source': {'here': dataset.schema.source, 'there': model.schema.source},
      'dataset_version': dataset.version,
      'target': dataclasses.asdict(model.schema.target),
      'condition': model.schema.condition,
      'headline': headline_metric(rows),
      'here': {
        **score(rows, resamples, seed),
        'calibration': calibrated(rows, resamples, seed),
        'counts': rows.counts(),
      },
      'there': {**model.tests['pooled'], 'calibration': model.tests['calibration']},
      'recalibration': _recalibration(rows, resamples, seed),
      'subgroups': subgroups(rows, resamples, seed),
      'coverage': predicted.coverage,
    }
  )


def render(result: Mapping[str, Any]) -> str:
  """The HTML page of the result of `compute`."""
  key, here, there = result['headline'], result['here'], result['there']
  source = source_name(result['source']['here'])
  coverage = result['coverage']
  names = [name for name in here['overall'] if name in NAMES]
  unit = result['target']['unit']
  return from_template(
    'external.html',
    kicker='External validation',
    title=task_name(result['task'], result['target']['description']),
    subtitle=source,
    verdict=_verdict(here['overall'][key], there['overall'][key], NAMES[key]),
    notes=_notes(result),
    metrics=[
      {
        'name': NAMES[name],
        'here': in_words(here['overall'][name]),
        'there': in_words(there['overall'][name]),
      }
      for name in names
    ],
    recalibration=_recalibration_table(result['recalibration'], unit),
    pictures=_pictures(here['calibration'], result['recalibration'], unit),
    coverage=f'{coverage["coverage"]:.2f}',
    variables=[
      {
        **{name: one[name] for name in ('name', 'modality', 'code', 'unit')},
        'share': f'{one["share"]:.1%}',
        'training_share': f'{one["training_share"]:.1%}',
        'drift': number(one.get('drift'), 2),
      }
      for one in coverage['variables']
    ],
    ignored=coverage['ignored'],
    headline=NAMES[key],
    subgroups=[
      {
        'by': grouping['by'],
        'name': group['name'],
        'n': count(group['n']),
        'metric': in_words(group['metric']),
        'warning': group['warning'] or '',
      }
      for grouping in result['subgroups']
      for group in grouping['groups']
    ],
  )


def _rows(model: TrainedModel, dataset: Dataset, predicted: Predicted) -> Rows:
  known = dataset.schema.target.known(dataset.index['label'][predicted.rows])
  if not known.any():
    raise DataError(
      f'{dataset.directory}: no predicted sample has a label: there is nothing to report. '
      'Leave --report out.'
    )
  table = predictions_table(
    dataset, 0, 'test', predicted.rows[known], predicted.predictions[known]
  )
  return read_rows(table, dataset.schema)[0]


def _recalibration(rows: Rows, resamples: int, seed: int) -> dict[str, Any]:
  """Metrics after recalibration with an intercept, and with an intercept and a slope."""
  subjects = np.unique(rows.subject)
  chosen = np.random.default_rng(seed).permutation(subjects)
  chosen = chosen[: len(subjects) // _RECALIBRATED_ON]
  inside = np.isin(rows.subject, chosen)
  some, rest = rows.take(inside), rows.take(~inside)
  result: dict[str, Any] = {
    'fitted_on': {'samples': len(some), 'subjects': len(chosen)},
    'measured_on': {'samples': len(rest), 'subjects': len(subjects) - len(chosen)},
    'versions': {},
    'reason': None,
  }
  events = some.events()
  if not len(some) or (events is not None and events < LEAST_EVENTS):
    result['reason'] = (
      f'Only {len(some)} samples and {events} events in the fifth that would recalibrate: '
      'nothing is fitted.'
    )
    fitted: dict[str, Recalibration] = {'as predicted': lambda p: p}
  else:
    fitted = {
      'as predicted': lambda p: p,
      'intercept': recalibration(some, slope=False),
      'intercept and slope': recalibration(some, slope=True),
    }
  numeric = rows.target.numeric
  for name, change in fitted.items():
    changed = rest.with_prediction(change(rest.prediction), name)
    measured = (
      score(changed, resamples, seed)['overall']
      if numeric
      else calibration.class_calibration(changed, resamples, seed)
    )
    if numeric:
      measured |= calibration.numeric_calibration(changed, resamples, seed)
    result['versions'][name] = measured
  return result


def recalibration(rows: Rows, *, slope: bool) -> Recalibration:
  """Fits one intercept per output on some rows, and with `slope` one slope.

  Returns:
    A function from predictions, (n c) probabilities or (n) numbers, to recalibrated ones.
  """
  if rows.target.numeric:
    x, y = rows.prediction, rows.label
    root = np.sqrt(rows.weight)  # `polyfit` squares the weights
    b = float(np.polyfit(x, y, 1, w=root)[0]) if slope and np.ptp(x) > 0 else 1.0
    a = float(np.average(y - b * x, weights=rows.weight))
    return lambda values: a + b * values
  kind = targets.of(rows.target)
  # Only differences between class scores matter, so the first class has no intercept.
  fixed = 1 if kind.link == 'softmax' else 0
  outputs = lambda p: kind.outputs(p, SMALLEST)
  given = outputs(rows.prediction)

  def changed(parameters: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(fixed), parameters[1:]]) + parameters[0] * values

  def loss(free: np.ndarray) -> float:
    parameters = free if slope else np.concatenate([[1.0], free])
    total, _ = kind.summed_loss(changed(parameters, given), rows.label, rows.weight)
    return float(total) / rows.weight.sum()

  start = np.zeros(given.shape[1] - fixed)
  start = np.concatenate([[1.0], start]) if slope else start
  free = optimize.minimize(loss, start, method='BFGS').x
  parameters = free if slope else np.concatenate([[1.0], free])
  return lambda p: kind.predictions(changed(parameters, outputs(p)))


def _verdict(here: Mapping[str, Any], there: Mapping[str, Any], name: str) -> str:
  told = f'{name} is {in_words(here)} on these data, and {in_words(there)} on the own test '
  told += 'subjects of the model.'
  ends = [one[end] for one in (here, there) for end in ('low', 'high')]
  if None in ends:
    return told
  apart = here['low'] > there['high'] or here['high'] < there['low']
  return told + (' The intervals do not meet.' if apart else ' The intervals meet.')


def _notes(result: Mapping[str, Any]) -> list[str]:
  coverage, notes = result['coverage'], []
  if result['condition']:
    notes.append(f'All risks are conditional: {result["condition"]}.')
  if coverage['absent']:
    of = sorted({one['modality'] for one in coverage['absent']})
    notes.append(
      f'{len(coverage["absent"])} of the {len(coverage["variables"])} variables of the '
      f'model are not in these data (of {", ".join(of)}).'
    )
  notes += coverage['notes']
  notes.append(f'Overlap with the subjects of the training: {coverage["overlap"]}.')
  return notes


def _recalibration_table(found: Mapping[str, Any], unit: str) -> dict[str, Any]:
  versions = found['versions']
  first = next(iter(versions.values()))
  keys = ('log_loss', 'brier') if 'log_loss' in first else ('mae', 'rmse', 'slope')
  titles = {
    'log_loss': 'Log loss', 'brier': 'Brier score', 'mae': f'MAE{in_brackets(unit)}',
    'rmse': f'RMSE{in_brackets(unit)}', 'slope': 'Slope',
  }  # fmt: skip
  counts = lambda of: f'{count(of["subjects"])} subjects, {count(of["samples"])} samples'
  return {
    'names': [titles[key] for key in keys],
    'rows': [
      {'name': name, 'cells': [in_words(one[key]) for key in keys]}
      for name, one in versions.items()
    ],
    'fitted_on': counts(found['fitted_on']),
    'measured_on': counts(found['measured_on']),
    'reason': found['reason'],
  }


def _pictures(
  here: Mapping[str, Any], found: Mapping[str, Any], unit: str
) -> list[plots.Figure]:
  if 'classes' not in here:
    return [plots.numeric_reliability(here['curve'], unit)]
  versions = found['versions']
  return [
    plots.reliability(
      {label: one['classes'][name]['curve'] for label, one in versions.items()}, name
    )
    for name in here['classes']
  ]
