"""External validation: metrics of a trained model on other labelled data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import optimize

from data_pipeline.format.dataset import Dataset
from data_pipeline.format.schema import DataError, Target
from medm2t_jax import targets
from medm2t_jax.evaluation.metrics import calibration
from medm2t_jax.evaluation.metrics.bootstrap import RESAMPLES
from medm2t_jax.evaluation.metrics.metrics import NAMES, digits_of, headline_metric, score
from medm2t_jax.evaluation.page import page
from medm2t_jax.evaluation.results import LEAST_EVENTS, json_ready
from medm2t_jax.evaluation.rows import Rows, predictions_table, read_rows
from medm2t_jax.evaluation.sections.subgroups import blocks_of, subgroups, verdict_of
from medm2t_jax.inference.predicting import Predicted
from medm2t_jax.inference.trained_model import TrainedModel
from medm2t_jax.report import plots
from medm2t_jax.report.blocks import Block, Gallery, Heading, Paragraph, Section, Table
from medm2t_jax.report.text import (
  count,
  in_brackets,
  in_words,
  number,
  task_name,
)
from medm2t_jax.targets.kind import SMALLEST

_RECALIBRATED_ON = 5  # one of so many subjects
_RECALIBRATED = 'intercept and slope'

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
  target, name = Target(**result['target']), NAMES[result['headline']]
  ours, theirs = here['overall'][key], there['overall'][key]
  counts = here['counts']
  return page(
    kicker='External validation',
    title=task_name(result['task'], target.description),
    source=result['source']['here'],
    notes=_notes(result),
    headline=f'{name} on these data',
    estimate=ours,
    target=target,
    facts=[
      ('How good', _verdict(ours, theirs, name)),
      ('Own test subjects', in_words(theirs, digits_of(target))),
      ('Samples', f'{count(counts["n"])} of {count(counts["subjects"])} subjects'),
      ('Events', count(counts['events'])),
      ('Coverage', f'{result["coverage"]["coverage"]:.2f}'),
    ],
    sections=[
      _discrimination(result),
      _calibration(result, target),
      _coverage(result['coverage']),
      Section(
        'subgroups',
        'Subgroups',
        blocks_of(result['subgroups'], {'name': name, **ours}, target),
        verdict=verdict_of(result['subgroups'], {'name': name, **ours}, target),
      ),
    ],
    footer='Intervals: central 95 % of bootstrap resamples of subjects.',
  )


def _discrimination(result: Mapping[str, Any]) -> Section:
  here, there = (result[where]['overall'] for where in ('here', 'there'))
  rows = [
    (NAMES[name], in_words(here[name]), in_words(there[name]))
    for name in here
    if name in NAMES
  ]
  key = result['headline']
  return Section(
    'discrimination',
    "Here and on the model's own test subjects",
    [Table(('Metric', 'These data', 'Own test subjects'), rows)],
    verdict=_verdict(here[key], there[key], NAMES[key]),
  )


def _calibration(result: Mapping[str, Any], target: Target) -> Section:
  """Calibration as it is, and what recalibration gives back."""
  found = result['recalibration']
  versions = found['versions']
  titles = (
    {'mae': 'MAE', 'rmse': 'RMSE', 'slope': 'Slope'}
    if target.numeric
    else {'log_loss': 'Log loss', 'brier': 'Brier score'}
  )
  header = [
    'Predictions',
    *(
      title + ('' if key == 'slope' else in_brackets(target.unit))
      for key, title in titles.items()
    ),
  ]
  rows = [
    (name, *(in_words(each[key]) for key in titles)) for name, each in versions.items()
  ]
  counts = lambda of: f'{count(of["subjects"])} subjects, {count(of["samples"])} samples'
  blocks: list[Block] = [
    Paragraph(
      f'A random fifth of the subjects ({counts(found["fitted_on"])}) is for '
      'recalibration; the table is of the other '
      f'{counts(found["measured_on"])}.'
    ),
    Table(header, rows, tuple(range(1, len(header)))),
    Gallery(_pictures(result['here']['calibration'], found, target.unit)),
  ]
  key, title = next(iter(titles.items()))
  verdict = found['reason'] or _gained(versions, key, title)
  return Section(
    'calibration', 'Calibration, and what recalibration gives back', blocks, verdict=verdict
  )


def _gained(versions: Mapping[str, Any], key: str, title: str) -> str:
  before, after = (versions[name][key] for name in ('as predicted', _RECALIBRATED))
  if before['value'] is None or after['value'] is None:
    return f'What recalibration gains cannot be judged: {before["reason"]}.'
  less = after['value'] < before['value']
  return (
    f'{title} is {in_words(before)} as predicted and {in_words(after)} after '
    f'recalibration: {"it gains" if less else "it gains nothing"}.'
  )


def _coverage(coverage: Mapping[str, Any]) -> Section:
  """What of the model's variables was found."""
  names = ('name', 'modality', 'code')
  rows = [
    (
      *(each[name] for name in (*names, 'unit')),
      f'{each["share"]:.1%}',
      f'{each["training_share"]:.1%}',
      number(each.get('drift'), 2),
    )
    for each in coverage['variables']
  ]
  of = ('Variable', 'Modality', 'Code')
  header = (*of, 'Unit', 'Samples with it', 'In training', 'Drift')
  blocks: list[Block] = [
    Paragraph(
      'Coverage: of the variables that the training samples had, the share that these '
      'have. Drift is the mean of a variable here minus that of the training samples, in '
      'standard deviations of these.'
    ),
    Table(header, rows, (4, 5, 6)),
  ]
  if coverage['ignored']:
    ignored = [
      tuple(each[name] for name in (*names, 'reason')) for each in coverage['ignored']
    ]
    blocks += [Heading('Not known to the model'), Table((*of, 'Why'), ignored)]
  absent = len(coverage['absent'])
  verdict = (
    f'Coverage is {coverage["coverage"]:.2f}: {absent} of the {len(rows)} variables of the '
    'model are not in these data.'
  )
  return Section('coverage', 'What the model found', blocks, verdict=verdict)


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
      _RECALIBRATED: recalibration(some, slope=True),
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
  told = f'{name} is {in_words(here)} on these data, and {in_words(there)} on the '
  told += "model's own test subjects."
  ends = [one[end] for one in (here, there) for end in ('low', 'high')]
  if None in ends:
    return told
  apart = here['low'] > there['high'] or here['high'] < there['low']
  return told + f' The intervals {"do not " if apart else ""}overlap.'


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
