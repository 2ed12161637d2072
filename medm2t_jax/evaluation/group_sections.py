"""Sections on where the headline figure holds: subgroups, fewer modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medm2t_jax.evaluation.results import Evaluation
from medm2t_jax.report import plots
from medm2t_jax.report.blocks import Cell, Paragraph, Section, Table
from medm2t_jax.report.text import NONE, count, in_brackets, in_words, interval, number

_INTERVAL = '95 % interval'


def by_subgroup(evaluation: Evaluation) -> Section | None:
  """The headline figure in each subgroup, as table and forest plot in one."""
  groupings = evaluation.metrics['subgroups']
  if not groupings:
    return None
  headline = evaluation.metrics['headline']
  target = evaluation.test.target
  digits = 2 if target.numeric else 3
  figures = [group['figure'] for each in groupings for group in each['groups']]
  ends = (0.0, None) if target.numeric else (None, 1.0)
  limits = _limits([headline, *figures], *ends)
  rows: list[Sequence[Cell]] = []
  for grouping in groupings:
    rows.append((grouping['by'].capitalize(),))
    for group in grouping['groups']:
      figure = group['figure']
      bar = plots.interval_bar(
        figure['value'], figure['low'], figure['high'], limits, headline['value']
      )
      cells = [
        group['name'],
        count(group['n']),
        count(group['subjects']),
        count(group['events']),
        number(figure['value'], digits),
        bar,
        interval(figure, digits),
        group['warning'] or '',
      ]
      rows.append([*cells[:3], *cells[4:]] if target.numeric else cells)
  name = headline['name'] + (in_brackets(target.unit))
  low, high = number(limits[0], 2), number(limits[1], 2)
  header = ['', 'n', 'Subjects', 'Events', name, f'{low} … {high}', _INTERVAL, 'Caution']
  numeric = (1, 2, 3, 4)
  if target.numeric:
    header, numeric = [*header[:3], *header[4:]], (1, 2, 3)
  return Section(
    'subgroups',
    'Subgroups',
    [
      Paragraph(
        'Dashed line: all test samples. Differences between groups are '
        'not tested; small groups vary by chance.'
      ),
      Table(header, rows, numeric),
    ],
  )


def with_less_data(evaluation: Evaluation) -> Section | None:
  """The same model given only some modalities."""
  scenarios = evaluation.metrics['missing_modality']
  if not scenarios:
    return None
  headline = evaluation.metrics['headline']
  digits = 2 if evaluation.test.target.numeric else 3
  figures = [headline, *(each['figure'] for each in scenarios)]
  limits = _limits(figures, None, None)
  row = lambda name, figure, difference: (
    name,
    number(figure['value'], digits),
    plots.interval_bar(
      figure['value'], figure['low'], figure['high'], limits, headline['value']
    ),
    interval(figure, digits),
    in_words(difference, digits) if difference else NONE,
  )
  rows = [row('everything', headline, None)]
  rows += [row(each['name'], each['figure'], each['difference']) for each in scenarios]
  low, high = number(limits[0], 2), number(limits[1], 2)
  header = ('Given', headline['name'], f'{low} … {high}', _INTERVAL, 'Difference, paired')
  return Section(
    'missing',
    'With fewer modalities',
    [
      Paragraph(
        'The trained model with modalities masked at test; nothing is '
        'trained again. Differences are to everything, on the same '
        'resamples.'
      ),
      Table(header, rows, (1,)),
    ],
  )


def _limits(
  figures: Sequence[Mapping[str, Any]], least: float | None, most: float | None
) -> tuple[float, float]:
  ends = [
    value
    for figure in figures
    for value in (figure['value'], figure['low'], figure['high'])
    if value is not None
  ] or [0.0, 1.0]
  step = 0.1 if max(ends) <= 1 else 1.0
  low = np.floor(min(ends) / step) * step if least is None else least
  high = np.ceil(max(ends) / step) * step if most is None else most
  return float(low), float(high)
