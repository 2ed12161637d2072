"""What was trained, how long, and the losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medm2t_jax.evaluation.results import Evaluation
from medm2t_jax.evaluation.sections.section import Needs
from medm2t_jax.report import plots
from medm2t_jax.report.blocks import Block, Details, Gallery, Paragraph, Section, Table
from medm2t_jax.report.text import count, duration, number
from medm2t_jax.runs.run import Run
from medm2t_jax.runs.workdir import run_name

NAME = 'training'


def needs(_: Sequence[Run]) -> Needs:
  """Nothing more than the predictions that all have."""
  return Needs()


def compute(evaluation: Evaluation) -> dict[str, Any]:
  """The records of all stages, and how many subjects each run has trained on."""
  context = evaluation.context
  return {
    'trained_on': [dict(each) for each in context.trained_on],
    'stages': [dict(stage) for stage in context.stages],
  }


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
