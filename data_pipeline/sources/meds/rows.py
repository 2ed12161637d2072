"""Rows of MEDS data: the mapped codes of the cohort, then values in item units.

`scan` streams the data once and keeps, as parquet, the rows of the mapped codes
inside the subjects' windows. `resolve` turns the kept rows of one modality into
numbers in the item's unit or categories; every row that cannot be used has a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from data_pipeline.sources.common.duckdb_files import parquet
from data_pipeline.sources.common.items import make_table
from data_pipeline.sources.common.raw_tables import RawTables
from data_pipeline.sources.meds.codes import Reading, parse_text
from data_pipeline.sources.meds.variables import Variable


def make_windows(raw: RawTables) -> None:
  """Makes `windows`: per subject the first and last time that can matter."""
  raw.run("""
    CREATE OR REPLACE TEMP TABLE windows AS
    SELECT subject_id, max(prediction_time) AS last_time, min(start_time) AS first_time
    FROM samples GROUP BY subject_id
  """)


def scan(
  raw: RawTables, codes: Sequence[str], *, history: bool, output: Path
) -> dict[str, int]:
  """Streams the rows of some codes to `output`.

  Columns: subject_id, time, code, number, text, reason, kept.

  Args:
    raw: with `data` and `windows`.
    codes: the codes to keep.
    history: everything up to the last prediction time, with the static rows that
      have no time; otherwise the observation windows alone.
    output: a parquet file.

  Returns:
    Rows of these codes and of the cohort's subjects, by reason for dropping them.
  """
  make_table(raw.con, 'scanned_codes', {'code': pa.string()}, [(code,) for code in codes])
  early = (
    ''
    if history
    else """
    WHEN d.time IS NULL THEN 'dropped: missing time'
    WHEN d.time < w.first_time THEN 'dropped: before the observation window'
  """
  )
  # numeric_value is a 32-bit float: its shortest decimal is the number that was charted.
  raw.copy(
    f"""
    WITH wanted AS (
      SELECT d.subject_id, d.time, d.code, d.numeric_value, trim(d.text_value) AS text,
        CASE WHEN d.time > w.last_time THEN 'dropped: after the prediction time' {early}
        END AS reason
      FROM data d JOIN windows w ON d.subject_id = w.subject_id
      JOIN scanned_codes c ON c.code = d.code
    )
    SELECT subject_id, time, code, reason, reason IS NULL AS kept,
      CASE WHEN reason IS NULL AND isfinite(numeric_value)
        THEN CAST(CAST(numeric_value AS VARCHAR) AS DOUBLE) END AS number,
      CASE WHEN reason IS NULL AND isfinite(numeric_value) IS NOT TRUE
        THEN nullif(text, '') END AS text
    FROM wanted
    """,
    output,
  )
  counts = raw.counts(f'SELECT reason, count(*) FROM {parquet(output)} GROUP BY reason')
  read = raw.value(f'SELECT count(*) FROM {parquet(output)}')
  return {'read: mapped codes of the cohort': read, **counts}


def resolve(
  raw: RawTables,
  variables: Sequence[Variable],
  readings: Sequence[Reading],
  scanned: Path,
  output: Path,
) -> dict[str, int]:
  """Writes `output`: the values of a modality's rows, or why they have none.

  Columns: subject_id, code, item_index, value (null for a category), category (-1 for
  a number), time, reason, repair.

  Returns:
    Rows by reason, dropped and repaired.
  """
  _make_tables(raw, variables, readings)
  _parse_texts(raw, variables, readings, scanned)
  raw.copy(
    f"""
    WITH mapped AS (
      SELECT e.subject_id, e.code, e.time, c.item_index, i.low, i.high, i.is_category,
        e.number IS NOT NULL OR e.text IS NOT NULL AS has_value,
        c.reason AS code_reason, c.category AS code_category, t.reason AS text_reason,
        t.category AS text_category, coalesce(e.number, t.number) AS number,
        coalesce(e.number, t.number) * c.scale + c.offset_ AS in_unit,
        c.scale <> 1 OR c.offset_ <> 0 AS is_converted
      FROM {parquet(scanned)} e
      JOIN reading_codes c ON c.code = e.code
      JOIN reading_items i USING (item_index)
      LEFT JOIN texts t
        ON t.code = e.code AND t.text = e.text AND t.item_index = c.item_index
      WHERE e.kept
    ), repaired AS (
      SELECT m.*, r.reason AS repair,
        CASE WHEN r.reason IS NULL THEN in_unit ELSE in_unit * r.scale + r.offset_ END
          AS final
      FROM mapped m LEFT JOIN reading_repairs r
        ON r.item_index = m.item_index AND m.in_unit BETWEEN r.low AND r.high
    ), categorised AS (
      SELECT r.*, coalesce(r.code_category, r.text_category, v.category) AS category
      FROM repaired r LEFT JOIN reading_numbers v
        ON r.is_category AND v.item_index = r.item_index
        AND r.number >= v.low AND r.number < v.high
    )
    SELECT subject_id, code, item_index, time,
      CASE WHEN is_category THEN NULL ELSE final END AS value,
      CASE WHEN is_category THEN coalesce(category, -1) ELSE -1 END AS category,
      CASE WHEN code_reason IS NOT NULL THEN 'dropped: ' || code_reason
        WHEN code_category IS NOT NULL THEN NULL
        WHEN text_reason IS NOT NULL THEN 'dropped: ' || text_reason
        WHEN NOT has_value THEN 'dropped: no value'
        WHEN is_category THEN
          CASE WHEN category IS NULL THEN 'dropped: unlisted category' END
        WHEN final < low OR final > high THEN 'dropped: outside physiologic limits'
      END AS reason,
      CASE WHEN is_category THEN NULL WHEN repair IS NOT NULL THEN 'repaired: ' || repair
        WHEN is_converted THEN 'repaired: unit converted' END AS repair
    FROM categorised
    """,
    output,
  )
  reasons = raw.counts(f'SELECT reason, count(*) FROM {parquet(output)} GROUP BY reason')
  repairs = raw.counts(
    f'SELECT repair, count(*) FROM {parquet(output)} WHERE reason IS NULL GROUP BY repair'
  )
  return reasons | repairs


def write_events(raw: RawTables, resolved: Path, output: Path) -> dict[str, int]:
  """Writes `events_{m}.parquet` of docs/design.md from resolved rows."""
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE usable AS
    SELECT subject_id, item_index, value, category, time, count(*) AS copies
    FROM {parquet(resolved)} WHERE reason IS NULL
    GROUP BY subject_id, item_index, value, category, time
  """)
  raw.copy(
    """
    SELECT s.sample_id, CAST(u.item_index AS INTEGER) AS item,
      CAST(coalesce(u.value, 'nan'::DOUBLE) AS FLOAT) AS value,
      CAST(u.category AS INTEGER) AS category,
      CAST((epoch_us(u.time) - epoch_us(s.prediction_time)) / 3.6e9 AS FLOAT) AS time
    FROM samples s JOIN usable u ON u.subject_id = s.subject_id
      AND u.time BETWEEN s.start_time AND s.prediction_time
    """,
    output,
  )
  return {'dropped: duplicate': _copies(raw), 'written': _rows(raw, output)}


