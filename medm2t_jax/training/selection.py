"""Chooses the best epoch of a stage: by validation loss, by a metric, or the last.

Metrics are computed on the stage's units (samples, recordings or segments) of the
validation subjects, each with its weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn import metrics

from data_pipeline.format.schema import DataError, Target
from medm2t_jax import targets
from medm2t_jax.experiment.validation import LAST, LOSS
from medm2t_jax.targets.kind import HIGHER_IS_BETTER

_RANKED_BY = {
  'auroc': metrics.roc_auc_score, 'average_precision': metrics.average_precision_score
}  # fmt: skip


def is_metric(select_by: str) -> bool:
  """Whether validation has to compute a metric in addition to the loss."""
  return select_by in HIGHER_IS_BETTER


def measured(select_by: str) -> str:
  """Key in an epoch's record of the value that selects; with 'last' that of the loss."""
  return f'validation_{select_by if is_metric(select_by) else LOSS}'


def higher_is_better(select_by: str) -> bool:
  """Whether a larger value of `measured` is better."""
  return HIGHER_IS_BETTER.get(select_by, False)


def badness(record: Mapping[str, Any], select_by: str) -> float:
  """A number that is smallest for the best epoch."""
  if select_by == LAST:
    return -record['epoch']
  value = record[measured(select_by)]
  return -value if higher_is_better(select_by) else value


def value(
  select_by: str,
  outputs: np.ndarray,
  label: np.ndarray,
  weight: np.ndarray,
  target: Target,
  stage: str,
) -> float:
  """The metric `select_by` of validation predictions.

  Args:
    select_by: the name of a metric of the target.
    outputs: of the units with a weight above 0, (u c).
    label: of these units, (u) or (u l).
    weight: of these units, (u).
    target: what the label means.
    stage: for the message.

  Raises:
    DataError: the metric is undefined because a class has no validation unit, or all of
      them.
  """
  kind = targets.of(target)
  if select_by in _RANKED_BY:
    found = kind.ranked(_RANKED_BY[select_by], outputs, label, weight)
  else:
    found = kind.mean_loss(kind.predictions(outputs), label, weight)
  if np.isnan(found):
    raise DataError(
      f'config.recipe.{stage}.select_by={select_by!r} is undefined: a class has none or '
      f"all of the {len(label)} validation labels. Use select_by='{LOSS}'."
    )
  return found
