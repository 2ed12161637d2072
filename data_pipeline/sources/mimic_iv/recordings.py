"""The ECG index: which recordings, when, their machine measurements and terms.

Reads record_list.csv and machine_measurements.csv of MIMIC-IV-ECG; the signals
stay where they are and are read when shards are written. `path` of the record
list is followed as it is (the full release has one folder level more than the
demo).
"""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_pipeline.ecg import report_terms
from data_pipeline.format.schema import ECG_MEASUREMENTS, DataError
from data_pipeline.sources.common.duckdb_files import parquet, text
from data_pipeline.sources.common.items import make_table, read_rows
from data_pipeline.sources.common.raw_tables import RawTables
from data_pipeline.sources.mimic_iv.cohort import OF_ECGS

_REPORT_LINES = 18
MAX_LISTED_LINES = 50


_RECORD_LIST = {
  'subject_id': 'BIGINT', 'study_id': 'BIGINT', 'ecg_time': 'TIMESTAMP', 'path': 'VARCHAR',
}  # fmt: skip


def open_recordings(raw: RawTables, root: Path, task: str) -> dict[str, int]:
  """Loads record_list as the table `recordings`, one row a study.

  Raises:
    DataError: times or keys are unreadable: for tasks whose samples are the
      recordings, a single time, else more than a small share.
  """
  raw.open(root, 'record_list', _RECORD_LIST)
  unreadable = raw.unreadable(
    'record_list',
    'record_list',
    _RECORD_LIST,
    deciding=('ecg_time',) if task in OF_ECGS else (),
  )
  unusable = 'subject_id IS NULL OR study_id IS NULL OR ecg_time IS NULL OR path IS NULL'
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE recordings AS
    SELECT {', '.join(_RECORD_LIST)} FROM record_list WHERE NOT ({unusable})
    QUALIFY row_number() OVER (PARTITION BY study_id ORDER BY ecg_time, path) = 1
  """)
  read, bad = raw.run(
    f'SELECT count(*), count(*) FILTER ({unusable}) FROM record_list'
  ).fetchall()[0]
  kept = raw.value('SELECT count(*) FROM recordings')
  counts = {
    'read': read,
    'dropped: missing or malformed key or time': bad,
    'dropped: duplicate': read - bad - kept,
  }
  counts = {reason: n for reason, n in counts.items() if n or reason == 'read'}
  return counts | unreadable


def write_recordings(
  raw: RawTables, root: Path, folder: Path, output: Path
) -> tuple[dict[str, dict[str, int]], list[dict[str, Any]]]:
  """Writes `recordings.parquet` of docs/design.md.

  Args:
    root: folder of MIMIC-IV-ECG.
    folder: scratch folder inside staging.

  Returns:
    Row counts by table and reason, and the most frequent unmatched report lines.

  Raises:
    DataError: a path of the record list leads out of the root, or a column of the
      measurements has too many unreadable cells.
  """
  raw.run("""
    CREATE OR REPLACE TEMP TABLE wanted_recordings AS
    SELECT s.sample_id, r.study_id, r.path,
      (epoch_us(r.ecg_time) - epoch_us(s.prediction_time)) / 3.6e9 AS hours
    FROM samples s JOIN recordings r ON r.subject_id = s.subject_id
      AND r.ecg_time <= s.prediction_time
      AND (s.start_time IS NULL OR r.ecg_time >= s.start_time)
  """)
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
  limits = {row['measurement']: row for row in read_rows('measurements')}
  measured = ', '.join(
    f'CASE WHEN {name} BETWEEN {limits[name]["low"]} AND {limits[name]["high"]} '
    f'THEN {name} END AS {name}'
    for name in ECG_MEASUREMENTS
  )
  sentinels = ' + '.join(
    f'coalesce(CAST({name} NOT BETWEEN {limits[name]["low"]} AND '
    f'{limits[name]["high"]} AS INTEGER), 0)'
    for name in ECG_MEASUREMENTS
  )
  path = folder / 'measurements.parquet'
  raw.copy(
    f"""
    SELECT study_id, {measured}, {sentinels} AS sentinels,
      list_filter([trim({'), trim('.join(lines)})], lambda x: x <> '') AS lines,
      count(*) OVER (PARTITION BY study_id) - 1 AS duplicates
    FROM machine_measurements
    WHERE study_id IN (SELECT study_id FROM wanted_recordings)
    QUALIFY row_number() OVER (PARTITION BY study_id
      ORDER BY {', '.join(lines)}, {', '.join(ECG_MEASUREMENTS)}) = 1
    """,
    path,
  )
  unmatched = _match_lines(raw, path)
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE measured AS
    SELECT m.*, coalesce(t.terms, []) AS terms FROM {parquet(path)} m LEFT JOIN (
      SELECT study_id, list_sort(list_distinct(flatten(list(l.terms)))) AS terms
      FROM (SELECT study_id, unnest(lines) AS line FROM {parquet(path)})
      JOIN report_lines l USING (line) GROUP BY study_id
    ) t USING (study_id)
  """)
  raw.copy(
    f"""
    SELECT w.sample_id, w.study_id,
      {text(f'{root.resolve()}/')} || regexp_replace(w.path, '\\.(hea|dat)$', '') AS path,
      CAST(w.hours AS FLOAT) AS time, {', '.join(f'm.{name}' for name in ECG_MEASUREMENTS)},
      CAST(coalesce(m.terms, []) AS INTEGER[]) AS terms
    FROM wanted_recordings w LEFT JOIN measured m USING (study_id)
    """,
    output,
  )
  studies, with_measurements, sentinel_cells = raw.run("""
    SELECT count(DISTINCT w.study_id), count(DISTINCT m.study_id),
      (SELECT coalesce(sum(sentinels), 0) FROM measured)
    FROM wanted_recordings w LEFT JOIN measured m USING (study_id)
  """).fetchall()[0]
  line_count, duplicates = raw.run(f"""
    SELECT coalesce(sum(len(lines)), 0), coalesce(sum(duplicates), 0) FROM {parquet(path)}
  """).fetchall()[0]
  without_key = raw.value(
    'SELECT count(*) FILTER (study_id IS NULL) FROM machine_measurements'
  )
  return {
    'record_list': {'used: distinct recordings': studies},
    'machine_measurements': {
      'dropped: missing or malformed key': without_key,
      'dropped: duplicate': int(duplicates),
      'used: recordings': with_measurements,
      'missing: recordings without a row': studies - with_measurements,
      'missing: measurements out of range or not measurable': int(sentinel_cells),
      'report lines read': int(line_count),
      'dropped: unmatched report lines': sum(entry['count'] for entry in unmatched),
      **unreadable,
    },
  }, unmatched[:MAX_LISTED_LINES]


def _match_lines(raw: RawTables, path: Path) -> list[dict[str, Any]]:
  """Makes `report_lines` (line, terms); returns unmatched lines, most frequent first."""
  found = raw.run(f"""
    SELECT line, count(*) FROM (SELECT unnest(lines) AS line FROM {parquet(path)})
    GROUP BY line ORDER BY line
  """).fetchall()
  rows, unmatched = [], collections.Counter()
  for line, count in found:
    terms, unknown = report_terms.terms_of([line])
    rows.append((line, terms))
    if unknown:
      unmatched[line] += count
  make_table(
    raw.con, 'report_lines',
    {'line': pa.string(), 'terms': pa.list_(pa.int32())}, rows,
  )  # fmt: skip
  ordered = sorted(unmatched.items(), key=lambda entry: (-entry[1], entry[0]))
  return [{'line': line, 'count': count} for line, count in ordered]
