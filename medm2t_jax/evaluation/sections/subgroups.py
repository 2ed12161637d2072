"""The headline metric in subgroups of patients and of available data.

Groups come from the attributes (age in bands, the others by level) and from which
modalities a sample has. Nothing here is a model input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from medm2t_jax.evaluation.metrics.bootstrap import RESAMPLES
from medm2t_jax.evaluation.metrics.metrics import headline_estimate
from medm2t_jax.evaluation.results import LEAST_EVENTS, LEAST_SAMPLES, Evaluation
from medm2t_jax.evaluation.rows import Rows
from medm2t_jax.evaluation.sections.section import Needs
from medm2t_jax.evaluation.sections.tables import INTERVAL, limits_of
from medm2t_jax.report import plots
from medm2t_jax.report.blocks import Block, Cell, Details, Paragraph, Section, Table
from medm2t_jax.report.text import count, in_brackets, interval, number
from medm2t_jax.runs.run import Run

NAME = 'subgroups'

AGE_BANDS = (18, 45, 65, 75, 85)  # years; the last band is open
# Levels beyond these are pooled: race has dozens of small ones in MIMIC-IV.
MOST_LEVELS = 8
UNKNOWN = 'unknown'


def needs(_: Sequence[Run]) -> Needs:
  """Nothing more than the predictions that all have."""
  return Needs()


def compute(evaluation: Evaluation) -> dict[str, Any]:
  """The headline metric of each group."""
  found = subgroups(evaluation.test, evaluation.resamples, evaluation.seed)
  return {'subgroups': found}


def render(evaluation: Evaluation) -> Section | None:
  """The headline metric in each subgroup, as table and forest plot in one.

  Groups that say little are folded away.
  """
  groupings = evaluation.metrics['subgroups']
  if not groupings:
    return None
  metrics = [group['metric'] for each in groupings for group in each['groups']]
  ends = (0.0, None) if evaluation.test.target.numeric else (None, 1.0)
  limits = limits_of([evaluation.metrics['headline'], *metrics], *ends)
  large, small = (
    _table(evaluation, groupings, limits, small=small) for small in (False, True)
  )
  blocks: list[Block] = [
    Paragraph(
      'Dashed line: all test samples. Differences between groups are '
      'not tested; small groups vary by chance.'
    ),
  ]
  blocks += [large] if large.rows else []
  if small.rows:
    many = sum(len(row) > 1 for row in small.rows)
    title = f'{count(many)} {"group" if many == 1 else "groups"} too small to judge alone'
    blocks.append(Details(title, [small]))
  return Section('subgroups', 'Subgroups', blocks)


def _table(
  evaluation: Evaluation,
  groupings: Sequence[Mapping[str, Any]],
  limits: tuple[float, float],
  *,
  small: bool,
) -> Table:
  """The groups that have a warning, or those that have none."""
  headline, target = evaluation.metrics['headline'], evaluation.test.target
  digits = 2 if target.numeric else 3
  rows: list[Sequence[Cell]] = []
  for grouping in groupings:
    groups = [each for each in grouping['groups'] if bool(each['warning']) == small]
    rows += [(grouping['by'].capitalize(),)] if groups else []
    for group in groups:
      metric = group['metric']
      bar = plots.interval_bar(
        metric['value'], metric['low'], metric['high'], limits, headline['value']
      )
      cells = [
        group['name'],
        count(group['n']),
        count(group['subjects']),
        count(group['events']),
        number(metric['value'], digits),
        bar,
        interval(metric, digits),
        *([group['warning']] if small else []),
      ]
      rows.append([*cells[:3], *cells[4:]] if target.numeric else cells)
  name = headline['name'] + (in_brackets(target.unit))
  low, high = number(limits[0], 2), number(limits[1], 2)
  header = ['', 'n', 'Subjects', 'Events', name, f'{low} … {high}', INTERVAL]
  header += ['Why'] if small else []
  numeric = (1, 2, 3, 4)
  if target.numeric:
    header, numeric = [*header[:3], *header[4:]], (1, 2, 3)
  return Table(header, rows, numeric)


def subgroups(
  rows: Rows, resamples: int = RESAMPLES, seed: int = 0
) -> list[dict[str, Any]]:
  """[{'by', 'groups': [{'name', 'n', 'subjects', 'events', 'metric', 'warning'}]}].

  `metric` is the estimate of the headline metric. `warning` is None or says what the
  group has too few of to be read alone.
  """
  result = []
  for by, names in _groupings(rows):
    groups = []
    for name in _ordered(by, names):
      group = rows.take(names == name)
      groups.append(
        {
          'name': name,
          **group.counts(),
          'metric': headline_estimate(group, resamples, seed),
          'warning': too_few(group),
        }
      )
    result.append({'by': by, 'groups': groups})
  return result


def too_few(rows: Rows) -> str | None:
  """A warning where metrics of `rows` rest on too little; None otherwise."""
  if rows.target.numeric:
    small = len(rows) < LEAST_SAMPLES
    return f'fewer than {LEAST_SAMPLES} samples' if small else None
  rarest = min(
    min(int(each.positive.sum()), int((~each.positive).sum())) for each in rows.outcomes
  )
  problems = []
  if len(rows) < LEAST_SAMPLES:
    problems.append(f'{LEAST_SAMPLES} samples')
  if rarest < LEAST_EVENTS:
    problems.append(f'{LEAST_EVENTS} cases of the rarest class')
  return 'fewer than ' + ' and '.join(problems) if problems else None


def _groupings(rows: Rows) -> Iterator[tuple[str, np.ndarray]]:
  for attribute, values in rows.attributes.items():
    if attribute == 'age':
      yield 'age (years)', np.array([_age_band(value) for value in values], object)
    else:
      yield attribute.replace('_', ' '), _pooled(values)
  for modality, present in rows.present.items():
    names = np.where(present, 'present', 'absent').astype(object)
    yield f'{modality} data', names
  if rows.present:
    stacked = np.stack(list(rows.present.values()), axis=1)
    listed = [' + '.join(np.array(list(rows.present))[row]) or 'none' for row in stacked]
    yield 'data that are present', _pooled(np.array(listed, object))


def _age_band(age: float | None) -> str:
  if age is None or not np.isfinite(age):
    return UNKNOWN
  if age < AGE_BANDS[0]:
    return f'below {AGE_BANDS[0]}'
  if age >= AGE_BANDS[-1]:
    return f'{AGE_BANDS[-1]} and above'
  upper = next(cut for cut in AGE_BANDS if age < cut)
  return f'{AGE_BANDS[AGE_BANDS.index(upper) - 1]}–{upper - 1}'


def _pooled(values: np.ndarray) -> np.ndarray:
  """Values (n) as text; None is `UNKNOWN`, rare levels beyond the most are pooled."""
  text = np.array([UNKNOWN if each is None else str(each) for each in values], object)
  levels, counts = np.unique(text.astype(str), return_counts=True)
  if len(levels) <= MOST_LEVELS:
    return text
  kept = set(levels[np.argsort(-counts, kind='stable')[:MOST_LEVELS]])
  pooled = f'{len(levels) - MOST_LEVELS} smaller groups'
  return np.array([each if each in kept else pooled for each in text], object)


def _ordered(by: str, names: np.ndarray) -> list[str]:
  levels, counts = np.unique(names.astype(str), return_counts=True)
  if by.startswith('age'):
    order = ['below', *(str(cut) for cut in AGE_BANDS)]
    rank = lambda name: next(
      (i for i, start in enumerate(order) if name.startswith(start)), len(order)
    )
    return sorted(levels.tolist(), key=rank)
  return levels[np.argsort(-counts, kind='stable')].tolist()
