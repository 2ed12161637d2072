"""Requests with patients of a MEDS data set, and what preparation makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from data_pipeline.format.modalities.base import table_of
from data_pipeline.format.modalities.staged import StagedRows
from data_pipeline.format.schema import Schema
from data_pipeline.sources.meds.patients import Patients, Recording


def patients_of(
  data: str, samples: Path, recordings: list[list[Recording]] | None = None
) -> Patients:
  """The patients of staged samples with all that a data set has of them.

  Args:
    data: SQL of the data set's files.
    samples: samples.parquet, as staged.
    recordings: of each.
  """
  con = duckdb.connect()
  con.execute("SET TimeZone = 'UTC'")
  con.execute(f"""
    CREATE TABLE samples AS SELECT *, row_number() OVER (ORDER BY sample_id) - 1 AS patient
    FROM read_parquet('{samples}')
  """)
  present = [name for name, *_ in con.sql(f'DESCRIBE FROM {data}').fetchall()]
  text = 'text_value' if 'text_value' in present else 'NULL'
  events = con.sql(f"""
    SELECT CAST(patient AS BIGINT) AS patient, CAST(d.time AS TIMESTAMP) AS time, d.code,
      CAST(d.numeric_value AS FLOAT) AS numeric_value,
      CAST({text} AS VARCHAR) AS text_value, CAST(NULL AS VARCHAR) AS unit
    FROM {data} d JOIN samples s USING (subject_id)
  """).to_arrow_table()
  times = con.sql('SELECT epoch_us(prediction_time) FROM samples ORDER BY patient')
  prediction_time = np.array([row[0] for row in times.fetchall()], np.int64)
  count = len(prediction_time)
  return Patients(events, prediction_time, recordings or [[]] * count, [{}] * count)


def prepared(schema: Schema, staging: Path, name: str) -> list[dict[str, Any]]:
  """The arrays of one modality that preparation makes of every staged sample."""
  con, modality = duckdb.connect(), schema.modalities[name]
  table = table_of(name, modality)
  order = ', '.join(filter(None, ('position', table.order)))
  con.execute(f"""
    CREATE TABLE samples AS SELECT sample_id, CAST(row_number() OVER (ORDER BY sample_id)
      - 1 AS BIGINT) AS position FROM read_parquet('{staging}/samples.parquet')
  """)
  rows = con.sql(f"""
    SELECT position, t.* EXCLUDE (sample_id)
    FROM read_parquet('{staging}/{table.name}.parquet') t JOIN samples USING (sample_id)
    ORDER BY {order}
  """).to_arrow_table()
  [(count,)] = con.sql('SELECT count(*) FROM samples').fetchall()
  return [*modality.examples(StagedRows(table.name, rows, 0, count))]


def request(*rows: tuple, prediction_time: int = 0, **more: Any) -> Patients:
  """One patient: rows (microseconds or None, code, number, text, unit), all but the code
  and the time optional.
  """
  filled = [(*row, *[None] * (5 - len(row))) for row in rows]
  time, code, number, text, unit = zip(*filled, strict=True) if rows else [()] * 5
  events = pa.table(
    {
      'patient': pa.array([0] * len(rows), pa.int64()),
      'time': pa.array(time, pa.timestamp('us')),
      'code': pa.array(code, pa.string()),
      'numeric_value': pa.array(number, pa.float32()),
      'text_value': pa.array(text, pa.string()),
      'unit': pa.array(unit, pa.string()),
    }
  )
  return Patients(
    events,
    np.array([prediction_time], np.int64),
    [more.get('recordings', [])],
    [more.get('static', {})],
  )
