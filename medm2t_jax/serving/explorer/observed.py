"""Collects the observations of a patient by variable, and when each became known."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.format import modalities as format_kinds
from data_pipeline.format.items import Item
from data_pipeline.format.schema import Schema
from data_pipeline.reading.arranging import Example, arrange_whole
from medm2t_jax.inference.trained_model import TrainedModel
from medm2t_jax.modalities import Modality
from medm2t_jax.modalities.shown import Arrays, Recording, Shown
from medm2t_jax.serving.explorer.moments import known_at


@dataclasses.dataclass
class Variable:
  """The observations of one variable. Letter: n observations.

  Attributes:
    modality: of the variable.
    item: the variable.
    hours: of each observation, relative to the prediction time, ascending (n).
    values: numbers, or categories (n).
    attributions: to the prediction (n), zeros if it was not explained.
    known: number of observations known at each moment.
  """

  modality: str
  item: Item
  hours: list[float]
  values: list[float | str]
  attributions: list[float]
  known: list[int]


@dataclasses.dataclass(frozen=True)
class Observed:
  """All observations of a patient.

  Attributes:
    variables: with times.
    constant: variables without times: (modality, name, value or None, unit).
    recording: the most recent recording; None if there is none.
    recordings: hours of all recordings, and the number known at each moment.
    entries: modality -> (hours, attribution) of each observation that has a time.
  """

  variables: Sequence[Variable]
  constant: Sequence[tuple[str, str, float | None, str]]
  recording: Recording | None
  recordings: tuple[Sequence[float], Sequence[int]]
  entries: Mapping[str, tuple[np.ndarray, np.ndarray]]


def observed(
  model: TrainedModel,
  example: Example,
  moments: np.ndarray,
  attributions: Mapping[str, Arrays],
) -> Observed:
  """Collects the observations of a patient.

  Args:
    model: that reads them.
    example: modality -> arrays, as a record stores them; a modality may be missing.
    moments: in hours, ascending, the last is 0.
    attributions: modality -> attributions of all entries of the example (`of_entries`).
  """
  schema = model.schema
  variables: list[Variable] = []
  constant, entries, recording = [], {}, None
  times: Sequence[float] = ()
  recorded = [0] * len(moments)
  for modality in model.model_config.modalities:
    name = modality.name
    if name not in example:
      continue
    arrays = row_arrays(schema, modality, example)
    if not modality.timed:
      found = modality.attributed(arrays, attributions[name])
      constant += [(name, each.name, each.value, each.unit) for each in found]
      continue
    shown = modality.shown(arrays, attributions[name])
    entries[name] = _entries(modality.spec, arrays, attributions[name], shown)
    own = _variables(name, shown, len(moments))
    for place, hours in enumerate(moments.tolist()):
      then = row_arrays(schema, modality, known_at(schema, {name: example[name]}, hours))
      at_moment = modality.shown(then, nothing(modality, then))
      for item, each in _variables(name, at_moment, 0).items():
        own[item].known[place] = len(each.hours)
      if at_moment.recording is not None:
        recorded[place] = at_moment.recording.recordings
    variables += own.values()
    if shown.recording is not None:
      recording, times = shown.recording, entries[name][0].tolist()
  return Observed(variables, constant, recording, (times, recorded), entries)


def row_arrays(schema: Schema, modality: Modality, example: Example) -> Arrays:
  """All arrays of a modality of one example, as in a batch but without the axis of rows."""
  name = modality.name
  batch = arrange_whole(schema.only((name,)), {name: example[name]})[name]
  if modality.spec.layout == 'packed':
    return {key: array for key, array in batch.items() if key != 'owner'}
  return {key: array[0] for key, array in batch.items()}


def nothing(modality: Modality, arrays: Arrays) -> dict[str, np.ndarray]:
  """Zero attributions."""
  return {
    gate: np.zeros(arrays[array].shape, np.float32)
    for gate, array in modality.gates.items()
  }


def of_entries(
  modality: Modality, arrays: Arrays, explained: Arrays, attributions: Arrays
) -> dict[str, np.ndarray]:
  """Attributions of all entries of an example; 0 for entries that the model did not read.

  Args:
    modality: of the model.
    arrays: from `row_arrays`.
    explained: the same modality as the model read it: its most recent entries.
    attributions: of `explained`.
  """
  if modality.spec.layout == 'fixed':
    return dict(attributions)
  result = nothing(modality, arrays)
  stop, count = int(arrays['mask'].sum()), int(explained['mask'].sum())
  for gate, array in result.items():
    array[stop - count : stop] = attributions[gate][explained['mask']]
  return result


def _variables(name: str, shown: Shown, moments: int) -> dict[Item, Variable]:
  """Time courses, signals and categorical events."""
  found: dict[Item, Variable] = {}
  for course in (*shown.courses, *shown.signals):
    found[course.item] = Variable(
      name,
      course.item,
      course.hours.tolist(),
      course.values.tolist(),
      course.attributions.tolist(),
      [0] * moments,
    )
  for event in shown.events:
    if event.value is None:
      empty = Variable(name, event.item, [], [], [], [0] * moments)
      each = found.setdefault(event.item, empty)
      each.hours.append(event.hours)
      each.values.append(event.category)
      each.attributions.append(event.attribution)
  return found


def _entries(
  spec: format_kinds.Modality, arrays: Arrays, attributions: Arrays, shown: Shown
) -> tuple[np.ndarray, np.ndarray]:
  """Hours of all entries, and the attribution summed over all arrays of each."""
  if spec.time is not None:
    mask: Any = arrays['mask']
    total = sum(each.reshape(len(each), -1).sum(axis=1) for each in attributions.values())
    return arrays[spec.time][mask], np.asarray(total)[mask]
  courses = shown.signals
  if not courses:
    return np.zeros(0), np.zeros(0)
  hours = np.concatenate([each.hours for each in courses])
  return hours, np.concatenate([each.attributions for each in courses])
