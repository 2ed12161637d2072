"""The headline metric in subgroups of patients and of available data.

Groups come from the attributes (age in bands, the others by level) and from which
modalities a sample has. Nothing here is a model input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.format.schema import Target
from medm2t_jax.evaluation.metrics.bootstrap import RESAMPLES
from medm2t_jax.evaluation.metrics.metrics import digits_of, headline_estimate
from medm2t_jax.evaluation.results import Evaluation
from medm2t_jax.evaluation.rows import Rows
from medm2t_jax.evaluation.sections.judging import excludes, too_few
from medm2t_jax.evaluation.sections.section import Needs
from medm2t_jax.evaluation.sections.tables import INTERVAL, limits_of
from medm2t_jax.report import plots
from medm2t_jax.report.blocks import Block, Cell, Details, Paragraph, Section, Table
from medm2t_jax.report.text import (
  NONE,
  count,
  in_brackets,
  in_words,
  interval,
  number,
  times,
)
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
  """The headline metric of each group.

  Returns:
    'subgroups': as of `subgroups`.
  """
  found = subgroups(evaluation.test, evaluation.resamples, evaluation.seed)
  return {'subgroups': found}


def verdict(evaluation: Evaluation) -> str | None:
  """The groups whose interval leaves out the metric of all test samples."""
  metrics = evaluation.metrics
  if not metrics['subgroups']:
    return None
  return verdict_of(metrics['subgroups'], metrics['headline'], evaluation.test.target)


def render(evaluation: Evaluation) -> Section | None:
  """The headline metric in each subgroup, as table and forest plot in one."""
  metrics = evaluation.metrics
  if not metrics['subgroups']:
    return None
  blocks = blocks_of(metrics['subgroups'], metrics['headline'], evaluation.test.target)
  return Section('subgroups', 'Subgroups', blocks)


def verdict_of(
  groupings: Sequence[Mapping[str, Any]], headline: Mapping[str, Any], target: Target
) -> str:
  """The groups whose interval leaves out the headline metric.

  Args:
    groupings: of `subgroups`.
    headline: estimate of all samples, with its 'name'.
    target: what is predicted.
  """
  judged = [
    (f'{grouping["by"]}: {group["name"]}', group['metric'])
    for grouping in groupings
    for group in grouping['groups']
    if group['warning'] is None and group['metric']['low'] is not None
  ]
  if not judged or headline['value'] is None:
    return 'Subgroups cannot be judged: every group is too small.'
  digits = digits_of(target)
  everyone = f'{headline["name"]} of all samples ({number(headline["value"], digits)})'
  lower: list[str] = []
  higher: list[str] = []
  for name, metric in judged:
    if excludes(metric, headline['value']):
      side = lower if metric['value'] < headline['value'] else higher
      side.append(f'{name} ({in_words(metric, digits)})')
  of = times(len(judged), 'group', 'groups')
  if not lower and not higher:
    return f'{everyone} is inside the interval of each of the {of} that can be judged.'
  parts = [f'lower for {"; ".join(lower)}'] if lower else []
  parts += [f'higher for {"; ".join(higher)}'] if higher else []
  return (
    f'Of {of} that can be judged, the intervals of {len(lower) + len(higher)} leave out '
    f'the {everyone}: it is {", and ".join(parts)}.'
  )


def blocks_of(
  groupings: Sequence[Mapping[str, Any]], headline: Mapping[str, Any], target: Target
) -> list[Block]:
  """The groups as a table; those that say little are folded away.

  Args: as of `verdict_of`.
  """
  metrics = [group['metric'] for each in groupings for group in each['groups']]
  ends = (0.0, None) if target.numeric else (None, 1.0)
  limits = limits_of([headline, *metrics], *ends)
  large, small = (
    _table(groupings, headline, target, limits, small=small) for small in (False, True)
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
    title = f'{times(many, "group", "groups")} too small to judge alone'
    blocks.append(Details(title, [small]))
  return blocks


def _table(
  groupings: Sequence[Mapping[str, Any]],
  headline: Mapping[str, Any],
  target: Target,
  limits: tuple[float, float],
  *,
  small: bool,
) -> Table:
  """The groups that have a warning, or those that have none."""
  digits = digits_of(target)
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
        NONE if small and metric['low'] is None else interval(metric, digits),
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
