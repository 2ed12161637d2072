"""A raw recording in any storage format, which its path determines.

| path | format |
|---|---|
| `.npy`, or `TABLE.parquet#ROW` | an array (`arrays`), described by the other columns |
| `.dcm`, `.dicom`, or a file that begins as DICOM | a DICOM waveform (`dicom`) |
| any other | a WFDB record (`reading`), without extension |
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_pipeline.ecg import arrays, dicom
from data_pipeline.ecg.arrays import Description
from data_pipeline.ecg.reading import costing_one_file, read_record

# Columns of a table of recordings that describe arrays; null for other formats.
DESCRIPTION = {'sampling_rate': pa.float64(), 'unit': pa.string(), 'leads': pa.string()}


@dataclasses.dataclass(frozen=True)
class RawRecording:
  """The location of a recording.

  Attributes:
    path: absolute, as in the table above.
    description: of an array.
  """

  path: str
  description: Description = Description()  # noqa: RUF009  (frozen)


def listed(table: pa.Table) -> list[RawRecording]:
  """The recordings of a table's rows.

  Args:
    table: with `path`, and the columns of `DESCRIPTION` or none of them.
  """
  paths = table['path'].to_pylist()
  if not DESCRIPTION.keys() <= {*table.column_names}:
    return [RawRecording(path) for path in paths]
  columns = (table[name].to_pylist() for name in DESCRIPTION)
  described = (Description(*fields) for fields in zip(*columns, strict=True))
  return [RawRecording(*each) for each in zip(paths, described, strict=True)]


def read(recording: RawRecording) -> tuple[np.ndarray, float]:
  """Reads a recording.

  Returns:
    The signal in mV, float64 (samples, 12), leads in the order of `schema.ECG_LEADS`, NaN
    where a sample is missing; and the sampling rate in Hz.

  Raises:
    EcgError: the recording cannot be used; it has the reason.
    DataError: a required package is not installed.
  """
  path = recording.path
  if is_array(path):
    with costing_one_file(Path(path)):
      return arrays.read_array(path, recording.description)
  return dicom.read_dicom(path) if dicom.is_dicom(path) else read_record(path)


def is_array(path: str) -> bool:
  """Whether a path is that of an array, which needs a description."""
  return path.lower().endswith('.npy') or arrays.table_of(path) is not None


def possible_files(path: str) -> tuple[str, ...]:
  """The files of a recording; for a path without extension, all files that it may have."""
  table = arrays.table_of(path)
  if table is not None or path.lower().endswith(('.npy', *dicom.ENDINGS)):
    return (table or path,)
  return (f'{path}.hea', f'{path}.dat', path)


def first_file(path: str) -> Path | None:
  """The first existing file of a recording; None if there is none."""
  found = (Path(each) for each in possible_files(path) if not each.endswith('.dat'))
  return next((each for each in found if each.is_file()), None)
