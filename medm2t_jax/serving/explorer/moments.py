"""Predictions for a patient at earlier moments, each from the data known at that time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from data_pipeline.format.schema import Schema
from data_pipeline.reading.arranging import Example, arrange, bucket_of
from medm2t_jax.inference.member_predictions import member_predictions, members_of
from medm2t_jax.inference.trained_model import TrainedModel

MOST_MOMENTS = 36  # steps of the slider
_STEPS = (0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 12.0, 24.0)  # hours between moments
_ROWS = 8  # per compiled call
# Quantiles of the members: the middle four fifths.
BAND = (0.1, 0.9)


@dataclasses.dataclass(frozen=True)
class RiskOverTime:
  """Predictions for one patient. Letters: t moments, c classes or labels.

  Attributes:
    hours: of the moments, relative to the prediction time, ascending; the last is 0 (t).
    prediction: probabilities (t c), or numbers (t).
    low: lower end of the members' `BAND`, shaped like `prediction`; equal to `high` if
      there is only one member.
    high: upper end.
    members: number of members.
  """

  hours: np.ndarray
  prediction: np.ndarray
  low: np.ndarray
  high: np.ndarray
  members: int


def moments_of(schema: Schema, example: Example) -> np.ndarray:
  """The moments at which to predict a patient, in hours, ascending; the last is 0.

  Inside an observation window they are evenly spaced, in whole hours if the window is a day
  long. In a whole history they are the times at which something became known.
  """
  window = schema.observation_hours
  if window is not None:
    steps = (step for step in _STEPS if window / step <= MOST_MOMENTS)
    step = next(steps, window / MOST_MOMENTS)
    return -step * np.arange(math.floor(window / step), -1, -1.0)
  times = [
    np.asarray(example[name][modality.time], np.float64)
    for name, modality in schema.modalities.items()
    if modality.time is not None and name in example
  ]
  known = np.unique(np.concatenate([np.zeros(1), *times]))
  # An even selection that includes the first and the last.
  chosen = np.linspace(0, len(known) - 1, min(len(known), MOST_MOMENTS))
  return known[np.unique(chosen.round().astype(int))]


class RiskPrograms:
  """Predicts patients at many moments; programs are compiled at their first call."""

  def __init__(self, model: TrainedModel):
    self._model = model
    self._program = jax.jit(member_predictions(model))
    self._members = members_of(model)

  def __call__(self, example: Example) -> RiskOverTime:
    """Predicts one patient at all moments.

    Args:
      example: modality -> arrays, as a record stores them.
    """
    schema = self._model.schema
    hours = moments_of(schema, example)
    seen = [known_at(schema, example, moment) for moment in hours.tolist()]
    found = [self._predict(seen[at : at + _ROWS]) for at in range(0, len(seen), _ROWS)]
    prediction = np.concatenate([each.prediction for each in found])
    members = np.concatenate([each.members for each in found], axis=1)
    low, high = np.quantile(members, BAND, axis=0)
    return RiskOverTime(hours, prediction, low, high, self._members)

  def _predict(self, examples: Sequence[Example]) -> Any:
    """Predicts at most `_ROWS` moments, all in the bucket of the longest one."""
    schema, batching = self._model.schema, self._model.batching
    bucket = max(bucket_of(schema, batching, each) for each in examples)
    packed = [name for name, each in schema.modalities.items() if each.layout == 'packed']
    most = max(
      (_entries(each, name) for each in examples for name in packed if name in each),
      default=1,
    )
    # A power of two, so that few shapes are compiled.
    each = min(batching.max_recordings, 1 << max(0, most - 1).bit_length())
    batch = arrange(
      schema, batching, examples, bucket=bucket, rows=_ROWS, capacity=_ROWS * each
    )
    found = jax.tree.map(np.asarray, self._program(batch))
    count = len(examples)
    return found._replace(
      prediction=found.prediction[:count], members=found.members[:, :count]
    )


def known_at(schema: Schema, example: Example, hours: float) -> Example:
  """The patient as known at a moment, with times relative to that moment."""
  return {
    name: schema.modalities[name].known_at(arrays, hours)
    for name, arrays in example.items()
  }


def _entries(example: Example, name: str) -> int:
  return len(next(iter(example[name].values())))
