"""Rows of MEDS data: the mapped codes of the cohort, then values in item units.

`scan` streams the data once and keeps, as parquet, the rows of the mapped codes
inside the subjects' windows. `resolve` turns the kept rows of one modality into
numbers in the item's unit or categories; every row that cannot be used has a reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline.sources.common.duckdb_files import parquet
from data_pipeline.sources.common.items import make_table
from data_pipeline.sources.common.raw_tables import RawTables
from data_pipeline.sources.meds.codes import Reading
from data_pipeline.sources.meds.interpretation import Interpreter
from data_pipeline.sources.meds.variables import Variable

_ROWS_AT_ONCE = 1 << 17
_SCANNED = ('subject_id', 'code', 'time', 'number', 'text', 'kept')
_RESOLVED = pa.schema(
  {
    'subject_id': pa.int64(), 'code': pa.string(), 'time': pa.timestamp('us'),
    'item_index': pa.int32(), 'value': pa.float64(), 'category': pa.int32(),
    'reason': pa.string(),
  }
)  # fmt: skip


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
    history: everything up to the last prediction time, and static rows without a time;
      otherwise only the observation windows.
    output: a parquet file.

  Returns:
    Counts of rows of these codes and of the cohort's subjects, by reason.
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
  # numeric_value is a 32-bit float, whose shortest decimal is the charted number.
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
  variables: Sequence[Variable],
  readings: Sequence[Reading],
  scanned: Path,
  output: Path,
) -> dict[str, int]:
  """Writes `output`: the values of a modality's rows, or the reason for none.

  Columns: subject_id, code, time, item_index, value (null for a category), category (-1 for
  a number), reason.

  Returns:
    Counts of dropped and repaired rows by reason.
  """
  interpreter = Interpreter(variables, readings)
  codes = pa.array(interpreter.codes, pa.string())
  reasons: Counter[str] = Counter()
  repairs: Counter[str] = Counter()
  with pq.ParquetWriter(output, _RESOLVED, compression='zstd') as writer:
    for whole in pq.ParquetFile(scanned).iter_batches(_ROWS_AT_ONCE, columns=_SCANNED):
      is_read = pc.call_function('is_in', [whole['code']], pc.SetLookupOptions(codes))
      batch = whole.filter(pc.call_function('and', [whole['kept'], is_read]))
      number = batch['number'].to_numpy(zero_copy_only=False).astype(np.float64)
      coded = batch['code'].dictionary_encode()
      values = interpreter(
        coded.dictionary.to_pylist(),
        coded.indices.to_numpy(),
        number,
        batch['text'].to_numpy(zero_copy_only=False),
      )
      usable = values.reason == ''
      reasons.update(values.reason[~usable])
      repairs.update(values.repair[usable & (values.repair != '')])
      of_row = batch.select(['subject_id', 'code', 'time']).take(pa.array(values.row))
      writer.write_batch(
        pa.record_batch(
          [
            *of_row.columns,
            pa.array(values.item),
            pa.array(values.value, mask=np.isnan(values.value)),
            pa.array(values.category),
            pa.array(values.reason, pa.string(), mask=usable),
          ],
          schema=_RESOLVED,
        )
      )
  return dict(sorted(reasons.items())) | dict(sorted(repairs.items()))


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
  # Values at the prediction time itself belong to the last cell. Values are ordered, so
  # that the mean does not depend on the number of threads.
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
