"""Reads measurements of the raw event tables: one pass each, then values in item units.

`scan` streams labevents or chartevents once and keeps, as parquet, the wanted
items of the cohort's subjects inside their window. `resolve` turns the kept rows
of one modality into numbers in the item's unit or categories, and gives every
row that cannot be used a reason. Events are joined by subject and time, never by
admission, so results drawn before the admission was registered are not lost.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path

import pyarrow as pa

from data_pipeline.sources.common import cells, results
from data_pipeline.sources.common.duckdb_files import parquet
from data_pipeline.sources.common.items import (
  items,
  make_table,
  register,
)
from data_pipeline.sources.common.raw_tables import RawTables
from data_pipeline.sources.common.units import key_sql

_COLUMNS = {
  'subject_id': 'BIGINT', 'itemid': 'INTEGER', 'charttime': 'TIMESTAMP',
  'storetime': 'TIMESTAMP', 'value': 'VARCHAR', 'valuenum': 'DOUBLE',
  'valueuom': 'VARCHAR',
}  # fmt: skip
# Rows without a subject are joined to it, so that they are counted.
_NOBODY = -1
# Rows without an item likewise.
_NOTHING = -1
# First reasons of a row `e`, for `reason_sql`: no subject, no item, or withdrawn.
NO_SUBJECT = """WHEN e.subject_id IS NULL
        THEN 'dropped: missing or malformed subject_id'"""
NO_KEYS = f"""{NO_SUBJECT}
      WHEN e.itemid IS NULL THEN 'dropped: missing or malformed itemid'"""
WITHDRAWN = """WHEN lower(trim(e.statusdescription))
          IN ('rewritten', 'cancelled', 'canceled')
        THEN 'dropped: rewritten or cancelled'"""
# The window `w` of the subject of a row `e`; rows without a subject are only counted.
OF_WINDOWS = f"""JOIN (FROM windows UNION ALL SELECT {_NOBODY}, NULL, NULL) w
        ON coalesce(e.subject_id, {_NOBODY}) = w.subject_id"""
FOLDERS = {'labevents': 'hosp', 'chartevents': 'icu'}


def make_windows(raw: RawTables) -> None:
  """Makes `windows`: per subject the earliest and latest relevant time."""
  raw.run("""
    CREATE OR REPLACE TEMP TABLE windows AS
    SELECT subject_id, max(prediction_time) AS last_time,
      CASE WHEN count(start_time) = count(*) THEN min(start_time) END AS first_time
    FROM samples GROUP BY subject_id
  """)


def reason_sql(time: str, availability: str, *, first: str = '') -> str:
  """SQL for the reason to drop a row `e` of the subject's window `w`, or for a remark.

  `e.storetime` is the time at which the row was stored.

  Args:
    time: column of `e` with the time of the event.
    availability: 'charttime' or 'storetime'. With charttime, rows stored after the
      prediction time are kept and counted.
    first: `WHEN ... THEN ...` clauses that come first.
  """
  late, unknown = 'kept: stored after the prediction time', ''
  if availability == 'storetime':
    late = 'dropped: stored after the prediction time'
    unknown = """
      WHEN e.unreadable_storetime IS NOT NULL THEN 'dropped: unreadable storetime'"""
  return f"""CASE {first}
      WHEN e.{time} IS NULL THEN 'dropped: missing or malformed {time}'
      WHEN e.{time} > w.last_time THEN 'dropped: after the prediction time'
      WHEN e.{time} < w.first_time THEN 'dropped: before the stay' {unknown}
      WHEN e.storetime > w.last_time THEN '{late}'
    END"""


def scan_all(
  raw: RawTables,
  root: Path,
  itemids: Mapping[str, list[int]],
  availability: str,
  folder: Path,
  *,
  words: Collection[int] = (),
) -> dict[str, dict[str, int]]:
  """Scans several tables at once, because one gzip file keeps only one core busy.

  Args:
    raw: the database, with the table `windows`.
    root: the folder with hosp/ and icu/.
    itemids: raw itemids to keep, by table.
    availability: 'charttime' or 'storetime'.
    folder: scratch folder; gets one parquet file per table.
    words: itemids whose text is read even if there is a number, which is the code of the
      text.

  Returns:
    The counts of `scan`, by table.
  """
  windows = folder / 'windows.parquet'
  raw.copy('FROM windows', windows)

  databases = {table: raw.apart(table, len(itemids)) for table in itemids}

  def scan_apart(table: str) -> dict[str, int]:
    with contextlib.closing(databases[table]) as own:
      own.run(f'CREATE TEMP TABLE windows AS FROM {parquet(windows)}')
      return scan(own, root, table, itemids[table], availability, folder, words=words)

  with concurrent.futures.ThreadPoolExecutor(len(itemids)) as pool:
    return dict(zip(itemids, pool.map(scan_apart, itemids), strict=True))


def scan(
  raw: RawTables,
  root: Path,
  table: str,
  itemids: list[int],
  availability: str,
  folder: Path,
  *,
  words: Collection[int] = (),
) -> dict[str, int]:
  """Streams one raw table to `folder/{table}.parquet`.

  Args:
    raw: the database, with the table `windows`.
    root: the folder with hosp/ and icu/.
    table: 'labevents' or 'chartevents'.
    itemids: raw itemids to keep.
    availability: 'charttime' or 'storetime'.
    folder: scratch folder.
    words: itemids whose text is read even if there is a number, which is the code of the
      text.

  Returns:
    Number of rows of these items and subjects, of rows without item or subject, of rows
    dropped here by reason, and of unreadable cells.
  """
  columns = dict(_COLUMNS)
  if table == 'labevents':
    columns['comments'] = 'VARCHAR'
  raw.open(root, f'{FOLDERS[table]}/{table}', columns)
  comments = 'e.comments' if table == 'labevents' else 'CAST(NULL AS VARCHAR)'
  in_words = f'e.itemid IN ({", ".join(map(str, words))})' if words else 'false'
  # In one column, which is nearly always null, because five columns would be as slow as the
  # join.
  hidden = [*cells.names(columns).values()]
  unreadable = (
    f'CASE WHEN coalesce({", ".join(hidden)}) IS NOT NULL '
    f'THEN [{", ".join(hidden)}] END AS unreadable'
  )
  path = folder / f'{table}.parquet'
  raw.copy(
    f"""
    WITH wanted AS (
      SELECT e.subject_id, e.itemid, e.charttime, e.storetime,
        CASE WHEN e.valuenum IS NULL OR NOT isfinite(e.valuenum) OR {in_words}
          THEN trim(e.value) END AS value,
        CASE WHEN isfinite(e.valuenum) AND NOT {in_words} THEN e.valuenum END AS number,
        trim(e.valueuom) AS unit, {comments} AS comments,
        {reason_sql('charttime', availability, first=NO_KEYS)}
          AS reason,
        {unreadable}
      FROM {table} e
      {OF_WINDOWS}
      WHERE coalesce(e.itemid, {_NOTHING}) IN ({', '.join(map(str, [_NOTHING, *itemids]))})
    )
    SELECT reason, coalesce(reason, '') NOT LIKE 'dropped%' AS kept,
      {_where_kept('subject_id, itemid, charttime, storetime, value, number, unit')},
      {_where_kept('comments')}, unreadable
    FROM wanted
    """,
    path,
  )
  counts = raw.counts(f'SELECT reason, count(*) FROM {parquet(path)} GROUP BY reason')
  read = raw.value(f'SELECT count(*) FROM {parquet(path)}')
  each = ', '.join(f'unreadable[{i}] AS {name}' for i, name in enumerate(hidden, 1))
  forms = f'(SELECT {each} FROM {parquet(path)} WHERE unreadable IS NOT NULL)'
  counts |= raw.unreadable(table, forms, columns, read=read)
  return {'read: wanted items of the cohort': read, **counts}


def _where_kept(columns: str) -> str:
  # Of dropped rows only the reason is kept, which takes almost no disk space.
  return ', '.join(
    f"CASE WHEN coalesce(reason, '') NOT LIKE 'dropped%' THEN {name} END AS {name}"
    for name in columns.split(', ')
  )


def resolve(
  raw: RawTables, tables: list[str], modality: str, folder: Path
) -> dict[str, dict[str, int]]:
  """Writes `folder/resolved_{modality}.parquet`: values of a modality, or reasons for none.

  Columns: subject_id, itemid, item_index, value (null for a category), category (-1 for a
  number), charttime, known_time, reason, repair. Rows with an unknown unit, a value outside
  the item's limits or an unreadable text are dropped and counted.

  Returns:
    Table -> reason -> count.
  """
  register(raw.con, modality)
  source = ' UNION ALL BY NAME '.join(
    f"SELECT '{table}' AS tbl, * FROM {parquet(folder / f'{table}.parquet')} WHERE kept"
    for table in tables
  )
  _parse_texts(raw, modality, source)
  path = folder / f'resolved_{modality}.parquet'
  key = key_sql('e.unit')
  raw.copy(
    f"""
    WITH mapped AS (
      SELECT e.tbl, e.subject_id, e.itemid, e.charttime, e.storetime, m.item_index,
        i.low, i.high, i.is_category, coalesce({key}, m.default_unit) AS unit,
        CASE WHEN t.reason IS NULL THEN coalesce(e.number, t.number) END AS number,
        t.category AS text_category, t.reason AS text_reason
      FROM ({source}) e
      JOIN item_map_{modality} m ON m.tbl = e.tbl AND m.itemid = e.itemid
      JOIN items_{modality} i USING (item_index)
      LEFT JOIN texts t ON t.itemid = e.itemid AND t.value = coalesce(e.value, '')
        AND t.comments = coalesce(e.comments, '')
        AND t.has_number = (e.number IS NOT NULL)
    ), converted AS (
      SELECT mapped.*, u.scale,
        number * coalesce(u.scale, 1) + coalesce(u.offset_, 0) AS in_unit,
        coalesce(u.scale <> 1 OR u.offset_ <> 0, false) AS is_converted
      FROM mapped LEFT JOIN units_{modality} u
        ON u.item_index = mapped.item_index AND u.unit = mapped.unit
    ), repaired AS (
      SELECT c.*, r.reason AS repair,
        CASE WHEN r.reason IS NULL THEN in_unit ELSE in_unit * r.scale + r.offset_ END
          AS final
      FROM converted c LEFT JOIN repairs_{modality} r
        ON r.item_index = c.item_index AND c.in_unit BETWEEN r.low AND r.high
    ), categorised AS (
      SELECT r.*, coalesce(r.text_category, v.category) AS category
      FROM repaired r LEFT JOIN value_categories_{modality} v
        ON r.is_category AND v.item_index = r.item_index
        AND r.number >= v.low AND r.number < v.high
    )
    SELECT tbl, subject_id, itemid, item_index, charttime,
      CASE WHEN storetime > charttime THEN storetime ELSE charttime END AS known_time,
      CASE WHEN is_category THEN NULL ELSE final END AS value,
      CASE WHEN is_category THEN coalesce(category, -1) ELSE -1 END AS category,
      CASE WHEN text_reason IS NOT NULL THEN 'dropped: ' || text_reason
        WHEN is_category THEN
          CASE WHEN category IS NULL THEN 'dropped: unlisted category' END
        WHEN number IS NULL THEN 'dropped: no value'
        WHEN unit IS NOT NULL AND scale IS NULL THEN 'dropped: unknown unit'
        WHEN final < low OR final > high THEN 'dropped: outside physiologic limits'
      END AS reason,
      CASE WHEN is_category THEN NULL WHEN repair IS NOT NULL THEN 'repaired: ' || repair
        WHEN is_converted THEN 'repaired: unit converted' END AS repair
    FROM categorised
    """,
    path,
  )
  counts: dict[str, dict[str, int]] = {}
  for column in ('reason', 'repair'):
    unusable = '' if column == 'reason' else 'WHERE reason IS NULL'
    for tbl, reason, n in raw.run(f"""
      SELECT tbl, {column}, count(*) FROM {parquet(path)} {unusable}
      GROUP BY ALL ORDER BY ALL
    """).fetchall():  # fmt: skip
      if reason is not None:
        counts.setdefault(tbl, {})[reason] = n
  return counts


def _parse_texts(raw: RawTables, modality: str, source: str) -> None:
  """Makes `texts`: every distinct text and comment, parsed once in Python."""
  found = raw.run(f"""
    SELECT DISTINCT m.item_index, e.itemid, coalesce(e.value, ''),
      coalesce(e.comments, ''), e.number IS NOT NULL
    FROM ({source}) e
    JOIN item_map_{modality} m ON m.tbl = e.tbl AND m.itemid = e.itemid
    WHERE coalesce(e.value, '') <> '' OR coalesce(e.comments, '') <> ''
  """).fetchall()
  wanted, rows = items(modality), []
  for index, itemid, value, comments, has_number in found:
    if has_number:
      void = results.is_void(itemid, comments)
      result = results.Result(reason='voided by comment' if void else None)
    else:
      result = results.parse(wanted[index], itemid, value, comments)
    rows.append((itemid, value, comments, has_number, result.reason, result.number,
                 result.category))  # fmt: skip
  make_table(
    raw.con, 'texts',
    {'itemid': pa.int32(), 'value': pa.string(), 'comments': pa.string(),
     'has_number': pa.bool_(), 'reason': pa.string(), 'number': pa.float64(),
     'category': pa.int32()},
    rows,
  )  # fmt: skip


def write_events(
  raw: RawTables, modality: str, resolved: Path, availability: str, output: Path
) -> dict[str, int]:
  """Writes `events_{m}.parquet` of docs/design.md from resolved rows.

  The time of an event is its charttime; with availability 'storetime' only events stored by
  the prediction time are included.
  """
  usable = f"""
    SELECT subject_id, item_index, value, category, charttime, min(known_time)
      AS known_time, count(*) AS copies
    FROM {parquet(resolved)} WHERE reason IS NULL
    GROUP BY subject_id, item_index, value, category, charttime
  """
  raw.run(f'CREATE OR REPLACE TEMP TABLE usable AS {usable}')
  known = 'known_time' if availability == 'storetime' else 'charttime'
  raw.copy(
    f"""
    SELECT s.sample_id, CAST(u.item_index AS INTEGER) AS item,
      CAST(coalesce(u.value, 'nan'::DOUBLE) AS FLOAT) AS value,
      CAST(u.category AS INTEGER) AS category,
      CAST((epoch_us(u.charttime) - epoch_us(s.prediction_time)) / 3.6e9 AS FLOAT) AS time
    FROM samples s JOIN usable u ON u.subject_id = s.subject_id
      AND u.{known} <= s.prediction_time AND u.charttime <= s.prediction_time
      AND (s.start_time IS NULL OR u.charttime >= s.start_time)
    """,
    output,
  )
  duplicates = raw.value('SELECT coalesce(sum(copies - 1), 0) FROM usable')
  raw.run('DROP TABLE usable')
  written = raw.value(f'SELECT count(*) FROM {parquet(output)}')
  return {'dropped: duplicate': int(duplicates), f'written to {modality}': written}
