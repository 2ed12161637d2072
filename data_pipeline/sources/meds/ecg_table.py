"""ECGs beside a MEDS data set: a table with subject, time and path of each recording.

| column | |
|---|---|
| `subject_id`, `time` | of the recording |
| `path` | a WFDB record, a DICOM waveform or a .npy file; relative to the table's folder |
| `samples` | instead of `path`: the array itself (a list of lists, only in parquet) |
| `sampling_rate` (Hz), `unit`, `leads` (names separated by commas) | of arrays |
| `study_id` | optional; without it, recordings are numbered by subject, time and path |
| `report` | optional: the machine's report, several lines of text |
| `rr_interval` and the other measurements of `schema.ECG_MEASUREMENTS` | optional |
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_pipeline.ecg import arrays, dicom, raw_recording, sample_recordings
from data_pipeline.format.modalities.waveform import ECG_MEASUREMENTS
from data_pipeline.format.schema import DataError
from data_pipeline.sources.common.duckdb_files import text
from data_pipeline.sources.common.raw_tables import RawTables
from data_pipeline.sources.meds.files import read_schema

_VIEW = 'ecg_table'
_OF_ECGS = ('cvd',)  # tasks whose samples are recordings
_REQUIRED = {'subject_id': 'BIGINT', 'time': 'TIMESTAMP'}
_DESCRIPTION = {'sampling_rate': 'DOUBLE', 'unit': 'VARCHAR', 'leads': 'VARCHAR'}
_OPTIONAL = {
  'path': 'VARCHAR',
  'study_id': 'BIGINT',
  'report': 'VARCHAR',
  **_DESCRIPTION,
  **dict.fromkeys(ECG_MEASUREMENTS, 'DOUBLE'),
}
_ENDINGS = ('.parquet', '.csv', '.csv.gz')


def open_table(raw: RawTables, table: Path) -> dict[str, int]:
  """Opens and checks a table of recordings, before other tables take hours.

  Args:
    raw: connection in which views of it are made.
    table: of the recordings, parquet or csv.

  Returns:
    Counts of unreadable cells.

  Raises:
    DataError: a column is missing, has another type or too many unreadable cells, arrays
      are not described, or a package that reads them is not installed.
  """
  columns = _open(raw, table)
  unreadable = raw.unreadable(_VIEW, _VIEW, columns)
  _check_paths(raw, table, columns)
  return unreadable


def write_recordings(
  raw: RawTables, unreadable: dict[str, int], folder: Path, output: Path, task: str
) -> tuple[dict[str, int], list[dict[str, Any]]]:
  """Writes `recordings.parquet` of docs/design.md.

  Args:
    raw: with the table `samples`, and that of the recordings open.
    unreadable: from `open_table`.
    folder: scratch folder inside staging.
    output: the file.
    task: of the samples.

  Returns:
    Row counts by reason, and the most frequent unmatched report lines.
  """
  counts = sample_recordings.list_recordings(raw, 'ecg_list', (*_DESCRIPTION,))
  sample_recordings.choose(raw)
  found, unmatched = sample_recordings.write(
    raw, 'ecg_list', folder, output, lines='lines', order=['lines'], more=(*_DESCRIPTION,)
  )
  without = lambda which: raw.value(f"""
    SELECT count(*) FROM samples WHERE sample_id NOT IN (
      SELECT sample_id FROM wanted_recordings WHERE {which})
  """)
  counts |= unreadable | {
    'used: distinct recordings': found['recordings'],
    'missing: measurements out of range or not measurable': found['out of range'],
    'report lines read': found['lines'],
    'dropped: unmatched report lines': found['unmatched'],
    'missing: samples without a recording': without('true'),
  }
  if task in _OF_ECGS:
    counts["missing: samples whose time is no recording's"] = without('hours = 0')
  return counts, unmatched


def _open(raw: RawTables, table: Path) -> dict[str, str]:
  """Makes the views `ecg_table` and `ecg_list`; returns the columns to read.

  `ecg_list` has subject_id, study_id, ecg_time, path, the description of arrays, lines (of
  the report) and the measurements, null for columns that the table lacks.
  """
  if not table.name.endswith(_ENDINGS):
    raise DataError(f'--ecg={table}: give a table, {", ".join(_ENDINGS)}.')
  is_parquet = table.suffix == '.parquet'
  if is_parquet:
    read_schema(table)  # raises if the file is damaged
  stored = {one.name.strip().lower(): one.kind for one in raw.columns(table)}
  in_table = arrays.SAMPLES in stored
  if in_table == ('path' in stored):
    raise DataError(
      f'--ecg={table}: give the recordings either as paths (column path) or as arrays '
      f'(column {arrays.SAMPLES}). Found: {", ".join(stored)}'
    )
  if in_table:
    if not is_parquet:
      raise DataError(f'--ecg={table}: only a parquet table can have arrays as a column.')
    arrays.check_table(table)
  columns = _REQUIRED | {name: _OPTIONAL[name] for name in _OPTIONAL if name in stored}
  for name, kind in columns.items():
    if kind == 'VARCHAR' and stored.get(name, kind) not in ('VARCHAR', '"NULL"'):
      raise DataError(
        f'--ecg={table}: column {name!r} is of type {stored[name]}. Write it as text.'
      )
  raw.open_file(
    table, _VIEW, columns, numbered=in_table,
    remedy='docs/sources.md, "ECGs beside MEDS", lists the columns.',
  )  # fmt: skip
  given = lambda name: name if name in columns else f'CAST(NULL AS {_OPTIONAL[name]})'
  if in_table:
    path = arrays.row_path(text(table.resolve()), 'row_in_file')
  else:
    beside = f"{text(f'{table.resolve().parent}/')} || nullif(trim(path), '')"
    path = f"CASE WHEN starts_with(trim(path), '/') THEN trim(path) ELSE {beside} END"
  more = (*_DESCRIPTION, *ECG_MEASUREMENTS)
  number = 'dense_rank() OVER (ORDER BY subject_id, time, full_path)'
  raw.run(f"""
    CREATE OR REPLACE TEMP VIEW ecg_list AS
    SELECT subject_id, {'study_id' if 'study_id' in columns else number} AS study_id,
      time AS ecg_time, full_path AS path,
      {', '.join(f'{given(name)} AS {name}' for name in more)},
      string_split_regex(coalesce({given('report')}, ''), '\\r?\\n') AS lines
    FROM (
      SELECT *, regexp_replace({path}, '\\.(hea|dat)$', '') AS full_path FROM {_VIEW}
    )
  """)
  return columns


def _check_paths(raw: RawTables, table: Path, columns: dict[str, str]) -> None:
  """Checks that arrays are described, and that their packages are installed."""
  endings = raw.run(
    "SELECT DISTINCT regexp_extract(path, '\\.[A-Za-z]+$') FROM ecg_list"
  ).fetchall()
  found = [f'/x{ending}' for (ending,) in endings]
  lacking = [name for name in _DESCRIPTION if name not in columns]
  if lacking and ('path' not in columns or any(map(raw_recording.is_array, found))):
    raise DataError(
      f'--ecg={table}: no column {", ".join(map(repr, lacking))}; arrays need their '
      'sampling rate (Hz), unit (mV, uV, V) and leads (names separated by commas).'
    )
  if any(path.lower().endswith(dicom.ENDINGS) for path in found):
    dicom.pydicom_package()
