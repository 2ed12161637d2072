"""Patients in memory as samples of a model: what preparation does to files.

Codes, units, repairs and limits are read by the code that prepares MEDS data
(`interpretation`), ECGs are conditioned by `data_pipeline.ecg`, and arrays are made by the
kinds of modalities. What is left for this room is one prediction time a patient: windows,
hours, cells and last values in NumPy, where preparation joins samples and rows in DuckDB.
Tests hold both to the same bytes. Imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.format.modalities import Events, Grid, Static, Waveform
from data_pipeline.format.modalities.staged import StagedRows
from data_pipeline.format.schema import Schema
from data_pipeline.sources.meds import variables
from data_pipeline.sources.meds.patients import charted, events, grids, static
from data_pipeline.sources.meds.patients.recordings import Recording, RecordingReader
from data_pipeline.sources.meds.patients.rows import CodeBook, Rows, Tally

__all__ = ['PatientReader', 'Patients', 'Read', 'Recording']

Part = charted.Part | events.Part | grids.Part | static.Part
# What a request cannot bring says so: reason of a code that nothing of the model reads.
_UNKNOWN = 'ignored: the model does not read this code'


@dataclasses.dataclass(frozen=True)
class Patients:
  """Patients to be predicted, each at one time. Letter: p patients.

  Attributes:
    events: rows of all of them, as MEDS has them: `patient` int64 (place among the
      patients), `time` timestamp[us] (UTC; null: static), `code` string, `numeric_value`
      float32, `text_value` string, `unit` string (null where the code says it, or where
      the value is in the model's unit).
    prediction_time: microseconds since 1970, int64 (p,).
    recordings: ECGs of each.
    static: values of each, by the codes of the model's static columns, in their units.
  """

  events: pa.Table
  prediction_time: np.ndarray
  recordings: Sequence[Sequence[Recording]]
  static: Sequence[Mapping[str, float | str]]


@dataclasses.dataclass(frozen=True)
class Read:
  """What a model sees of patients.

  Attributes:
    examples: of each, modality -> arrays of its variables, as a record stores them. A
      modality that a request cannot bring (notes) is not there.
    coverage: of each, JSON-able: `events` that were given, `used` (of distinct ones), and
      `entries`: how many events, static values or recordings were ignored, dropped or
      repaired, each with its `modality`, `code` and `reason`.
  """

  examples: list[dict[str, Mapping[str, np.ndarray]]]
  coverage: list[dict[str, Any]]


class PatientReader:
  """Reads patients in the variables of a model.

  Attributes:
    unread: modalities of the model that a request cannot bring.
  """

  def __init__(self, schema: Schema, mapping: variables.Mapping | None):
    """What a mapping does not read is read by the model's own codes alone.

    Args:
      schema: of the model.
      mapping: codes of the patients' events; its modalities meet the model's by name, its
        items by code and unit. Every variable is read by `MODALITY//CODE`, too.
    """
    hours = schema.observation_hours
    self._window = None if hours is None else round(hours * 3.6e9)
    self._parts: dict[str, Part] = {}
    self._recordings: dict[str, RecordingReader] = {}
    unread = []
    for name, modality in schema.modalities.items():
      if isinstance(modality, Events):
        entry = mapping.events.get(name) if mapping else None
        kind = charted.Part if entry and entry.charted else events.Part
        self._parts[name] = kind(name, modality, entry or variables.Events())
      elif isinstance(modality, Grid):
        self._parts[name] = grids.Part(
          name, modality, mapping.grids.get(name) if mapping else None
        )
      elif isinstance(modality, Static):
        self._parts[name] = static.Part(name, modality, mapping)
      elif isinstance(modality, Waveform):
        self._recordings[name] = RecordingReader(modality)
      else:
        unread.append(name)
    self.unread = tuple(unread)
    # As preparation: only static columns may share a code.
    self._books = {
      name: CodeBook(name, part.variables, 'allowed' if part.history else 'refused')
      for name, part in self._parts.items()
    }

  def read(self, patients: Patients) -> Read:
    """Reads patients; none of them has an influence on another.

    Nothing after the prediction time is used, and nothing before the model's observation
    window but static values.

    Raises:
      DataError: two items of one modality claim a code (the mapping is wrong).
    """
    count = len(patients.prediction_time)
    rows = Rows(patients.events, patients.prediction_time, self._window)
    tally = Tally(count)
    known = np.zeros(len(rows), bool)
    examples: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, part in self._parts.items():
      own = rows.of_book(self._books[name], history=part.history)
      known |= own.known
      own.count_lost(name, tally)
      table = part.staged(own, patients.prediction_time, patients.static, tally)
      _fill(examples, name, part.modality.examples(StagedRows(name, table, 0, count)))
    for name, reader in self._recordings.items():
      start = None if self._window is None else patients.prediction_time - self._window
      staged = reader.staged(
        name, patients.recordings, patients.prediction_time, start, tally
      )
      _fill(examples, name, reader.modality.examples(staged))
    rows.count_unknown(known, _UNKNOWN, tally)
    given = np.bincount(rows.patient, minlength=count)
    coverage = [
      {'events': int(given[place]), **tally.of_patient(place)} for place in range(count)
    ]
    return Read(examples, coverage)


def _fill(
  examples: Sequence[dict[str, Any]], name: str, made: Iterator[Mapping[str, np.ndarray]]
) -> None:
  for example, arrays in zip(examples, made, strict=True):
    example[name] = arrays
