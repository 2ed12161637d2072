"""Static columns and subgroup attributes: the last value known at the prediction time.

A row without a time (`GENDER//F`) was always known. The age comes from the birth date.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from data_pipeline.format.schema import Item
from data_pipeline.sources.common.duckdb_files import parquet, text
from data_pipeline.sources.common.items import make_table
from data_pipeline.sources.common.raw_tables import RawTables
from data_pipeline.sources.meds.codes import match, readings
from data_pipeline.sources.meds.rows import resolve, scan
from data_pipeline.sources.meds.variables import Mapping

OLDEST = 120.0  # years
MICROSECONDS_A_YEAR = 365.25 * 86400e6


def static_columns(mapping: Mapping) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
  """Numeric and categorical static columns."""
  items = [one.item for one in mapping.static]
  age = (Item(mapping.age, 'Age', 'years', low=0, high=OLDEST),) if mapping.birth else ()
  numeric = tuple(item for item in items if item.kind == 'numeric')
  return (*age, *numeric), tuple(item for item in items if item.kind == 'categorical')


def attribute_names(mapping: Mapping) -> tuple[str, ...]:
  """Subgroup attributes, age first."""
  return (('age',) if mapping.birth else ()) + tuple(mapping.attributes)


def write_static(
  raw: RawTables, mapping: Mapping, distinct: Sequence[str], scratch: Path, staging: Path
) -> dict[str, int]:
  """Writes `samples.parquet` and, if there are static columns, `static.parquet`.

  Args:
    raw: with `data`, `samples` and `windows`.
    mapping: the mapping file.
    distinct: the codes of the data set.
    scratch: folder for intermediate files.
    staging: folder for the staging files.

  Returns:
    Row counts by reason.
  """
  read = readings('static', mapping.static, distinct, two_items='allowed')
  said = [
    (code, name, one.category or groups['category'])
    for name, codes in mapping.attributes.items()
    for code in distinct
    for found in [match(codes, code)]
    if found
    for one, groups in [found]
  ]
  wanted = {
    *(one.code for one in read),
    *(code for code, *_ in said),
    *((mapping.birth,) * bool(mapping.birth)),
  }
  scanned, resolved = scratch / 'history.parquet', scratch / 'resolved_static.parquet'
  counts = scan(raw, sorted(wanted), history=True, output=scanned)
  counts |= resolve(mapping.static, read, scanned, resolved)
  counts |= _age(raw, mapping, scanned)
  _attributes(raw, mapping, said, scanned, staging / 'samples.parquet')
  numeric, categorical = static_columns(mapping)
  if numeric or categorical:
    _columns(raw, mapping, resolved, staging / 'static.parquet')
  return counts


def _age(raw: RawTables, mapping: Mapping, scanned: Path) -> dict[str, int]:
  """Makes `ages` (sample_id, age): in years with fractions, null if unknown."""
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE ages AS
    SELECT s.sample_id,
      (epoch_us(s.prediction_time) - epoch_us(b.time)) / {MICROSECONDS_A_YEAR} AS age
    FROM samples s LEFT JOIN (
      SELECT subject_id, min(time) AS time FROM {parquet(scanned)}
      WHERE kept AND code = {text(mapping.birth or '')} GROUP BY subject_id
    ) b USING (subject_id)
  """)
  if not mapping.birth:
    return {}
  unknown = raw.value('SELECT count(*) FROM ages WHERE age IS NULL')
  outside = raw.value(f'SELECT count(*) FROM ages WHERE age > {OLDEST}')
  raw.run(f'UPDATE ages SET age = NULL WHERE age > {OLDEST}')
  counts = {
    'samples without a birth date': unknown,
    f'repaired: age above {OLDEST:g} is missing': outside,
  }
  return {reason: n for reason, n in counts.items() if n}


def _attributes(
  raw: RawTables,
  mapping: Mapping,
  said: list[tuple[str, str, str]],
  scanned: Path,
  output: Path,
) -> None:
  names = {'code': pa.string(), 'name': pa.string(), 'value': pa.string()}
  make_table(raw.con, 'attribute_codes', names, said)
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE attributes AS
    SELECT s.sample_id, a.name, a.value
    FROM samples s JOIN {parquet(scanned)} e ON e.subject_id = s.subject_id
      AND e.kept AND (e.time IS NULL OR e.time <= s.prediction_time)
    JOIN attribute_codes a ON a.code = e.code
    QUALIFY row_number() OVER (PARTITION BY s.sample_id, a.name
      ORDER BY e.time DESC NULLS LAST, a.value) = 1
  """)
  cells = ''.join(
    f", max(a.value) FILTER (a.name = '{name}') AS {name}" for name in mapping.attributes
  )
  age = ', any_value(g.age) AS age' if mapping.birth else ''
  raw.copy(
    f"""
    SELECT s.sample_id, any_value(s.subject_id) AS subject_id,
      any_value(s.prediction_time) AS prediction_time, any_value(s.label) AS label
      {age}{cells}
    FROM samples s LEFT JOIN ages g USING (sample_id)
    LEFT JOIN attributes a USING (sample_id) GROUP BY s.sample_id
    """,
    output,
  )


def _columns(raw: RawTables, mapping: Mapping, resolved: Path, output: Path) -> None:
  make_table(
    raw.con, 'levels',
    {'item_index': pa.int32(), 'category': pa.int32(), 'text': pa.string()},
    [(i, k, text) for i, one in enumerate(mapping.static)
     for k, text in enumerate(one.item.categories)],
  )  # fmt: skip
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE static_last AS
    SELECT s.sample_id, e.item_index, e.value, l.text
    FROM samples s JOIN {parquet(resolved)} e ON e.subject_id = s.subject_id
      AND e.reason IS NULL AND (e.time IS NULL OR e.time <= s.prediction_time)
    LEFT JOIN levels l USING (item_index, category)
    QUALIFY row_number() OVER (PARTITION BY s.sample_id, e.item_index
      ORDER BY e.time DESC NULLS LAST, e.value, e.category) = 1
  """)
  index = {one.item.itemid: i for i, one in enumerate(mapping.static)}
  numeric, categorical = static_columns(mapping)
  cells = ''
  for item in (*numeric, *categorical):
    name = '"' + item.itemid.replace('"', '""') + '"'
    if mapping.birth and item.itemid == mapping.age:
      cells += f', any_value(g.age) AS {name}'
    else:
      of = 'value' if item.kind == 'numeric' else 'text'
      cells += f', max(v.{of}) FILTER (v.item_index = {index[item.itemid]}) AS {name}'
  raw.copy(
    f"""
    SELECT s.sample_id{cells} FROM samples s LEFT JOIN ages g USING (sample_id)
    LEFT JOIN static_last v USING (sample_id) GROUP BY s.sample_id
    """,
    output,
  )
