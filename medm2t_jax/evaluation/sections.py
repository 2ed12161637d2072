"""All sections of the page in their order; None where a section does not apply."""

from __future__ import annotations

from collections.abc import Callable

from medm2t_jax.evaluation.baseline_sections import against_baselines
from medm2t_jax.evaluation.explain.explanation_sections import looked_at
from medm2t_jax.evaluation.group_sections import by_subgroup, with_less_data
from medm2t_jax.evaluation.model_card import model_card
from medm2t_jax.evaluation.performance_sections import calibrated, decisions, discrimination
from medm2t_jax.evaluation.results import Evaluation
from medm2t_jax.evaluation.robustness.robustness_sections import with_damaged_input
from medm2t_jax.report import plots
from medm2t_jax.report.blocks import Block, Details, Gallery, Paragraph, Section, Table
from medm2t_jax.report.text import count, duration, number
from medm2t_jax.runs.workdir import run_name


def training(evaluation: Evaluation) -> Section | None:
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


def card(evaluation: Evaluation) -> Section:
  """The model card."""
  return Section('card', 'Model card', model_card(evaluation))


SECTIONS: tuple[Callable[[Evaluation], Section | None], ...] = (
  discrimination,
  against_baselines,
  calibrated,
  decisions,
  by_subgroup,
  with_less_data,
  with_damaged_input,
  looked_at,
  training,
  card,
)
