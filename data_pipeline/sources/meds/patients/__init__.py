"""Converts patients in memory to samples of a model, as the preparation does with files.

Codes, units, repairs and limits are handled by the code that prepares MEDS data
(`interpretation`), ECGs are conditioned by `data_pipeline.ecg`, and arrays are made by the
kinds of modalities. This package handles one prediction time per patient: windows, hours,
cells and last values in NumPy, where the preparation joins samples and rows in DuckDB.
Tests require the same bytes from both. Imports no TensorFlow.
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
# Reason for a code that no modality of the model reads.
_UNKNOWN = 'ignored: the model does not read this code'


@dataclasses.dataclass(frozen=True)
class Patients:
  """Patients to predict, each at one time. Letter: p patients.

  Attributes:
    events: rows of all patients, in the format of MEDS: `patient` int64 (index of the
      patient), `time` timestamp[us] (UTC; null: static), `code` string, `numeric_value`
      float32, `text_value` string, `unit` string (null if the code contains it, or the
      value is in the model's unit).
    prediction_time: microseconds since 1970, int64 (p,).
    recordings: ECGs of each patient.
    static: values of each patient, by the codes of the model's static columns, in their
      units.
  """

  events: pa.Table
  prediction_time: np.ndarray
  recordings: Sequence[Sequence[Recording]]
  static: Sequence[Mapping[str, float | str]]


@dataclasses.dataclass(frozen=True)
class Read:
  """Patients as a model reads them.

  Attributes:
    examples: per patient, modality -> arrays of its variables, as a record stores them.
      Modalities that a request cannot contain (notes) are left out.
    coverage: per patient, JSON-able: `events` that were given, `used` (distinct ones), and
      `entries`: numbers of events, static values or recordings that were ignored, dropped
      or repaired, each with `modality`, `code` and `reason`.
  """

  examples: list[dict[str, Mapping[str, np.ndarray]]]
  coverage: list[dict[str, Any]]


class PatientReader:
  """Reads patients in the variables of a model.

  Attributes:
    unread: modalities of the model that a request cannot contain.
  """

  def __init__(self, schema: Schema, mapping: variables.Mapping | None):
    """Matches the mapping with the model, whose own codes can always be read.

    Args:
      schema: of the model.
      mapping: codes of the patients' events; its modalities are matched with the model's by
        name, its items by code and unit. Every variable can also be given as
        `MODALITY//CODE`.
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
    # As in the preparation, only static columns may share a code.
    self._books = {
      name: CodeBook(name, part.variables, 'allowed' if part.history else 'refused')
      for name, part in self._parts.items()
    }

  def read(self, patients: Patients) -> Read:
    """Reads patients, which do not influence each other.

    Nothing after the prediction time is used, and nothing before the model's observation
    window except static values.

    Raises:
      DataError: two items of one modality claim a code, so the mapping is wrong.
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
