"""The position of a stage's training, saved in every checkpoint."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from medm2t_jax.training import selection


@dataclasses.dataclass
class Position:
  """How far the training of a stage has got.

  Attributes:
    epoch: the current epoch, from 0.
    step: steps made in this epoch.
    loss_total: sum of weighted losses in this epoch.
    loss_weight: sum of their weights.
    history: one record per finished epoch: `epoch`, from 1; `step`, of its checkpoint;
      `train_loss`, and the metrics of validation subjects.
    batch_size: samples of its full steps, over all devices; 0 if it is not known.
    notes: what a reader of the results must know, such as damaged checkpoints.
  """

  epoch: int = 0
  step: int = 0
  loss_total: float = 0.0
  loss_weight: float = 0.0
  history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  batch_size: int = 0
  notes: list[str] = dataclasses.field(default_factory=list)

  def after_epoch(self, record: dict[str, Any]) -> Position:
    """The start of the next epoch; `record` of the finished one joins the history."""
    return Position(
      epoch=self.epoch + 1,
      history=[*self.history, record],
      batch_size=self.batch_size,
      notes=self.notes,
    )

  def best(self, select_by: str) -> dict[str, Any] | None:
    """The record of the best epoch by `select_by`; the last one if several are equal."""
    if not self.history:
      return None
    values = [selection.badness(record, select_by) for record in self.history]
    return self.history[len(values) - 1 - int(np.argmin(values[::-1]))]

  def stale_epochs(self, select_by: str) -> int:
    """Number of finished epochs since the best one."""
    best = self.best(select_by)
    return len(self.history) - best['epoch'] if best else 0
