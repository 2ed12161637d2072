"""When numbers can be judged, and what their intervals say: for the verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_pipeline.format.schema import Target
from medm2t_jax import targets
from medm2t_jax.evaluation.metrics.metrics import digits_of
from medm2t_jax.evaluation.results import LEAST_EVENTS, LEAST_SAMPLES
from medm2t_jax.evaluation.rows import Outcome, Rows
from medm2t_jax.report.text import in_words


def too_few(rows: Rows) -> str | None:
  """What `rows` have too few of for metrics of every class; None where enough."""
  if rows.target.numeric:
    small = len(rows) < LEAST_SAMPLES
    return f'fewer than {LEAST_SAMPLES} samples' if small else None
  problems = []
  if len(rows) < LEAST_SAMPLES:
    problems.append(f'{LEAST_SAMPLES} samples')
  if min(_rarer(each) for each in rows.outcomes) < LEAST_EVENTS:
    problems.append(f'{LEAST_EVENTS} cases of the rarest class')
  return 'fewer than ' + ' and '.join(problems) if problems else None


def too_few_for_average(rows: Rows) -> str | None:
  """`too_few`, but of several labels one with enough cases will do."""
  if targets.of(rows.target).link != 'sigmoid' or len(rows) < LEAST_SAMPLES:
    return too_few(rows)
  enough = max(_rarer(each) for each in rows.outcomes) >= LEAST_EVENTS
  return None if enough else f'fewer than {LEAST_EVENTS} cases of every label'


def in_unit(estimate: Mapping[str, Any], target: Target) -> str:
  """An estimate in words; of numbers with the target's unit."""
  unit = target.unit if target.numeric else ''
  return f'{in_words(estimate, digits_of(target))} {unit}'.rstrip()


def excludes(estimate: Mapping[str, Any], value: float) -> bool:
  """Whether the interval of an estimate leaves a value out; False where there is none."""
  low, high = estimate['low'], estimate['high']
  return low is not None and not low <= value <= high


def worse(difference: Mapping[str, Any], rows: Rows) -> bool:
  """Whether a difference of the headline metric is shown to be one for the worse."""
  return excludes(difference, 0.0) and (difference['value'] > 0) == rows.target.numeric


def _rarer(outcome: Outcome) -> int:
  """Samples with an outcome, or without it: of what there are fewer."""
  return min(int(outcome.positive.sum()), int((~outcome.positive).sum()))
