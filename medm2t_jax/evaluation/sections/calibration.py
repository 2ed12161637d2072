"""Calibration: reliability before and after temperature scaling; of numbers, a line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from medm2t_jax.evaluation.metrics import calibration
from medm2t_jax.evaluation.results import Evaluation
from medm2t_jax.evaluation.sections.judging import excludes, in_unit, too_few_for_average
from medm2t_jax.evaluation.sections.section import Needs
from medm2t_jax.evaluation.sections.tables import INTERVAL, MOST_DRAWN, estimates
from medm2t_jax.report import plots
from medm2t_jax.report.blocks import Block, Cell, Gallery, Section, Table
from medm2t_jax.report.text import count, in_words, interval, listed, number
from medm2t_jax.runs.run import Run

NAME = 'calibration'
_METRICS = (
  ('ece', 'Expected calibration error'),
  ('brier', 'Brier score'),
  ('bias', 'Mean predicted − observed (ideal 0)'),
  ('slope', 'Slope (ideal 1)'),
  ('intercept', 'Intercept (ideal 0)'),
)


def needs(_: Sequence[Run]) -> Needs:
  """Nothing more than the predictions that all have."""
  return Needs()


def compute(evaluation: Evaluation) -> dict[str, Any]:
  """Calibration of the test rows as predicted and, of classes, temperature-scaled.

  Returns:
    'calibration': of numbers, `numeric_calibration`; of classes {'method',
    'temperatures': {fold: {'value', 'samples', 'reason'}}, 'before' and 'after':
    `class_calibration`, 'reason': why 'after' is None, else None}.
  """
  how = evaluation.resamples, evaluation.seed
  test, scaled = evaluation.test, evaluation.calibrated
  if test.target.numeric:
    return {'calibration': calibration.numeric_calibration(test, *how)}
  temperatures = evaluation.temperatures
  missing = [
    f'fold {fold}: {each.reason}'
    for fold, each in temperatures.items()
    if each.value is None
  ]
  after = None if scaled is None else calibration.class_calibration(scaled, *how)
  found = {
    'method': 'temperature scaling, one temperature a fold, fitted on validation rows',
    'temperatures': {
      str(fold): dataclasses.asdict(each) for fold, each in temperatures.items()
    },
    'before': calibration.class_calibration(test, *how),
    'after': after,
    'reason': '; '.join(missing) or None,
  }
  return {'calibration': found}


def verdict(evaluation: Evaluation) -> str:
  """Whether predicted risks or numbers are too high or too low, and too extreme."""
  found, test = evaluation.metrics['calibration'], evaluation.test
  few = too_few_for_average(test)
  if few:
    return f'Calibration cannot be judged: {few}.'
  if test.target.numeric:
    bias = evaluation.metrics['pooled']['overall']['bias']
    said = in_unit(bias, test.target)
    return f'{_level("Predicted numbers", bias, said)}; {_spread(found["slope"])}.'
  scaled = found['after'] is not None
  risks = 'Temperature-scaled risks' if scaled else 'Predicted risks'
  classes = found['after' if scaled else 'before']['classes']
  if len(classes) == 1:
    (each,) = classes.values()
    points = {
      key: None if each['bias'][key] is None else 100 * each['bias'][key]
      for key in ('value', 'low', 'high')
    }
    said = f'{in_words({**each["bias"], **points}, 1)} percentage points'
    return f'{_level(risks, each["bias"], said)}; {_spread(each["slope"])}.'
  off = [
    f'{name} (too {"high" if each["bias"]["value"] > 0 else "low"})'
    for name, each in classes.items()
    if excludes(each['bias'], 0.0)
  ]
  if not off:
    return (
      f'{risks} of no class differ, on average, from what happened beyond the interval.'
    )
  return (
    f'{risks} differ, on average, from what happened beyond the interval for {len(off)} of '
    f'{len(classes)} classes: {listed(off)}.'
  )


def _level(what: str, bias: Mapping[str, Any], said: str) -> str:
  """Whether predictions are too high or too low on average; `said` is by how much."""
  if bias['low'] is None:
    return f'{what} cannot be judged on average ({bias["reason"]})'
  if not excludes(bias, 0.0):
    return f'{what} agree with what happened on average: they differ by {said}'
  return f'{what} are too {"high" if bias["value"] > 0 else "low"} on average, by {said}'


def _spread(slope: Mapping[str, Any]) -> str:
  """Whether predictions are spread too far or too little."""
  if slope['low'] is None:
    return f'their slope cannot be judged ({slope["reason"]})'
  if not excludes(slope, 1.0):
    return f'the interval of the slope, {interval(slope, 2)}, includes 1'
  how = 'too extreme' if slope['value'] < 1 else 'too close together'
  return f'they are {how} (slope {in_words(slope, 2)}, ideal 1)'


def render(evaluation: Evaluation) -> Section:
  """Reliability before and after temperature scaling."""
  metrics = evaluation.metrics['calibration']
  target = evaluation.test.target
  if target.numeric:
    lines = estimates(metrics, ('slope', 'intercept'), target.unit)
    blocks: list[Block] = [
      Table(
        ('', 'Value', INTERVAL, 'n'),
        [line[:4] for line in lines],
        (1, 3),
        'True values regressed on predicted ones; ideal: slope 1, intercept 0',
      ),
      Gallery([plots.numeric_reliability(metrics['curve'], target.unit)]),
    ]
    return Section('calibration', 'Calibration', blocks)
  stages = {'As predicted': metrics['before']}
  if metrics['after'] is not None:
    stages['Temperature-scaled'] = metrics['after']
  cells = lambda found: [
    cell for each in found for cell in (number(each['value']), interval(each))
  ]
  rows: list[Sequence[Cell]] = [('All classes',)]
  for key, title in (('log_loss', 'Log loss'), ('brier', 'Brier score')):
    rows.append((title, *cells([each[key] for each in stages.values()])))
  pictures = []
  for name in metrics['before']['classes']:
    by_stage = {label: each['classes'][name] for label, each in stages.items()}
    rows.append((name,))
    for key, title in _METRICS:
      rows.append((title, *cells([each[key] for each in by_stage.values()])))
    curves = {label.lower(): each['curve'] for label, each in by_stage.items()}
    if all(curves.values()) and len(pictures) < MOST_DRAWN:
      pictures.append(plots.reliability(curves, name))
  header = ('', *(title for label in stages for title in (label, INTERVAL)))
  temperatures = [
    (f'Fold {fold}', number(each['value']), count(each['samples']), each['reason'] or '')
    for fold, each in metrics['temperatures'].items()
  ]
  return Section(
    'calibration',
    'Calibration',
    [
      Gallery(pictures),
      Table(header, rows, tuple(range(1, len(header), 2))),
      Table(
        ('', 'Temperature', 'Validation samples', ''),
        temperatures,
        (1, 2),
        'Temperatures, fitted on validation subjects only; above 1: the model was too sure',
      ),
    ],
  )
