"""Reads, conditions and describes ECGs of patients like those of a data set."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.ecg import conditioning, report_terms
from data_pipeline.ecg.reading import EcgError, costing_one_file, in_millivolts, read_record
from data_pipeline.format.modalities import Waveform
from data_pipeline.format.modalities.staged import StagedRows
from data_pipeline.format.modalities.waveform import ECG_MEASUREMENTS
from data_pipeline.sources.common.items import read_rows
from data_pipeline.sources.meds.patients.rows import AFTER, BEFORE, Tally

_PLAIN_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.-]*')
_RECORD = 'recording'


@dataclasses.dataclass(frozen=True)
class Recording:
  """A 12-lead ECG of a patient: samples, or the files of a WFDB record.

  Attributes:
    time: microseconds since 1970, UTC.
    signal: (samples, leads) in `unit`, NaN if missing; None: there are files instead.
    sampling_rate: Hz.
    unit: of the samples: mV, uV or V.
    leads: names in any order; further leads are allowed.
    header: content of the .hea file of a WFDB record with one signal file.
    data: content of its .dat file.
    measurements: of `ECG_MEASUREMENTS`, in milliseconds and degrees, from the machine.
    report: lines of the machine's report.
  """

  time: int
  signal: np.ndarray | None = None
  sampling_rate: float = 0.0
  unit: str = 'mV'
  leads: tuple[str, ...] = ()
  header: bytes = b''
  data: bytes = b''
  measurements: Mapping[str, float] = dataclasses.field(default_factory=dict)
  report: tuple[str, ...] = ()


class RecordingReader:
  """Reads the recordings of patients.

  Attributes:
    modality: of the model.
  """

  def __init__(self, modality: Waveform):
    self.modality = modality
    place = {term: number for number, term in enumerate(modality.terms)}
    self._term = [place.get(term, -1) for term in report_terms.terms()]
    rows = {row['measurement']: row for row in read_rows('measurements')}
    self._limits = {
      name: (float(rows[name]['low']), float(rows[name]['high']))
      for name in ECG_MEASUREMENTS
    }

  def staged(
    self,
    name: str,
    recordings: Sequence[Sequence[Recording]],
    prediction_time: np.ndarray,
    start: np.ndarray | None,
    tally: Tally,
  ) -> StagedRows:
    """The staged rows of all patients; unusable recordings are counted with their reason.

    Args:
      name: of the modality.
      recordings: of each patient.
      prediction_time: of each, microseconds since 1970.
      start: of the observation window of each; None: unlimited.
      tally: of the patients.
    """
    rows: list[dict[str, Any]] = []
    read: list[tuple[np.ndarray, float]] = []
    for patient, of_one in enumerate(recordings):
      ordered = sorted(enumerate(of_one), key=lambda each: (each[1].time, each[0]))
      for place, one in ordered:
        reason = ''
        if one.time > prediction_time[patient]:
          reason = AFTER
        elif start is not None and one.time < start[patient]:
          reason = BEFORE
        else:
          try:
            read.append(_conditioned(one))
          except EcgError as error:
            reason = f'dropped: {error.reason}'
        if reason:
          tally.add(patient, name, f'recording {place}', reason)
          continue
        hours = (one.time - int(prediction_time[patient])) / 3.6e9
        rows.append(
          {
            'position': patient,
            'study_id': place,
            'time': np.float32(hours),
            'terms': self._terms(patient, name, one, tally),
            **self._measured(patient, name, one, tally),
          }
        )
    kinds = {
      'position': pa.int64(), 'study_id': pa.int64(), 'time': pa.float32(),
      'terms': pa.list_(pa.int32()), **dict.fromkeys(ECG_MEASUREMENTS, pa.float64()),
    }  # fmt: skip
    table = pa.table(
      {key: pa.array([row[key] for row in rows], kind) for key, kind in kinds.items()}
    )
    return StagedRows(name, table, 0, len(recordings), lambda sample, row: read[row])

  def _measured(
    self, patient: int, name: str, one: Recording, tally: Tally
  ) -> dict[str, float | None]:
    """The measurements inside their limits, as in a data set."""
    found: dict[str, float | None] = dict.fromkeys(ECG_MEASUREMENTS)
    for key, value in one.measurements.items():
      low, high = self._limits[key]
      if low <= value <= high:
        found[key] = value
      else:
        tally.add(patient, name, key, 'missing: measurement out of range or not measurable')
    return found

  def _terms(self, patient: int, name: str, one: Recording, tally: Tally) -> list[int]:
    """Indices of the report's terms among the model's."""
    found: set[int] = set()
    for line in filter(None, (line.strip() for line in one.report)):
      terms, unknown = report_terms.terms_of([line])
      found.update(self._term[term] for term in terms)
      if unknown:
        tally.add(patient, name, 'report', 'dropped: unmatched report line')
    return sorted(found - {-1})


def _conditioned(one: Recording) -> tuple[np.ndarray, float]:
  """Signal and gain, as from `conditioning.condition`."""
  where = Path(_RECORD)
  if one.signal is not None:
    with costing_one_file(where):
      units = [one.unit] * len(one.leads)
      signal = np.array(one.signal, np.float64)
      signal[~np.isfinite(signal)] = np.nan
      in_mv = in_millivolts(signal, one.leads, units, _RECORD)
      return conditioning.condition(in_mv, one.sampling_rate)
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / _RECORD
    path.with_name(f'{_RECORD}.hea').write_bytes(one.header)
    path.with_name(_signal_file(one.header)).write_bytes(one.data)
    signal, rate = read_record(path)
  with costing_one_file(where):
    return conditioning.condition(signal, rate)


def _signal_file(header: bytes) -> str:
  """The only file that a header may name."""
  lines = header.decode('utf-8', errors='replace').splitlines()
  lines = [line for line in lines if line.strip() and not line.startswith('#')]
  named = {line.split()[0] for line in lines[1:]}
  if len(named) != 1 or '/' in lines[0].split()[0]:
    raise EcgError('bad_header', 'the record must have one segment with one signal file')
  (file,) = named
  if not _PLAIN_NAME.fullmatch(file) or file.endswith('.hea'):
    raise EcgError('bad_header', 'the header names a file that a record cannot have')
  return file
