"""Content for the page of a sample: variables, time courses, events and recordings.

Numbers only; `medm2t_jax.evaluation.explain` draws them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data_pipeline.format.items import Item

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class ItemAttribution:
  """The contribution of one variable to one output.

  Attributes:
    modality: of the variable.
    name: of the variable, with its category if it has one.
    unit: physical unit.
    value: mean of the observed values; None without a number.
    observed: number of observed values.
    attribution: sum over these values.
  """

  modality: str
  name: str
  unit: str
  value: float | None
  observed: int
  attribution: float


class ColumnVariable(NamedTuple):
  """The variable that a column describes (`medm2t_jax.models.trunk.columns`).

  Attributes:
    name: as in `ItemAttribution`, with its category if it describes one.
    variable: without its category.
    unit: physical unit.
  """

  name: str
  variable: str
  unit: str = ''

  @classmethod
  def of(cls, item: Item, category: str = '') -> ColumnVariable:
    """The variable of an item, or of one of its categories."""
    name = f'{item.name}: {category}' if category else item.name
    return cls(name, item.name, item.unit)


@dataclasses.dataclass(frozen=True)
class Course:
  """Numbers of a variable over time: hours, values and attributions (n)."""

  item: Item
  hours: np.ndarray
  values: np.ndarray
  attributions: np.ndarray


@dataclasses.dataclass(frozen=True)
class Event:
  """One event; `value` is None for a category or an unknown value."""

  hours: float
  item: Item
  value: float | None
  category: str
  attribution: float


@dataclasses.dataclass(frozen=True)
class Recording:
  """The most recent recording of a signal, in mV, with its findings.

  Attributes:
    hours: its time.
    recordings: total number of recordings.
    signal: (s l), of `leads`, with `rate` samples per second.
    attributions: shaped like `signal`.
    all_signals: sum of the attributions of the signals of all recordings.
    findings: (name, value or None, attribution) of the same recording.
  """

  hours: float
  recordings: int
  signal: np.ndarray
  leads: Sequence[str]
  rate: float
  attributions: np.ndarray
  all_signals: float
  findings: Sequence[tuple[str, float | None, float]]


@dataclasses.dataclass(frozen=True)
class Shown:
  """Content for a sample's page about one modality.

  Attributes:
    courses: drawn if they are among the largest contributions of all modalities.
    signals: all drawn, under the name of the modality.
    events: listed.
    recording: drawn separately.
  """

  courses: Sequence[Course] = ()
  signals: Sequence[Course] = ()
  events: Sequence[Event] = ()
  recording: Recording | None = None


@dataclasses.dataclass(frozen=True)
class Looks:
  """Weights of an attention between parts of one modality.

  Attributes:
    weights: (target, querying part, heads, 1, tokens); the second axis skips the target.
    tokens: part -> names of its tokens.
    present: part -> whether the sample has it.
  """

  weights: np.ndarray
  tokens: Mapping[str, Sequence[str]]
  present: Mapping[str, bool]


def columns_of(
  modality: str,
  items: Sequence[Item],
  value: np.ndarray,
  seen: np.ndarray,
  attribution: np.ndarray,
) -> Iterator[ItemAttribution]:
  """Attributions of variables that are columns of arrays (n v)."""
  for column, item in enumerate(items):
    there = seen[:, column]
    if there.any():
      yield ItemAttribution(
        modality,
        item.name,
        item.unit,
        mean(value[there, column]),
        int(there.sum()),
        float(attribution[:, column].sum()),
      )


def mean(values: np.ndarray) -> float | None:
  """Mean of the finite values; None if there are none."""
  finite = values[np.isfinite(values)]
  return float(finite.mean(dtype=np.float64)) if len(finite) else None


def short(value: float) -> str:
  """A time as text, for the name of a token."""
  digits = '.0f' if abs(value) >= 1000 else '.4g'
  return f'{value:{digits}}'.replace('-', '\N{MINUS SIGN}')
