"""The model card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medm2t_jax.evaluation.model_card import model_card
from medm2t_jax.evaluation.results import Evaluation
from medm2t_jax.evaluation.sections.section import Needs
from medm2t_jax.report.blocks import Section
from medm2t_jax.report.text import source_name, times
from medm2t_jax.runs.run import Run

NAME = 'card'


def needs(_: Sequence[Run]) -> Needs:
  """Nothing more than the predictions that all have."""
  return Needs()


def compute(_: Evaluation) -> dict[str, Any]:
  """No entries of its own."""
  return {}


def verdict(evaluation: Evaluation) -> str:
  """What the model is for, and whom it was tested on."""
  test, source = evaluation.metrics['test'], evaluation.metrics['source']
  return (
    'For research, not for decisions about patients: the model was tested on '
    f'{times(test["n"], "sample", "samples")} of '
    f'{times(test["subjects"], "subject", "subjects")} of one source, '
    f'{source_name(source)}.'
  )


def render(evaluation: Evaluation) -> Section:
  """Data, cohort, intended use, limits, configuration, environment."""
  return Section('card', 'Model card', model_card(evaluation))
