"""What was trained, how long, and the losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medm2t_jax.evaluation.results import Evaluation
from medm2t_jax.evaluation.sections.section import Needs
from medm2t_jax.report import plots
from medm2t_jax.report.blocks import Block, Details, Gallery, Paragraph, Section, Table
from medm2t_jax.report.text import count, duration, number, times
from medm2t_jax.runs.run import Run
from medm2t_jax.runs.workdir import run_name

NAME = 'training'


def needs(_: Sequence[Run]) -> Needs:
  """Nothing more than the predictions that all have."""
  return Needs()


def compute(evaluation: Evaluation) -> dict[str, Any]:
  """The records of all stages, and how many subjects each run has trained on.

  Returns:
    'trained_on' and 'stages': those of the context (`evaluation.context.Context`).
  """
  context = evaluation.context
  return {
    'trained_on': [dict(each) for each in context.trained_on],
    'stages': [dict(stage) for stage in context.stages],
  }


def verdict(evaluation: Evaluation) -> str | None:
  """Whether validation was still improving when a stage ended."""
  stages = evaluation.metrics['stages']
  if not stages:
    return None
  judged = [
    each
    for each in stages
    if not each['refit'] and None not in (each['best_epoch'], each['validation_loss'])
  ]
  if not judged:
    return 'Whether training was long enough cannot be judged: no stage has been validated.'
  last = [each for each in judged if each['best_epoch'] >= each['epochs']]
  if not last:
    return 'Every stage was at its best before its last epoch: more epochs would not help.'
  names = list(dict.fromkeys(str(each['stage']) for each in last))
  return (
    f'{len(last)} of {times(len(judged), "trained stage", "trained stages")} were at their '
    f'best in the last epoch ({", ".join(names)}): more epochs may help.'
  )


def render(evaluation: Evaluation) -> Section | None:
  """What was trained, how long, and the losses."""
  stages = evaluation.metrics['stages']
  if not stages:
    return None
  rows = [
    (
      run_name(stage['fold'], stage['refit']).capitalize(),
      str(stage['stage']),
      count(stage['parameters']),
      count(stage['epochs']),
      count(stage['best_epoch']),
      number(stage['validation_loss']),
      duration(stage['seconds']),
    )
    for stage in stages
  ]
  names = list(dict.fromkeys(str(stage['stage']) for stage in stages))
  pictures = [
    plots.training(
      name,
      {
        run_name(stage['fold'], stage['refit']): stage['history']
        for stage in stages
        if str(stage['stage']) == name and stage['history']
      },
    )
    for name in names
  ]
  header = (
    '',
    'Stage',
    'Parameters',
    'Epochs',
    'Best epoch',
    'Validation loss',
    'Time',
  )
  blocks: list[Block] = [
    Table(header, rows, (2, 3, 4, 5, 6)),
    Details('Loss curves', [Gallery(pictures)]),
  ]
  if evaluation.context.refit:
    blocks.insert(
      0,
      Paragraph(
        'A refit trains on the training and validation subjects of its fold together, for '
        'as many epochs as were best in the first run, and predicts the test subjects. '
        'What is measured on validation subjects, temperatures included, is of the first '
        'run.'
      ),
    )
  return Section('training', 'Training', blocks)
