"""Selects the recordings of each sample, with machine measurements and report terms.

A source lists its recordings (`list_recordings`), chooses those of its samples (`choose`),
and writes them with their measurements and reports (`write`). The signals stay in the
source's files and are read when shards are written.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_pipeline.ecg import report_terms
from data_pipeline.format.modalities.waveform import ECG_MEASUREMENTS
from data_pipeline.sources.common.duckdb_files import parquet
from data_pipeline.sources.common.items import make_table, read_rows
from data_pipeline.sources.common.raw_tables import RawTables

MAX_LISTED_LINES = 50
_KEYS = ('subject_id', 'study_id', 'ecg_time', 'path')


def list_recordings(raw: RawTables, view: str, more: Sequence[str] = ()) -> dict[str, int]:
  """Makes the table `recordings` (subject_id, study_id, ecg_time, path), one row per study.

  Args:
    raw: with the view.
    view: has these columns; rows with a null in one of them are dropped.
    more: further columns.

  Returns:
    Row counts by reason.
  """
  unusable = ' OR '.join(f'{name} IS NULL' for name in _KEYS)
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE recordings AS
    SELECT {', '.join((*_KEYS, *more))} FROM {view} WHERE NOT ({unusable})
    QUALIFY row_number() OVER (PARTITION BY study_id ORDER BY ecg_time, path) = 1
  """)
  read, bad = raw.run(
    f'SELECT count(*), count(*) FILTER ({unusable}) FROM {view}'
  ).fetchall()[0]
  kept = raw.value('SELECT count(*) FROM recordings')
  counts = {
    'read': read,
    'dropped: missing or malformed key or time': bad,
    'dropped: duplicate': read - bad - kept,
  }
  return {reason: n for reason, n in counts.items() if n or reason == 'read'}


def choose(raw: RawTables) -> None:
  """Makes the table `wanted_recordings`: the recordings in each sample's window.

  The window ends at the prediction time and begins at `start_time`; if that is null, it has
  no beginning.

  Args:
    raw: with the tables `samples` and `recordings`.
  """
  raw.run("""
    CREATE OR REPLACE TEMP TABLE wanted_recordings AS
    SELECT s.sample_id, r.* EXCLUDE (subject_id, ecg_time),
      (epoch_us(r.ecg_time) - epoch_us(s.prediction_time)) / 3.6e9 AS hours
    FROM samples s JOIN recordings r ON r.subject_id = s.subject_id
      AND r.ecg_time <= s.prediction_time
      AND (s.start_time IS NULL OR r.ecg_time >= s.start_time)
  """)


def write(
  raw: RawTables,
  measured: str,
  folder: Path,
  output: Path,
  *,
  lines: str,
  order: Sequence[str],
  path: str = 'w.path',
  more: Sequence[str] = (),
) -> tuple[dict[str, int], list[dict[str, Any]]]:
  """Writes `recordings.parquet` of docs/design.md.

  Args:
    raw: with the tables `wanted_recordings` and `measured`.
    measured: view of study_id and the nine measurements.
    folder: scratch folder inside staging.
    output: the file.
    lines: SQL for the list of a study's report lines; empty lines are left out.
    order: columns of `measured` to sort by; the first of several rows of a study is used.
    path: SQL for the absolute path.
    more: further columns of `wanted_recordings`.

  Returns:
    Counts: 'recordings', 'measured', 'duplicates', 'out of range', 'lines',
    'unmatched'; and the most frequent unmatched report lines.
  """
  limits = {row['measurement']: row for row in read_rows('measurements')}
  within = {
    name: f'{name} BETWEEN {limits[name]["low"]} AND {limits[name]["high"]}'
    for name in ECG_MEASUREMENTS
  }
  values = ', '.join(
    f'CASE WHEN {of} THEN {name} END AS {name}' for name, of in within.items()
  )
  outside = ' + '.join(
    f'coalesce(CAST(NOT ({of}) AS INTEGER), 0)' for of in within.values()
  )
  scratch = folder / 'measurements.parquet'
  raw.copy(
    f"""
    SELECT study_id, {values}, {outside} AS sentinels,
      list_filter(list_transform({lines}, lambda x: trim(x)), lambda x: x <> '') AS lines,
      count(*) OVER (PARTITION BY study_id) - 1 AS duplicates
    FROM {measured}
    WHERE study_id IN (SELECT study_id FROM wanted_recordings)
    QUALIFY row_number() OVER (PARTITION BY study_id
      ORDER BY {', '.join(order)}, {', '.join(ECG_MEASUREMENTS)}) = 1
    """,
    scratch,
  )
  unmatched = _match_lines(raw, scratch)
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE measured AS
    SELECT m.*, coalesce(t.terms, []) AS terms FROM {parquet(scratch)} m LEFT JOIN (
      SELECT study_id, list_sort(list_distinct(flatten(list(l.terms)))) AS terms
      FROM (SELECT study_id, unnest(lines) AS line FROM {parquet(scratch)})
      JOIN report_lines l USING (line) GROUP BY study_id
    ) t USING (study_id)
  """)
  further = ''.join(f', w.{name}' for name in more)
  raw.copy(
    f"""
    SELECT w.sample_id, w.study_id, {path} AS path{further},
      CAST(w.hours AS FLOAT) AS time, {', '.join(f'm.{name}' for name in ECG_MEASUREMENTS)},
      CAST(coalesce(m.terms, []) AS INTEGER[]) AS terms
    FROM wanted_recordings w LEFT JOIN measured m USING (study_id)
    """,
    output,
  )
  names = ('recordings', 'measured', 'out of range', 'lines', 'duplicates')
  found = raw.run(f"""
    SELECT count(DISTINCT w.study_id), count(DISTINCT m.study_id),
      (SELECT coalesce(sum(sentinels), 0) FROM measured),
      (SELECT coalesce(sum(len(lines)), 0) FROM {parquet(scratch)}),
      (SELECT coalesce(sum(duplicates), 0) FROM {parquet(scratch)})
    FROM wanted_recordings w LEFT JOIN measured m USING (study_id)
  """).fetchall()[0]
  counts = {name: int(n) for name, n in zip(names, found, strict=True)}
  counts['unmatched'] = sum(entry['count'] for entry in unmatched)
  return counts, unmatched[:MAX_LISTED_LINES]


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