def write_grid(
  raw: RawTables, resolved: Path, steps: int, step_hours: float, output: Path
) -> dict[str, int]:
  """Writes `grid_{m}.parquet` of docs/design.md from resolved rows."""
  cell = round(step_hours * 3.6e9)
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE usable AS
    SELECT subject_id, code, item_index, time, value, count(*) AS copies
    FROM {parquet(resolved)} WHERE reason IS NULL
    GROUP BY subject_id, code, item_index, time, value
  """)
  # What happens at the prediction time itself belongs to the last cell. Values are
  # ordered, so that the mean does not depend on the number of threads.
  raw.copy(
    f"""
    SELECT s.sample_id,
      CAST(least((epoch_us(u.time) - epoch_us(s.prediction_time) + {cell * steps})
        // {cell}, {steps - 1}) AS INTEGER) AS step,
      CAST(u.item_index AS INTEGER) AS signal,
      CAST(list_avg(list(u.value ORDER BY u.value)) AS FLOAT) AS value
    FROM samples s JOIN usable u ON u.subject_id = s.subject_id
      AND u.time <= s.prediction_time
      AND u.time >= s.prediction_time - to_microseconds({cell * steps})
    GROUP BY ALL
    """,
    output,
  )
  return {
    'dropped: duplicate': _copies(raw),
    'observations averaged': raw.value('SELECT count(*) FROM usable'),
    'written': _rows(raw, output),
  }


def _copies(raw: RawTables) -> int:
  return int(raw.value('SELECT coalesce(sum(copies - 1), 0) FROM usable'))


def _rows(raw: RawTables, path: Path) -> int:
  return raw.value(f'SELECT count(*) FROM {parquet(path)}')


def _make_tables(
  raw: RawTables, variables: Sequence[Variable], readings: Sequence[Reading]
) -> None:
  """Makes `reading_codes`, `reading_items`, `reading_repairs`, `reading_numbers`."""
  index, number, text = pa.int32(), pa.float64(), pa.string()
  make_table(
    raw.con, 'reading_codes',
    {'code': text, 'item_index': index, 'scale': number, 'offset_': number,
     'category': index, 'reason': text},
    [(of.code, of.index, of.scale, of.offset, of.category, of.reason)
     for of in readings],
  )  # fmt: skip
  make_table(
    raw.con, 'reading_items',
    {'item_index': index, 'low': number, 'high': number, 'is_category': pa.bool_()},
    [(i, one.item.low, one.item.high, one.item.kind == 'categorical')
     for i, one in enumerate(variables)],
  )  # fmt: skip
  make_table(
    raw.con, 'reading_repairs',
    {'item_index': index, 'low': number, 'high': number, 'scale': number,
     'offset_': number, 'reason': text},
    [(i, of.low, of.high, of.scale, of.offset, of.reason)
     for i, one in enumerate(variables) for of in one.repairs],
  )  # fmt: skip
  make_table(
    raw.con, 'reading_numbers',
    {'item_index': index, 'low': number, 'high': number, 'category': index},
    [(i, low, high, one.item.categories.index(name))
     for i, one in enumerate(variables) for low, high, name in one.numbers],
  )  # fmt: skip


def _parse_texts(
  raw: RawTables,
  variables: Sequence[Variable],
  readings: Sequence[Reading],
  scanned: Path,
) -> None:
  """Makes `texts`: every distinct text of a code, parsed in Python once."""
  found = raw.run(f"""
    SELECT DISTINCT e.code, c.item_index, e.text FROM {parquet(scanned)} e
    JOIN reading_codes c ON c.code = e.code WHERE e.kept AND e.text IS NOT NULL
  """).fetchall()
  of = {(one.code, one.index): one for one in readings}
  rows = []
  for code, index, text in found:
    parsed = parse_text(variables[index], of[code, index], text)
    rows.append((code, index, text, parsed.reason, parsed.number, parsed.category))
  make_table(
    raw.con, 'texts',
    {'code': pa.string(), 'item_index': pa.int32(), 'text': pa.string(),
     'reason': pa.string(), 'number': pa.float64(), 'category': pa.int32()},
    rows,
  )  # fmt: skip
