"""The page of one test sample: what was known over time, and what counted.

A file of its own beside the report, which needs no other file and names nobody: not the
subject, not the sample, no date.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from data_pipeline.format.schema import ECG_MEASUREMENTS, Item, Schema
from medm2t_jax import targets
from medm2t_jax.evaluation.explain import explanation_plots
from medm2t_jax.evaluation.explain.explanation import (
  Attention,
  ExplainedSample,
  items_of,
  most_recent,
)
from medm2t_jax.report.blocks import (
  Block,
  Callout,
  Cell,
  Details,
  Figure,
  Gallery,
  Heading,
  Paragraph,
  Section,
  Table,
)
from medm2t_jax.report.document import document
from medm2t_jax.report.text import count, number, task_name

MOST_ITEMS = 15
MOST_COURSES = 12


def patient_page(schema: Schema, sample: ExplainedSample, number_: int) -> str:
  """The page of a sample as HTML; `number_` is its running number."""
  sections = [
    _prediction(schema, sample),
    _contributions(schema, sample),
    _courses(schema, sample),
    _events(schema, sample),
    _ecg(schema, sample),
    _attention(sample),
  ]
  return document(
    kicker='MedM2T evaluation: what the model looked at',
    title=f'Sample {number_}',
    subtitle=task_name(schema.task, schema.target.description),
    sections=[section for section in sections if section.blocks],
  )


def _prediction(schema: Schema, sample: ExplainedSample) -> Section:
  target, found = schema.target, sample.completeness
  kind = targets.of(target)
  predicted = kind.predicted_in_words(sample.prediction)
  truth = kind.label_in_words(sample.label)
  rows: list[tuple[Cell, ...]] = [
    ('Predicted', predicted),
    ('True', truth),
    ('The prediction was', sample.verdict),
    ('Fold', str(sample.fold)),
    ('Keyed hash of the sample', sample.hash),
    ('Explained output', sample.explained),
    ('Output of the sample', number(found.output)),
    ('Output of the baseline', number(found.baseline)),
    ('Sum of all attributions', number(found.attributed)),
    ('Residual', number(found.residual, 4)),
  ]
  blocks: list[Block] = [
    Callout('This page holds values of one patient: handle it like the data.')
  ]
  if not found.holds:
    blocks.append(
      Callout(
        f'The attributions do not add up: {number(found.residual)} of '
        f'{number(found.output - found.baseline)} is left unexplained. Read them with care.'
      )
    )
  return Section('prediction', 'Prediction', [*blocks, Table(('', ''), rows)])


def _contributions(schema: Schema, sample: ExplainedSample) -> Section:
  items = items_of(schema, sample.arrays, sample.attributions)
  items.sort(key=lambda each: -abs(each.attribution))
  top = items[:MOST_ITEMS]
  if not top:
    return Section('contributions', 'What counted', [])
  of: dict[str, float] = defaultdict(float)
  for each in items:
    of[each.modality] += each.attribution
  named = lambda each: f'{each.name}, {each.modality}'
  attributions = [each.attribution for each in top]
  rows: list[tuple[Cell, ...]] = [
    (
      each.name,
      each.modality,
      '' if each.value is None else f'{number(each.value, 2)} {each.unit}'.strip(),
      count(each.observed),
      number(each.attribution, 4),
    )
    for each in items
  ]
  header = ('Variable', 'Modality', 'Mean value', 'Observed', 'Attribution')
  by_modality = [(name, number(value, 4)) for name, value in of.items()]
  return Section(
    'contributions',
    'What counted',
    [
      Paragraph(
        'Orange raises the output, blue lowers it, against a sample observed just as often '
        'whose every value is unremarkable.'
      ),
      explanation_plots.bars(
        [named(each) for each in top],
        attributions,
        attributions,
        f'Attribution to the {sample.explained}',
      ),
      Table(('Modality', 'Sum of attributions'), by_modality, (1,)),
      Details(f'All {count(len(items))} variables', [Table(header, rows, (2, 3, 4))]),
    ],
  )


def _courses(schema: Schema, sample: ExplainedSample) -> Section:
  """Numbers over time: the most contributing items of events, all signals of grids."""
  found: list[tuple[float, Figure]] = []
  blocks: list[Block] = []
  for name, items in schema.events.items():
    events, token = sample.arrays[name], sample.attributions[name]['token']
    for index in np.unique(events['item'][events['mask']]):
      here = events['mask'] & (events['item'] == index) & np.isfinite(events['value'])
      if items[index].categories or not here.any():
        continue
      values = (events['time'][here], events['value'][here], token[here])
      found.append((float(np.abs(token[here]).sum()), _course(items[index], *values)))
  if found:
    found.sort(key=lambda each: -each[0])
    pictures = [picture for _, picture in found[:MOST_COURSES]]
    more = len(found) - len(pictures)
    text = 'Points are coloured and sized by attribution.'
    if more:
      text += f' {count(more)} variables that contributed less are in the list of events.'
    blocks += [Paragraph(text), Gallery(pictures)]
  for name, grid in schema.grids.items():
    arrays, value = sample.arrays[name], sample.attributions[name]['value']
    hours = (np.arange(grid.steps) + 0.5 - grid.steps) * grid.step_hours
    pictures = []
    for column, item in enumerate(grid.items):
      seen = arrays['observed'][:, column]
      if seen.any():
        values = (hours[seen], arrays['value'][seen, column], value[seen, column])
        pictures.append(_course(item, *values))
    if pictures:
      blocks += [Heading(name), Gallery(pictures)]
  return Section('course', 'Over time', blocks)


def _course(
  item: Item, hours: np.ndarray, values: np.ndarray, attributions: np.ndarray
) -> Figure:
  return explanation_plots.course(item.name, item.unit, hours, values, attributions)


def _events(schema: Schema, sample: ExplainedSample) -> Section:
  blocks: list[Block] = []
  for name, items in schema.events.items():
    events, token = sample.arrays[name], sample.attributions[name]['token']
    rows: list[tuple[Cell, ...]] = []
    for place in np.flatnonzero(events['mask']):
      item = items[events['item'][place]]
      level, value = int(events['category'][place]), float(events['value'][place])
      if item.categories:
        shown = item.categories[level] if 0 <= level < len(item.categories) else 'unknown'
      else:
        shown = f'{number(value, 2)} {item.unit}'.strip() if np.isfinite(value) else ''
      hours = number(float(events['time'][place]), 2)
      rows.append((hours, item.name, shown, number(float(token[place]), 4)))
    if rows:
      table = Table(('Hours', 'Variable', 'Value', 'Attribution'), rows, (0, 3))
      blocks.append(Details(f'{name}: {count(len(rows))} events', [table]))
  return Section('events', 'All events', blocks)


def _ecg(schema: Schema, sample: ExplainedSample) -> Section:
  if 'ecg' not in sample.arrays or not sample.arrays['ecg']['mask'].any():
    return Section('ecg', 'ECG', [])
  ecg, attributions = sample.arrays['ecg'], sample.attributions['ecg']
  latest = most_recent(ecg)
  rows: list[tuple[Cell, ...]] = [
    (
      name.replace('_', ' '),
      number(float(ecg['measurements'][latest, column]), 1),
      number(float(attributions['measurements'][latest, column]), 4),
    )
    for column, name in enumerate(ECG_MEASUREMENTS)
    if ecg['measurements_mask'][latest, column]
  ]
  rows += [
    (
      f'term {schema.ecg_terms[index]}',
      '',
      number(float(attributions['terms'][latest, index]), 4),
    )
    for index in np.flatnonzero(ecg['terms'][latest])
  ]
  recordings = int(ecg['mask'].sum())
  signal = attributions['signal'].sum(axis=(1, 2), dtype=np.float64)
  hours = number(float(ecg['time'][latest]), 2)
  blocks: list[Block] = [
    Paragraph(
      f'The most recent of {count(recordings)} recordings, at {hours} h. Attribution of '
      f'its signal: {number(float(signal[latest]), 4)}, of all signals: '
      f'{number(float(signal.sum()), 4)}.'
    ),
    explanation_plots.ecg_strip(
      ecg['signal'][latest] / ecg['gain'][latest], attributions['signal'][latest]
    ),
  ]
  if rows:
    header = ('Measurement or term', 'Value', 'Attribution')
    blocks.append(Table(header, rows, (1, 2), 'Of the same recording.'))
  return Section('ecg', 'ECG', blocks)


def _attention(sample: ExplainedSample) -> Section:
  """Pictures where there is more than one token to look at."""
  of: dict[str, list[Attention]] = defaultdict(list)
  for look in sample.attention:
    if len(look.tokens) > 1:
      of[look.of].append(look)
  rows: list[tuple[Cell, ...]] = []
  for name, looks in of.items():
    for look in looks:
      most = int(np.argmax(look.weights))
      rows.append((name, look.by, look.tokens[most], number(float(look.weights[most]))))
  if not rows:
    return Section('attention', 'Attention', [])
  header = ('Looked at', 'by', 'Most at', 'Weight')
  return Section(
    'attention',
    'Attention',
    [
      Paragraph(
        'Where each part of the sample looked in every other one, in hours relative to the '
        'prediction; of the most recent recording, in seconds. Weights say where the model '
        'looked, the attributions above what that did.'
      ),
      *(explanation_plots.attention(name, looks) for name, looks in of.items()),
      Details('Most looked at', [Table(header, rows, (3,))]),
    ],
  )
