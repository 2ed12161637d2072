"""Inputs of a report beside the predictions: data, training, environment."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.format.schema import Schema


@dataclasses.dataclass(frozen=True)
class DamageLevel:
  """Predictions at one level of damage.

  Attributes:
    level: on the axis of its curve.
    prediction: float (n c) or (n,), in the order of the curve's samples.
    refused: number of recordings that the conditioning refused after the damage; they are
      absent.
  """

  level: float
  prediction: np.ndarray
  refused: int = 0


@dataclasses.dataclass(frozen=True)
class DamageCurve:
  """Predictions of some test samples at increasing levels of damage.

  Attributes:
    name: of the curve.
    title: in words.
    axis: what a level measures; curves with the same axis share a picture.
    samples: int64 (n): ids of test samples, the same for all levels.
    undamaged: their predictions without damage, in the same batches.
    levels: from mild to severe.
    reason: why there is no curve; None if there is one.
  """

  name: str
  title: str
  axis: str
  samples: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
  undamaged: np.ndarray | None = None
  levels: Sequence[DamageLevel] = ()
  reason: str | None = None


@dataclasses.dataclass(frozen=True)
class Context:
  """Everything that `write_report` cannot read from the predictions.

  Attributes:
    schema: the data set's schema.
    config: the experiment's configuration, JSON-able.
    cohort: `cohort.json`: {'steps': [{'step', 'samples', 'subjects'}], 'rows': {table:
      {reason: n}}}.
    environment: versions and devices, name -> value.
    trained_on: one entry per fold: {'fold', 'first', 'final'}: numbers of training subjects
      of its first run (on which all validation metrics are based) and of its final run.
    stages: one entry per trained stage: {'fold', 'refit', 'stage', 'epochs', 'best_epoch',
      'validation_loss', 'parameters', 'seconds', 'history': [{'epoch', 'train_loss',
      'validation_loss'}]}; metrics may be None, and a refit's history has no validation.
    sections: names of the report's sections.
    seconds: section -> duration of the predictions that it needed.
    dataset_version: version of the prepared data.
    fold_hashes: the keyed hashes of the folds as in `dataset.json`; the report shows one
      digest of them.
    notes: warnings at the top of the page.
  """

  schema: Schema
  config: Mapping[str, Any]
  cohort: Mapping[str, Any]
  environment: Mapping[str, Any]
  trained_on: Sequence[Mapping[str, int]] = ()
  stages: Sequence[Mapping[str, Any]] = ()
  sections: Sequence[str] = ()
  seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
  dataset_version: str = ''
  fold_hashes: Any = None
  notes: Sequence[str] = ()

  @property
  def refit(self) -> bool:
    """Whether the final runs were trained on validation subjects too."""
    return any(each['final'] > each['first'] for each in self.trained_on)
