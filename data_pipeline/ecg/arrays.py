"""Reads 12-lead ECGs stored as plain arrays: NumPy files, or a column of a parquet table.

An array has two axes, samples and leads, in either order, and does not describe itself: its
sampling rate, unit and lead names come with its path (`raw_recording`).
"""

from __future__ import annotations

import dataclasses
import functools
import re
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline.ecg.reading import MOST_SAMPLES, EcgError, in_millivolts
from data_pipeline.format.schema import DataError

SAMPLES = 'samples'  # the column of a table
# Largest uncompressed size of the column in one row group, which is read as a whole.
MOST_GROUP_BYTES = 1 << 25
_ROW = re.compile(r'(?P<table>.+\.parquet)#(?P<row>\d+)')
_NAMES = re.compile(r'[,;\s]+')


@dataclasses.dataclass(frozen=True)
class Description:
  """Metadata that an array lacks.

  Attributes:
    sampling_rate: Hz, None if unknown.
    unit: of the values.
    leads: comma-separated names in the order of the array.
  """

  sampling_rate: float | None = None
  unit: str | None = None
  leads: str | None = None


def row_path(table: str, row: str) -> str:
  """SQL for the path of a table row, given SQL for the table and the row."""
  return f"{table} || '#' || {row}"


def table_of(path: str) -> str | None:
  """The table in the path of a row; None for the path of a file."""
  match = _ROW.fullmatch(path)
  return match['table'] if match else None


def read_array(path: str, description: Description) -> tuple[np.ndarray, float]:
  """Reads a NumPy file, or a row of a table.

  Args:
    path: of a .npy file, or TABLE.parquet#ROW, rows counted from 0.
    description: of the array.

  Returns:
    The signal in mV, float64 (samples, 12), leads in the order of `schema.ECG_LEADS`,
    NaN where a sample is not available; and the sampling rate in Hz.

  Raises:
    EcgError: 'missing_file', 'bad_header' (no rate, or lead names that do not fit the
      array), 'too_long', 'missing_lead' or 'unknown_unit'.
  """
  row = _ROW.fullmatch(path)
  stored = _read_row(Path(row['table']), int(row['row'])) if row else _read_file(path)
  rate = description.sampling_rate
  if rate is None or not 0 < rate < float('inf'):
    raise EcgError('bad_header', f'{path}: an array without a sampling rate')
  leads = [name for name in _NAMES.split(description.leads or '') if name]
  if not leads:
    raise EcgError('missing_lead', f'{path}: an array without names of its leads')
  if stored.ndim != 2 or stored.dtype.kind not in 'iuf' or len(leads) not in stored.shape:
    shape = ' by '.join(map(str, stored.shape))
    raise EcgError(
      'bad_header', f'{path}: {shape} values of {stored.dtype} for {len(leads)} leads'
    )
  if stored.size > MOST_SAMPLES:
    raise EcgError('too_long', f'{path}: {stored.size} samples')
  signal = np.array(stored if stored.shape[1] == len(leads) else stored.T, np.float64)
  signal[~np.isfinite(signal)] = np.nan
  units = [description.unit or ''] * len(leads)
  return in_millivolts(signal, leads, units, path), rate


def check_table(path: Path) -> None:
  """Checks that single rows of a table's samples can be read quickly.

  Raises:
    DataError: the column is not a list of lists of numbers, or its row groups are so large
      that reading one row would take seconds.
  """
  kind = pq.read_schema(path).field(SAMPLES).type
  inner = _values_of(kind)
  number = _values_of(inner) if inner is not None else None
  if number is None or not (pa.types.is_integer(number) or pa.types.is_floating(number)):
    raise DataError(
      f'{path}: column {SAMPLES!r} is of type {kind}. Give a list of lists of numbers, '
      'one for each lead or for each sample.'
    )
  metadata = pq.read_metadata(path)
  for group in range(metadata.num_row_groups):
    of = metadata.row_group(group)
    columns = (of.column(place) for place in range(of.num_columns))
    size = sum(
      one.total_uncompressed_size
      for one in columns
      if one.path_in_schema.split('.')[0] == SAMPLES
    )
    if size > MOST_GROUP_BYTES and of.num_rows > 1:
      rows = max(1, of.num_rows * MOST_GROUP_BYTES // size)
      raise DataError(
        f'{path}: a row group holds {of.num_rows} recordings, {size >> 20} MB, and is read '
        'completely for each of them. Rewrite the table with pyarrow.parquet.'
        f'write_table(..., row_group_size={rows}).'
      )


def _values_of(kind: pa.DataType) -> pa.DataType | None:
  lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
  return kind.value_type if any(is_one(kind) for is_one in lists) else None


def _read_file(path: str) -> np.ndarray:
  try:
    return np.load(path, mmap_mode='r', allow_pickle=False)
  except FileNotFoundError:
    raise EcgError('missing_file', f'{path} does not exist') from None


def _read_row(path: Path, row: int) -> np.ndarray:
  """An array of two axes; nulls are NaN."""
  try:
    changed = path.stat().st_mtime_ns
  except FileNotFoundError:
    raise EcgError('missing_file', f'{path} does not exist') from None
  with _lock:  # of a ParquetFile, one thread at a time may read
    _, starts = _open(path, changed)
    if row >= starts[-1]:
      raise EcgError('missing_file', f'{path} has no row {row}')
    group = int(np.searchsorted(starts, row, side='right')) - 1
    cell = _group(path, changed, group)[row - int(starts[group])]
  if not cell.is_valid:
    raise EcgError('missing_file', f'{path}: no samples in row {row}')
  outer = cell.values
  lengths = {*pc.call_function('list_value_length', [outer]).to_pylist()}
  if len(lengths) != 1 or None in lengths:
    raise EcgError('bad_header', f'{path}: leads of different lengths in row {row}')
  values = outer.flatten().to_numpy(zero_copy_only=False)
  return values.reshape(len(outer), *lengths)


_lock = threading.Lock()


@functools.lru_cache(maxsize=4)
def _open(path: Path, changed: int) -> tuple[pq.ParquetFile, np.ndarray]:
  """The table, and the first row of each of its row groups."""
  del changed  # part of the cache key: changed content is another entry
  file = pq.ParquetFile(path)
  groups = range(file.metadata.num_row_groups)
  rows = [file.metadata.row_group(group).num_rows for group in groups]
  return file, np.cumsum([0, *rows])


@functools.lru_cache(maxsize=1)
def _group(path: Path, changed: int, group: int) -> pa.ChunkedArray:
  """The samples of a row group. Rows of a subject are often neighbours."""
  file, _ = _open(path, changed)
  return file.read_row_group(group, columns=[SAMPLES], use_threads=False)[SAMPLES]
