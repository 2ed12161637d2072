"""By what the best epoch of a stage is chosen: validation loss, a figure, or nothing.

Figures are computed on the stage's units (samples, recordings or segments) of the
validation subjects, each with its weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import special
from sklearn import metrics

from data_pipeline.format.schema import DataError, Target

LOSS = 'loss'
LAST = 'last'  # nothing is chosen: the last epoch is the best


def _auroc(logits: np.ndarray, label: np.ndarray) -> float:
  return _one_vs_rest(metrics.roc_auc_score, logits, label)


def _average_precision(logits: np.ndarray, label: np.ndarray) -> float:
  return _one_vs_rest(metrics.average_precision_score, logits, label)


def _one_vs_rest(score: Callable[..., Any], logits: np.ndarray, label: np.ndarray) -> float:
  """Mean over the classes; of two classes, that of the second."""
  classes = range(logits.shape[1]) if logits.shape[1] > 2 else (1,)
  probability = special.softmax(logits.astype(np.float64), axis=1)
  return float(np.mean([score(label == c, probability[:, c]) for c in classes]))


def _mae(days: np.ndarray, label: np.ndarray) -> float:
  return float(np.abs(days[:, 0].astype(np.float64) - label).mean())


# Name -> kind of target, whether higher is better, figure.
_FIGURES: dict[str, tuple[str, bool, Callable[[np.ndarray, np.ndarray], float]]] = {
  'auroc': ('classes', True, _auroc),
  'average_precision': ('classes', True, _average_precision),
  'mae': ('days', False, _mae),
}


def is_figure(select_by: str) -> bool:
  """Whether validation has to compute a figure beside the loss."""
  return select_by in _FIGURES


def measured(select_by: str) -> str:
  """Name, in an epoch's record, of what is measured: with 'last' it is the loss too."""
  return f'validation_{select_by if is_figure(select_by) else LOSS}'


def higher_is_better(select_by: str) -> bool:
  """Of what is `measured`."""
  return is_figure(select_by) and _FIGURES[select_by][1]


def badness(record: Mapping[str, Any], select_by: str) -> float:
  """What the best epoch has least of."""
  if select_by == LAST:
    return -record['epoch']
  value = record[measured(select_by)]
  return -value if higher_is_better(select_by) else value


def require_known(select_by: str, target: Target, stage: str) -> None:
  """Raises DataError for a name that is unknown, or not for this kind of target."""
  known = [name for name, (kind, _, _) in _FIGURES.items() if kind == target.kind]
  if select_by not in (LOSS, LAST, *known):
    raise DataError(
      f'config.recipe.{stage}.select_by={select_by!r}: for this task it is one of '
      f'{", ".join((LOSS, *known, LAST))}'
    )


def figure(select_by: str, logits: np.ndarray, label: np.ndarray, stage: str) -> float:
  """The figure `select_by` of validation predictions.

  Args:
    select_by: the name of a figure that `require_known` accepts.
    logits: of the units that count (u, c); one column in days.
    label: class index or days (u,).
    stage: for the message.

  Raises:
    DataError: the figure is not defined: a class has no unit, or all of them.
  """
  kind, _, function = _FIGURES[select_by]
  if kind == 'classes':
    counts = np.bincount(label.astype(int), minlength=logits.shape[1])
    if counts.min() == 0:
      raise DataError(
        f'config.recipe.{stage}.select_by={select_by!r} is not defined: of the '
        f'validation labels, {counts.tolist()} are of each class. Use select_by='
        f"'{LOSS}'."
      )
  return function(logits, label)
