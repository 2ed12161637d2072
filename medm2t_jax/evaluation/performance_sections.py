"""Sections on how good the predictions are: discrimination, calibration, thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medm2t_jax.evaluation.metrics.metrics import CLASS_FIGURES, NAMES
from medm2t_jax.evaluation.metrics.ranking import Ranking
from medm2t_jax.evaluation.results import Evaluation
from medm2t_jax.evaluation.rows import Rows
from medm2t_jax.report import plots
from medm2t_jax.report.blocks import Block, Cell, Gallery, Paragraph, Section, Table
from medm2t_jax.report.text import NONE, count, in_brackets, in_words, interval, number

_INTERVAL = '95 % interval'
_MOST_DRAWN = 8  # outcomes with curves of their own
_NUMERIC_FIGURES = ('mae', 'rmse', 'median_absolute_error', 'r2', 'bias')
_CALIBRATION_FIGURES = (
  ('ece', 'Expected calibration error'),
  ('brier', 'Brier score'),
  ('slope', 'Slope (ideal 1)'),
  ('intercept', 'Intercept (ideal 0)'),
)


def discrimination(evaluation: Evaluation) -> Section:
  """Figures over the pooled test rows and in each fold."""
  if evaluation.test.target.numeric:
    return _errors(evaluation)
  metrics, test = evaluation.metrics, evaluation.test
  pooled = metrics['pooled']
  rows: list[Sequence[Cell]] = []
  if pooled['average'] == 'macro':
    rows += [('Macro average',), *_estimates(pooled['overall'], CLASS_FIGURES)]
  if 'micro' in pooled:
    rows += [('Micro average',), *_estimates(pooled['micro'], CLASS_FIGURES)]
  for name, figures in pooled['classes'].items():
    share = f'{name}, {_percent(figures["prevalence"])} of samples'
    rows += [(share,), *_estimates(figures, CLASS_FIGURES)]
  header = ('', 'Value', _INTERVAL, 'n', 'Events')
  caption = 'One class against the rest, all test samples'
  if 'micro' in pooled:
    caption = 'Each label, in the test samples in which it is known'
  table = Table(header, rows, (1, 3, 4), caption)
  roc, recall, distributions = {}, {}, []
  drawn = sorted(test.outcomes, key=lambda each: -each.positive.sum())[:_MOST_DRAWN]
  for outcome in drawn:
    name, positive, row = outcome.name, outcome.positive, outcome.row
    if not len(row):
      continue
    distributions.append(
      plots.score_distribution(outcome.probability, positive, test.weight[row], name)
    )
    if positive.any() and not positive.all():
      ranking = Ranking(outcome.probability, positive)
      curves = ranking.curves(test.weight[row][np.newaxis])
      sensitivity = curves.sensitivity()[0]
      roc[name] = (curves.false_positive_rate()[0], sensitivity)
      recall[name] = (sensitivity, curves.precision()[0], test.prevalence(outcome))
  figures = [plots.roc(roc), plots.precision_recall(recall)] if roc else []
  blocks: list[Block] = [table, Gallery([*figures, *distributions])]
  if pooled['average'] == 'macro':
    blocks.append(Paragraph(_of_averages(test, 'micro' in pooled)))
  return Section(
    'discrimination', 'Discrimination', [*blocks, _folds(metrics, CLASS_FIGURES)]
  )


def _of_averages(test: Rows, labels: bool) -> str:
  """What the averages are of, and what is drawn."""
  if not labels:
    return (
      'The macro average gives every class the same weight; "events" of it '
      'is the size of the smallest class.'
    )
  some = sum(len(np.unique(each.positive)) == 2 for each in test.outcomes)
  return (
    f'The macro average gives every label the same weight, and is over the {some} of '
    f'{len(test.outcomes)} that are true of some test samples and not of all; "events" of '
    'it are those of the rarest label. The micro average is over all pairs of a sample and '
    f'a label. Curves are of the {min(_MOST_DRAWN, len(test.outcomes))} most frequent '
    'labels.'
  )


def _percent(share: float | None) -> str:
  return NONE if share is None else f'{100 * share:.1f} %'


def calibrated(evaluation: Evaluation) -> Section:
  """Reliability before and after temperature scaling."""
  figures = evaluation.metrics['calibration']
  target = evaluation.test.target
  if target.numeric:
    lines = _estimates(figures, ('slope', 'intercept'), target.unit)
    blocks: list[Block] = [
      Table(
        ('', 'Value', _INTERVAL, 'n'),
        [line[:4] for line in lines],
        (1, 3),
        'True values regressed on predicted ones; ideal: slope 1, intercept 0',
      ),
      Gallery([plots.numeric_reliability(figures['curve'], target.unit)]),
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
    if all(curves.values()) and len(pictures) < _MOST_DRAWN:
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
  outcomes = {each.name: each for each in evaluation.test.outcomes}
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
    if len(curves) < _MOST_DRAWN:
      prevalence = evaluation.test.prevalence(outcomes[name])
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


def _errors(evaluation: Evaluation) -> Section:
  metrics, test = evaluation.metrics, evaluation.test
  rows = []
  for name in _NUMERIC_FIGURES:
    figure = metrics['pooled']['overall'][name]
    unit = '' if name == 'r2' else test.target.unit
    value = number(figure['value'], 2)
    rows.append((NAMES[name], value, unit, interval(figure, 2), count(figure['n'])))
  bands = []
  for band in metrics['pooled']['bands']:
    high = band['high']
    low = f'{band["low"]:.3g}'
    name = f'{low} to {high:.3g}' if high else f'{low} and more'
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
  unit = in_brackets(test.target.unit)
  blocks = [
    Table(('', 'Value', 'Unit', _INTERVAL, 'n'), rows, (1, 4), 'All test samples'),
    Gallery([plots.predicted_against_true(test.label, test.prediction, test.target.unit)]),
    Table(
      (f'True{unit}', 'n', f'Bias{unit}', _INTERVAL, f'MAE{unit}', _INTERVAL),
      bands,
      (1, 2, 4),
      'By the true value; bias is predicted minus true',
    ),
    _folds(metrics, _NUMERIC_FIGURES),
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


def _estimates(
  figures: Mapping[str, Any], names: Sequence[str], unit: str = ''
) -> list[tuple[str, ...]]:
  titles = {**NAMES, 'slope': 'Slope', 'intercept': f'Intercept{in_brackets(unit)}'}
  return [_named(titles[name], figures[name]) for name in names]


def _named(title: str, figure: Mapping[str, Any]) -> tuple[str, ...]:
  return (
    title,
    number(figure['value']),
    interval(figure),
    count(figure['n']),
    count(figure['events']),
  )
