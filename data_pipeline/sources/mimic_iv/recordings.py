"""Lists ECG recordings, with times, machine measurements and report terms.

Reads record_list.csv and machine_measurements.csv of MIMIC-IV-ECG; the signals
stay in their files and are read when shards are written. `path` of the record
list is used unchanged (the full release has one folder level more than the demo).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_pipeline.ecg import sample_recordings
from data_pipeline.format.modalities.waveform import ECG_MEASUREMENTS
from data_pipeline.format.schema import DataError
from data_pipeline.sources.common.duckdb_files import text
from data_pipeline.sources.common.raw_tables import RawTables

_REPORT_LINES = 18


_RECORD_LIST = {
  'subject_id': 'BIGINT', 'study_id': 'BIGINT', 'ecg_time': 'TIMESTAMP', 'path': 'VARCHAR',
}  # fmt: skip


def open_recordings(raw: RawTables, root: Path, *, deciding: bool) -> dict[str, int]:
  """Loads record_list as the table `recordings`, one row per study.

  Args:
    raw: the database; gets the table `recordings`.
    root: folder of MIMIC-IV-ECG.
    deciding: whether the recordings are the samples.

  Raises:
    DataError: times or keys are unreadable: a single time if recordings are the samples,
      otherwise more than a small share.
  """
  raw.open(root, 'record_list', _RECORD_LIST)
  unreadable = raw.unreadable(
    'record_list',
    'record_list',
    _RECORD_LIST,
    deciding=('ecg_time',) if deciding else (),
  )
  return sample_recordings.list_recordings(raw, 'record_list') | unreadable


def write_recordings(
  raw: RawTables, root: Path, folder: Path, output: Path
) -> tuple[dict[str, dict[str, int]], list[dict[str, Any]]]:
  """Writes `recordings.parquet` of docs/design.md.

  Args:
    raw: the database, with the table `recordings`.
    root: folder of MIMIC-IV-ECG.
    folder: scratch folder inside staging.
    output: file to write.

  Returns:
    Row counts by table and reason, and the most frequent unmatched report lines.

  Raises:
    DataError: a path of the record list leads out of the root, or a column of the
      measurements has too many unreadable cells.
  """
  sample_recordings.choose(raw)
  outside = raw.value(
    "SELECT count(*) FROM wanted_recordings WHERE path LIKE '/%' OR path LIKE '%..%'"
  )
  if outside:
    raise DataError(
      f'{root}/record_list: {outside} paths lead out of this folder; paths must be '
      'relative, as in the release of MIMIC-IV-ECG.'
    )
  lines = [f'report_{index}' for index in range(_REPORT_LINES)]
  columns = {
    'study_id': 'BIGINT',
    **dict.fromkeys(lines, 'VARCHAR'),
    **dict.fromkeys(ECG_MEASUREMENTS, 'DOUBLE'),
  }
  raw.open(root, 'machine_measurements', columns)
  unreadable = raw.unreadable('machine_measurements', 'machine_measurements', columns)
  found, unmatched = sample_recordings.write(
    raw,
    'machine_measurements',
    folder,
    output,
    lines=f'[{", ".join(lines)}]',
    order=lines,
    path=f"{text(f'{root.resolve()}/')} || regexp_replace(w.path, '\\.(hea|dat)$', '')",
  )
  without_key = raw.value(
    'SELECT count(*) FILTER (study_id IS NULL) FROM machine_measurements'
  )
  return {
    'record_list': {'used: distinct recordings': found['recordings']},
    'machine_measurements': {
      'dropped: missing or malformed key': without_key,
      'dropped: duplicate': found['duplicates'],
      'used: recordings': found['measured'],
      'missing: recordings without a row': found['recordings'] - found['measured'],
      'missing: measurements out of range or not measurable': found['out of range'],
      'report lines read': found['lines'],
      'dropped: unmatched report lines': found['unmatched'],
      **unreadable,
    },
  }, unmatched
