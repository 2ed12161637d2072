"""Discrimination: the metrics over all test samples, in each fold; of numbers, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.format.schema import Target
from medm2t_jax.evaluation.metrics import calibration
from medm2t_jax.evaluation.metrics.metrics import (
  CLASS_METRICS,
  NAMES,
  headline_metric,
  score,
)
from medm2t_jax.evaluation.metrics.ranking import Ranking
from medm2t_jax.evaluation.results import Evaluation
from medm2t_jax.evaluation.rows import Rows
from medm2t_jax.evaluation.sections.judging import excludes, in_unit, too_few_for_average
from medm2t_jax.evaluation.sections.section import Needs
from medm2t_jax.evaluation.sections.tables import INTERVAL, MOST_DRAWN, estimates
from medm2t_jax.report import plots
from medm2t_jax.report.blocks import Block, Cell, Gallery, Paragraph, Section, Table
from medm2t_jax.report.text import NONE, count, in_brackets, in_words, interval, number
from medm2t_jax.runs.run import Run

NAME = 'discrimination'
_NUMERIC_METRICS = ('mae', 'rmse', 'median_absolute_error', 'r2', 'bias')


def needs(_: Sequence[Run]) -> Needs:
  """Nothing more than the predictions that all have."""
  return Needs()


def compute(evaluation: Evaluation) -> dict[str, Any]:
  """Metrics of all test rows and of each fold, and the one that stands for the report.

  Returns:
    'headline': {'metric': its key, 'name', 'average': 'macro', a class or None, and its
    estimate}; 'pooled': `score` of all test rows; 'folds': {fold: `score` of its rows};
    'predicted': {outcome, '' of numbers: percentiles 1 to 99 of the predictions (99)}.
    Numbers are in the target's unit.
  """
  test = evaluation.test
  how = evaluation.resamples, evaluation.seed
  pooled = score(test, *how)
  key = headline_metric(test)
  return {
    'headline': {
      'metric': key,
      'name': NAMES[key],
      'average': pooled.get('average'),
      **pooled['overall'][key],
    },
    'pooled': pooled,
    'folds': {
      str(fold): score(test.take(test.fold == fold), *how) for fold in np.unique(test.fold)
    },
    'predicted': calibration.predicted(test),
  }


def verdict(evaluation: Evaluation) -> str:
  """How well the classes are told apart, or by how much numbers are missed."""
  metrics, target = evaluation.metrics, evaluation.test.target
  headline, few = metrics['headline'], too_few_for_average(evaluation.test)
  if headline['low'] is None or few:
    what = 'The error' if target.numeric else 'Discrimination'
    return f'{what} cannot be judged: {headline["reason"] or few}.'
  if target.numeric:
    return _verdict_of_numbers(metrics, target)
  of = 'Averaged over all classes, ' if headline['average'] == 'macro' else ''
  found = f'{of}{headline["name"]} is {in_words(headline)}'
  if headline['low'] <= 0.5:
    wrong = headline['high'] < 0.5
    told = (
      'worse than chance' if wrong else 'which may be chance: the interval includes 0.5'
    )
    return f'{found}, {told}.'
  name = 'a class' if of else f'"{headline["average"]}"'
  return (
    f'{found}: of 100 pairs of a sample with {name} and one without, the model gives the '
    f'higher risk to the right one in {100 * headline["value"]:.0f}.'
  )


def _verdict_of_numbers(metrics: Mapping[str, Any], target: Target) -> str:
  error, explained = metrics['headline'], metrics['pooled']['overall']['r2']
  found = f'Predictions are off by {in_unit(error, target)} on average'
  if explained['value'] is None:
    return f'{found}; whether that is better than a constant cannot be judged.'
  if not excludes(explained, 0.0):
    return f'{found}, which is not shown to be better than predicting the mean.'
  if explained['value'] < 0:
    return f'{found}, worse than predicting the mean of all.'
  share = f'{100 * explained["value"]:.0f} %'
  return f'{found} and explain {share} of the variance of the true values.'


def render(evaluation: Evaluation) -> Section:
  """Metrics over the pooled test rows and in each fold."""
  if evaluation.test.target.numeric:
    return _errors(evaluation)
  metrics, test = evaluation.metrics, evaluation.test
  pooled = metrics['pooled']
  rows: list[Sequence[Cell]] = []
  if pooled['average'] == 'macro':
    rows += [('Macro average',), *estimates(pooled['overall'], CLASS_METRICS)]
  if 'micro' in pooled:
    rows += [('Micro average',), *estimates(pooled['micro'], CLASS_METRICS)]
  for name, found in pooled['classes'].items():
    share = f'{name}, {_percent(found["prevalence"])} of samples'
    rows += [(share,), *estimates(found, CLASS_METRICS)]
  header = ('', 'Value', INTERVAL, 'n', 'Events')
  caption = 'One class against the rest, all test samples'
  if 'micro' in pooled:
    caption = 'Each label, in the test samples in which it is known'
  table = Table(header, rows, (1, 3, 4), caption)
  roc, recall, distributions = {}, {}, []
  drawn = sorted(test.outcomes, key=lambda each: -each.positive.sum())[:MOST_DRAWN]
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
  pictures = [plots.roc(roc), plots.precision_recall(recall)] if roc else []
  blocks: list[Block] = [table, Gallery([*pictures, *distributions])]
  if pooled['average'] == 'macro':
    blocks.append(Paragraph(_of_averages(test, 'micro' in pooled)))
  return Section(
    'discrimination', 'Discrimination', [*blocks, _folds(metrics, CLASS_METRICS)]
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
    f'a label. Curves are of the {min(MOST_DRAWN, len(test.outcomes))} most frequent '
    'labels.'
  )


def _percent(share: float | None) -> str:
  return NONE if share is None else f'{100 * share:.1f} %'


def _errors(evaluation: Evaluation) -> Section:
  metrics, test = evaluation.metrics, evaluation.test
  rows = []
  for name in _NUMERIC_METRICS:
    metric = metrics['pooled']['overall'][name]
    unit = '' if name == 'r2' else test.target.unit
    value = number(metric['value'], 2)
    rows.append((NAMES[name], value, unit, interval(metric, 2), count(metric['n'])))
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
    Table(('', 'Value', 'Unit', INTERVAL, 'n'), rows, (1, 4), 'All test samples'),
    Gallery([plots.predicted_against_true(test.label, test.prediction, test.target.unit)]),
    Table(
      (f'True{unit}', 'n', f'Bias{unit}', INTERVAL, f'MAE{unit}', INTERVAL),
      bands,
      (1, 2, 4),
      'By the true value; bias is predicted minus true',
    ),
    _folds(metrics, _NUMERIC_METRICS),
  ]
  return Section('discrimination', 'Error', blocks)


def _folds(metrics: Mapping[str, Any], names: Sequence[str]) -> Block:
  rows = []
  digits = 2 if metrics['target']['kind'] == 'regression' else 3
  for fold, found in metrics['folds'].items():
    overall = found['overall']
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
