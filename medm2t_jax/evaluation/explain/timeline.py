"""The page of one test sample: its data over time, and their attributions.

A separate file beside the report. It is self-contained and shows no identifier: no subject,
no sample, no date.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from data_pipeline.format.schema import Schema
from data_pipeline.format.time_units import unit_of
from medm2t_jax import targets
from medm2t_jax.evaluation.explain import explanation_plots
from medm2t_jax.evaluation.explain.explanation import Attention, ExplainedSample
from medm2t_jax.modalities.shown import Course, Recording, Shown
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
    _contributions(sample),
    _courses(sample),
    _events(sample),
    _recordings(sample),
    _attention(sample),
  ]
  return document(
    kicker='MedM2T evaluation: explanation of a prediction',
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
    Callout('This page shows values of one patient: protect it like the data.')
  ]
  if not found.holds:
    blocks.append(
      Callout(
        f'The attributions do not add up: {number(found.residual)} of '
        f'{number(found.output - found.baseline)} is unexplained. Read them with care.'
      )
    )
  return Section('prediction', 'Prediction', [*blocks, Table(('', ''), rows)])


def _contributions(sample: ExplainedSample) -> Section:
  items = sorted(sample.items, key=lambda each: -abs(each.attribution))
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
        'Orange raises the output, blue lowers it, compared with a sample that was '
        'observed equally often but has only unremarkable values. The list of variables '
        'is about the whole model; single values and signals below are about the network.'
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


def _shown(sample: ExplainedSample) -> list[tuple[str, Shown]]:
  """Modality -> what is shown of it."""
  return [
    (each.name, each.shown(sample.arrays[each.name], sample.attributions[each.name]))
    for each in sample.modalities
  ]


def _courses(sample: ExplainedSample) -> Section:
  """Numbers over time: the most contributing items of events, and all signals of grids."""
  shown = _shown(sample)
  courses = [course for _, each in shown for course in each.courses]
  courses.sort(key=lambda each: -float(np.abs(each.attributions).sum()))
  blocks: list[Block] = []
  if courses:
    pictures = [_course(each) for each in courses[:MOST_COURSES]]
    more = len(courses) - len(pictures)
    text = 'Points are coloured and sized by attribution.'
    if more:
      text += f' The list of events has {count(more)} variables that contributed less.'
    blocks += [Paragraph(text), Gallery(pictures)]
  for name, each in shown:
    if each.signals:
      blocks += [Heading(name), Gallery([_course(signal) for signal in each.signals])]
  return Section('course', 'Over time', blocks)


def _course(course: Course) -> Figure:
  return explanation_plots.course(
    course.item.name, course.item.unit, course.hours, course.values, course.attributions
  )


def _events(sample: ExplainedSample) -> Section:
  blocks: list[Block] = []
  for name, each in _shown(sample):
    rows: list[tuple[Cell, ...]] = []
    unit = unit_of(max((-event.hours for event in each.events), default=0.0))
    for event in each.events:
      told = event.category
      if event.value is not None:
        told = f'{number(event.value, 2)} {event.item.unit}'.strip()
      when, attribution = number(event.hours / unit.hours, 2), number(event.attribution, 4)
      rows.append((when, event.item.name, told, attribution))
    if rows:
      header = (unit.name.capitalize(), 'Variable', 'Value', 'Attribution')
      table = Table(header, rows, (0, 3))
      blocks.append(Details(f'{name}: {count(len(rows))} events', [table]))
  return Section('events', 'All events', blocks)


def _recordings(sample: ExplainedSample) -> Section:
  blocks: list[Block] = []
  for name, each in _shown(sample):
    if each.recording is not None:
      blocks += _recording(name, each.recording)
  return Section('ecg', 'ECG', blocks)


def _recording(name: str, recording: Recording) -> list[Block]:
  own = float(recording.attributions.sum(dtype=np.float64))
  unit = unit_of(-recording.hours)
  blocks: list[Block] = [
    Paragraph(
      f'The most recent of {count(recording.recordings)} recordings ({name}), at '
      f'{number(recording.hours / unit.hours, 2)} {unit.symbol}. Attribution of its '
      f'signal: {number(own, 4)}, of all signals: {number(recording.all_signals, 4)}.'
    ),
    explanation_plots.strip(recording),
  ]
  rows: list[tuple[Cell, ...]] = [
    (found, '' if value is None else number(value, 1), number(attribution, 4))
    for found, value, attribution in recording.findings
  ]
  if rows:
    header = ('Measurement or term', 'Value', 'Attribution')
    blocks.append(Table(header, rows, (1, 2), 'Of the same recording'))
  return blocks


def _attention(sample: ExplainedSample) -> Section:
  """Plots for every part with more than one token."""
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
        'Attention weights of each part of the sample on every other part, by time '
        'relative to the prediction time, or by seconds of the most recent recording. '
        'Weights show where the model looked, the attributions above what effect that had.'
      ),
      *(explanation_plots.attention(name, looks) for name, looks in of.items()),
      Details('Most looked at', [Table(header, rows, (3,))]),
    ],
  )
