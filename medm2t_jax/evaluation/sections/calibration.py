"""Calibration: reliability before and after temperature scaling; of numbers, a line."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from medm2t_jax.evaluation.metrics import calibration
from medm2t_jax.evaluation.results import Evaluation
from medm2t_jax.evaluation.sections.section import Needs
from medm2t_jax.evaluation.sections.tables import INTERVAL, MOST_DRAWN, estimates
from medm2t_jax.report import plots
from medm2t_jax.report.blocks import Block, Cell, Gallery, Section, Table
from medm2t_jax.report.text import count, interval, number
from medm2t_jax.runs.run import Run

NAME = 'calibration'
_METRICS = (
  ('ece', 'Expected calibration error'),
  ('brier', 'Brier score'),
  ('slope', 'Slope (ideal 1)'),
  ('intercept', 'Intercept (ideal 0)'),
)


def needs(_: Sequence[Run]) -> Needs:
  """Nothing more than the predictions that all have."""
  return Needs()


def compute(evaluation: Evaluation) -> dict[str, Any]:
  """Calibration of the test rows as predicted and, of classes, temperature-scaled."""
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
