"""Sections on how good the predictions are: discrimination, calibration, thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medm2t_jax.evaluation.metrics.metrics import CLASS_FIGURES, NAMES
from medm2t_jax.evaluation.metrics.ranking import Ranking
from medm2t_jax.evaluation.results import Evaluation
from medm2t_jax.report import plots
from medm2t_jax.report.blocks import Block, Cell, Gallery, Paragraph, Section, Table
from medm2t_jax.report.text import count, in_words, interval, number

_INTERVAL = '95 % interval'
_DAYS_FIGURES = ('mae', 'rmse', 'median_absolute_error', 'r2', 'bias')
_CALIBRATION_FIGURES = (
  ('ece', 'Expected calibration error'),
  ('brier', 'Brier score'),
  ('slope', 'Slope (ideal 1)'),
  ('intercept', 'Intercept (ideal 0)'),
)


def discrimination(evaluation: Evaluation) -> Section:
  """Figures over the pooled test rows and in each fold."""
  if evaluation.test.target.numeric:
    return _errors_in_days(evaluation)
  metrics, test = evaluation.metrics, evaluation.test
  pooled = metrics['pooled']
  rows: list[Sequence[Cell]] = []
  if pooled['average'] == 'macro':
    rows += [('Macro average',), *_estimates(pooled['overall'], CLASS_FIGURES)]
  for name, figures in pooled['classes'].items():
    share = f'{name}, {100 * figures["prevalence"]:.1f} % of samples'
    rows += [(share,), *_estimates(figures, CLASS_FIGURES)]
  header = ('', 'Value', _INTERVAL, 'n', 'Events')
  table = Table(header, rows, (1, 3, 4), 'One class against the rest, all test samples')
  roc, recall, distributions = {}, {}, []
  for index in test.scored_classes:
    name, positive = test.target.classes[index], test.positive(index)
    distributions.append(
      plots.score_distribution(test.prediction[:, index], positive, name)
    )
    if positive.any() and not positive.all():
      ranking = Ranking(test.prediction[:, index], positive)
      curves = ranking.curves(np.ones((1, len(test))))
      sensitivity = curves.sensitivity()[0]
      roc[name] = (curves.false_positive_rate()[0], sensitivity)
      recall[name] = (sensitivity, curves.precision()[0], positive.mean())
  figures = [plots.roc(roc), plots.precision_recall(recall)] if roc else []
  blocks: list[Block] = [table, Gallery([*figures, *distributions])]
  if pooled['average'] == 'macro':
    blocks.append(
      Paragraph(
        'The macro average gives every class the same weight; "events" of it '
        'is the size of the smallest class.'
      )
    )
  return Section(
    'discrimination', 'Discrimination', [*blocks, _folds(metrics, CLASS_FIGURES)]
  )


def calibrated(evaluation: Evaluation) -> Section:
  """Reliability before and after temperature scaling."""
  figures = evaluation.metrics['calibration']
  if evaluation.test.target.numeric:
    lines = _estimates(figures, ('slope', 'intercept'))
    blocks: list[Block] = [
      Table(
        ('', 'Value', _INTERVAL, 'n'),
        [line[:4] for line in lines],
        (1, 3),
        'True days regressed on predicted days; ideal: slope 1, intercept 0 days',
      ),
      Gallery([plots.days_reliability(figures['curve'])]),
    ]
    return Section('calibration', 'Calibration', blocks)
  stages = {'As predicted': figures['before']}
  if figures['after'] is not None:
    stages['Temperature-scaled'] = figures['after']
  cells = lambda found: [
    cell for each in found for cell in (number(each['value']), interval(each))
  ]
  rows: list[Sequence[Cell]] = [('All classes',)]
  for key, title in (('log_loss', 'Log loss'), ('brier', 'Brier score')):
    rows.append((title, *cells([each[key] for each in stages.values()])))
  pictures = []
  for name in figures['before']['classes']:
    by_stage = {label: each['classes'][name] for label, each in stages.items()}
    rows.append((name,))
    for key, title in _CALIBRATION_FIGURES:
      rows.append((title, *cells([each[key] for each in by_stage.values()])))
    curves = {label.lower(): each['curve'] for label, each in by_stage.items()}
    pictures.append(plots.reliability(curves, name))
  header = ('', *(title for label in stages for title in (label, _INTERVAL)))
  temperatures = [
    (f'Fold {fold}', number(each['value']), count(each['samples']), each['reason'] or '')
    for fold, each in figures['temperatures'].items()
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


def decisions(evaluation: Evaluation) -> Section | None:
  """Operating points and decision curves."""
  figures = evaluation.metrics.get('decisions')
  if figures is None:
    return None
  rows: list[Sequence[Cell]] = []
  curves = []
  names = {evaluation.test.target.classes[i]: i for i in evaluation.test.scored_classes}
  for name, each in figures['classes'].items():
    rows.append((name,))
    for point in each['operating_points']:
      alerts = point['alerts_per_100']
      rows.append(
        (
          point['name'].capitalize(),
          number(point['threshold']),
          in_words(point['sensitivity'], 2),
          in_words(point['specificity'], 2),
          in_words(point['ppv'], 2),
          in_words(alerts, 1),
        )
      )
    prevalence = float(evaluation.test.positive(names[name]).mean())
    curves.append(plots.decision(each['decision_curve'], prevalence, name))
  header = (
    'Operating point',
    'Threshold',
    'Sensitivity',
    'Specificity',
    'PPV',
    'Alerts per 100 samples',
  )
  return Section(
    'decisions',
    'Use at a threshold',
    [
      Paragraph(
        f'Probabilities: {figures["probabilities"]}. Values with 95 % '
        'intervals; each resample chooses its own threshold.'
      ),
      Table(header, rows, (1,)),
      Gallery(curves),
    ],
  )


def _errors_in_days(evaluation: Evaluation) -> Section:
  metrics, test = evaluation.metrics, evaluation.test
  rows = []
  for name in _DAYS_FIGURES:
    figure = metrics['pooled']['overall'][name]
    unit = '' if name == 'r2' else 'days'
    value = number(figure['value'], 2)
    rows.append((NAMES[name], value, unit, interval(figure, 2), count(figure['n'])))
  bands = []
  for band in metrics['pooled']['bands']:
    high = band['high']
    name = f'{band["low"]:.0f} to {high:.0f}' if high else f'{band["low"]:.0f} and more'
    bias, error = band['bias'], band['mae']
    bands.append(
      (
        name,
        count(bias['n']),
        number(bias['value'], 2),
        interval(bias, 2),
        number(error['value'], 2),
        interval(error, 2),
      )
    )
  blocks = [
    Table(('', 'Value', 'Unit', _INTERVAL, 'n'), rows, (1, 4), 'All test samples'),
    Gallery([plots.predicted_against_true(test.label, test.prediction)]),
    Table(
      ('True stay (days)', 'n', 'Bias (days)', _INTERVAL, 'MAE (days)', _INTERVAL),
      bands,
      (1, 2, 4),
      'By length of stay; bias is predicted minus true',
    ),
    _folds(metrics, _DAYS_FIGURES),
  ]
  return Section('discrimination', 'Error', blocks)


def _folds(metrics: Mapping[str, Any], names: Sequence[str]) -> Block:
  rows = []
  digits = 2 if metrics['target']['kind'] == 'regression' else 3
  for fold, figures in metrics['folds'].items():
    overall = figures['overall']
    first = overall[names[0]]
    rows.append(
      (
        f'Fold {fold}',
        count(first['n']),
        count(first['subjects']),
        count(first['events']),
        *(in_words(overall[name], digits) for name in names),
      )
    )
  header = ('', 'n', 'Subjects', 'Events', *(NAMES[name] for name in names))
  if metrics['target']['kind'] == 'regression':
    header = (*header[:3], *header[4:])
    rows = [(*row[:3], *row[4:]) for row in rows]
  counted = tuple(range(1, len(header) - len(names)))
  caption = 'Each fold is tested by the model that did not see its subjects'
  return Table(header, rows, counted, caption)


def _estimates(figures: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, ...]]:
  titles = {**NAMES, 'slope': 'Slope', 'intercept': 'Intercept (days)'}
  return [_named(titles[name], figures[name]) for name in names]


def _named(title: str, figure: Mapping[str, Any]) -> tuple[str, ...]:
  return (
    title,
    number(figure['value']),
    interval(figure),
    count(figure['n']),
    count(figure['events']),
  )
