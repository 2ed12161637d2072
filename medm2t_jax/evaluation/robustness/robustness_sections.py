"""Section on what damaged input does to the headline figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medm2t_jax.evaluation.results import Evaluation
from medm2t_jax.report import plots
from medm2t_jax.report.blocks import (
  Block,
  Callout,
  Cell,
  Figure,
  Gallery,
  Paragraph,
  Section,
  Table,
)
from medm2t_jax.report.text import NONE, count, in_brackets, in_words, interval, number

_UNDAMAGED = 'none'


def with_damaged_input(evaluation: Evaluation) -> Section | None:
  """The same model under noise, lost data and shifted times."""
  curves = evaluation.metrics['robustness']
  if not curves:
    return None
  shown = [curve for curve in curves if curve['undamaged'] is not None]
  blocks: list[Block] = [
    Paragraph(
      'The trained model on damaged test input; nothing is trained again. Each damage is '
      'done to random test samples that have what it damages; differences are to the '
      'same samples without damage, on the same resamples. Signal-to-noise ratios are '
      'per lead, of the raw recording; machine measurements and report terms of an ECG '
      'are not damaged.'
    )
  ]
  reasons: dict[str, list[str]] = {}
  for curve in curves:
    if curve['undamaged'] is None:
      reasons.setdefault(curve['reason'], []).append(curve['title'])
  blocks += [
    Callout(f'Not shown: {", ".join(titles)}: {reason}.')
    for reason, titles in reasons.items()
  ]
  if shown:
    blocks += [Gallery(_pictures(evaluation, shown)), _table(evaluation, shown)]
  return Section('robustness', 'With damaged input', blocks)


def _pictures(evaluation: Evaluation, curves: Sequence[Mapping[str, Any]]) -> list[Figure]:
  """One picture an axis, where there is more than one level."""
  target = evaluation.test.target
  name = evaluation.metrics['headline']['name'] + (in_brackets(target.unit))
  axes: dict[str, list[Mapping[str, Any]]] = {}
  for curve in curves:
    if len(curve['levels']) > 1:
      axes.setdefault(curve['axis'], []).append(curve)
  return [
    plots.damage(
      {
        curve['title']: [curve['undamaged'], *(each['figure'] for each in curve['levels'])]
        for curve in group
      },
      [_UNDAMAGED, *(_level(each) for each in group[0]['levels'])],
      axis,
      name,
    )
    for axis, group in axes.items()
  ]


def _table(evaluation: Evaluation, curves: Sequence[Mapping[str, Any]]) -> Table:
  digits = 2 if evaluation.test.target.numeric else 3
  rows: list[Sequence[Cell]] = []
  for curve in curves:
    base = curve['undamaged']
    of = f'{count(base["n"])} samples of {count(base["subjects"])} subjects'
    rows.append((f'{curve["title"]} ({of})',))
    rows.append(
      (_UNDAMAGED, number(base['value'], digits), interval(base, digits), NONE, '')
    )
    for each in curve['levels']:
      rows.append(
        (
          f'{curve["axis"]}: {_level(each)}',
          number(each['figure']['value'], digits),
          interval(each['figure'], digits),
          in_words(each['difference'], digits),
          count(each['refused']) if each['refused'] else '',
        )
      )
  header = (
    'Damage',
    evaluation.metrics['headline']['name'],
    '95 % interval',
    'Difference, paired',
    'Recordings refused',
  )
  return Table(header, rows, (1, 4))


def _level(each: Mapping[str, Any]) -> str:
  return f'{each["level"]:g}'.replace('-', '\N{MINUS SIGN}')
