"""Static columns: demographics, and for CVD omr measurements, history and drugs.

Everything is from before the prediction time: omr only has dates, so it is read up to the
day before; history comes from admissions discharged by then, drugs from prescriptions
started by then. Missing values are null (the "observed" flags of the paper are the masks
of the model).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_pipeline.format.schema import Item
from data_pipeline.sources.common import cells
from data_pipeline.sources.common.duckdb_files import text
from data_pipeline.sources.common.items import read_rows, static_items
from data_pipeline.sources.common.raw_tables import RawTables
from data_pipeline.sources.mimic_iv import drugs
from data_pipeline.sources.mimic_iv.tasks.task import Task

_POUND = 0.45359237  # kg
_INCH = 2.54  # cm
# Standing and lying pressures are orthostatic tests, not resting values.
_PRESSURES = ('Blood Pressure', 'Blood Pressure Sitting')
# The short names are older spellings of the same measurements in the same units.
_OMR = {
  'Weight (Lbs)': ('weight', _POUND),
  'Weight': ('weight', _POUND),
  'Height (Inches)': ('height', _INCH),
  'Height': ('height', _INCH),
}


def history_names() -> tuple[str, ...]:
  """The ten history flags, in the order of tables/icd.csv."""
  return tuple(dict.fromkeys(row['name'] for row in read_rows('icd')))


def columns(task: Task, static: str) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
  """Numeric and categorical static columns of a task.

  Args:
    task: one of `tasks.TASKS`.
    static: 'core' or 'extended' (tasks of ECGs only).
  """
  wanted = static_items('core' if task.of_ecgs else 'icu')
  numeric = tuple(item for item in wanted if item.kind == 'numeric')
  if task.of_ecgs and static == 'extended':
    numeric += tuple(
      Item(name, f'History: {name.replace("_", " ")}', '', (), 0, 1)
      for name in history_names()
    )
    numeric += tuple(
      Item(name, f'Drugs: ATC {name}', '', (), 0, 1) for name in drugs.GROUPS
    )
  return numeric, tuple(item for item in wanted if item.kind == 'categorical')


def write_static(
  raw: RawTables,
  root: Path,
  task: Task,
  static: str,
  drug_rules: Sequence[drugs.Rule],
  output: Path,
) -> dict[str, dict[str, int]]:
  """Writes `static.parquet`; returns row counts by table and reason."""
  numeric, categorical = columns(task, static)
  counts: dict[str, dict[str, int]] = {}
  joins, extra = '', {}
  if task.of_ecgs:
    counts['omr'] = _omr(raw, root)
    joins = 'LEFT JOIN omr_latest o USING (sample_id)'
    extra = {name: f'o.{name}' for name in ('sbp', 'dbp', 'weight', 'height')}
    if static == 'extended':
      _history(raw)
      counts['prescriptions'] = drugs.make_flags(raw, root, drug_rules)
      for flags, table in ((history_names(), 'history'), (drugs.GROUPS, 'drugs')):
        joins += f' LEFT JOIN {table} USING (sample_id)'
        extra |= {name: f'coalesce({table}."{name}", 0)' for name in flags}
  selected = [
    f'CAST(CASE WHEN {of} BETWEEN {item.low} AND {item.high} THEN {of} END AS DOUBLE) '
    f'AS "{item.itemid}"'
    for item in numeric
    for of in [extra.get(item.itemid, f's.{item.itemid}')]
  ]
  for item in categorical:
    listed = ', '.join(map(text, item.categories))
    cell = f'upper(trim(s.{item.itemid}))'
    selected.append(f'CASE WHEN {cell} IN ({listed}) THEN {cell} END AS "{item.itemid}"')
    unlisted = raw.value(f"""
      SELECT count(*) FROM samples s
      WHERE s.{item.itemid} IS NOT NULL AND {cell} NOT IN ({listed})
    """)
    if unlisted:
      reason = f'repaired: unlisted {item.itemid} is missing'
      counts.setdefault('static', {})[reason] = unlisted
  raw.copy(f'SELECT sample_id, {", ".join(selected)} FROM samples s {joins}', output)
  return counts


def write_samples(raw: RawTables, attributes: tuple[str, ...], output: Path) -> None:
  """Writes `samples.parquet` with the subgroup attributes."""
  of = {'sex': 'gender'}
  selected = ', '.join(
    f'{of.get(name, name)} AS {name}'
    if name == 'age'
    else f"nullif(trim({of.get(name, name)}), '') AS {name}"
    for name in attributes
  )
  columns = [row[0] for row in raw.run('DESCRIBE samples').fetchall()]
  weight = 'weight, ' if 'weight' in columns else ''
  raw.copy(
    f'SELECT sample_id, subject_id, prediction_time, label, {weight}{selected} '
    'FROM samples',
    output,
  )


def _omr(raw: RawTables, root: Path) -> dict[str, int]:
  """Makes `omr_latest`: the last outpatient values before each sample's day."""
  columns = {
    'subject_id': 'BIGINT', 'chartdate': 'DATE', 'seq_num': 'INTEGER',
    'result_name': 'VARCHAR', 'result_value': 'VARCHAR',
  }  # fmt: skip
  raw.open(root, 'hosp/omr', columns)
  raw.run("""
    CREATE OR REPLACE TEMP TABLE read_omr AS SELECT * FROM omr
    WHERE subject_id IS NULL OR subject_id IN (SELECT subject_id FROM samples)
  """)
  unreadable = raw.unreadable('omr', 'read_omr', columns)
  pressures = ', '.join(f"'{name}'" for name in _PRESSURES)
  pressure = (
    r"regexp_extract(result_value, '^\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*$', {})"
  )
  number = cells.value('result_value', 'DOUBLE', 'VARCHAR')
  values = [
    (f'result_name IN ({pressures})', 'sbp', f'TRY_CAST({pressure.format(1)} AS DOUBLE)'),
    (f'result_name IN ({pressures})', 'dbp', f'TRY_CAST({pressure.format(2)} AS DOUBLE)'),
    *(
      (f"result_name = '{name}'", column, f'{number} * {scale}')
      for name, (column, scale) in _OMR.items()
    ),
  ]
  limits = {item.itemid: (item.low, item.high) for item in static_items('core')}
  selects = ' UNION ALL '.join(
    f"""SELECT subject_id, chartdate, seq_num, copies, '{column}' AS name,
      {value} AS value,
      CASE WHEN chartdate IS NULL THEN 'dropped: missing or malformed chartdate'
        WHEN {value} IS NULL THEN 'dropped: unreadable value'
        WHEN {value} NOT BETWEEN {limits[column][0]} AND {limits[column][1]}
          THEN 'dropped: outside physiologic limits' END AS reason
      FROM omr_rows WHERE {condition}"""
    for condition, column, value in values
  )
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE omr_rows AS
    SELECT {', '.join(columns)}, count(*) AS copies FROM read_omr
    WHERE subject_id IS NOT NULL GROUP BY ALL
  """)
  raw.run('DROP TABLE read_omr')
  raw.run(f'CREATE OR REPLACE TEMP TABLE omr_values AS {selects}')
  raw.run("""
    CREATE OR REPLACE TEMP TABLE omr_latest AS
    WITH last AS (
      SELECT s.sample_id, v.name, v.value FROM samples s
      JOIN omr_values v ON v.subject_id = s.subject_id AND v.reason IS NULL
        AND v.chartdate < CAST(s.prediction_time AS DATE)
      QUALIFY row_number() OVER (PARTITION BY s.sample_id, v.name
        ORDER BY v.chartdate DESC, v.seq_num DESC, v.value DESC) = 1
    )
    SELECT sample_id, max(value) FILTER (name = 'sbp') AS sbp,
      max(value) FILTER (name = 'dbp') AS dbp,
      max(value) FILTER (name = 'weight') AS weight,
      max(value) FILTER (name = 'height') AS height
    FROM last GROUP BY sample_id
  """)
  counts = raw.counts('SELECT reason, sum(copies) FROM omr_values GROUP BY reason')
  read, duplicates = raw.run("""
    SELECT coalesce(sum(copies), 0),
      coalesce(sum(copies - 1) FILTER (reason IS NULL), 0) FROM omr_values
  """).fetchall()[0]
  counts |= {'dropped: duplicate': int(duplicates)}
  return {'values read': int(read), **counts, **unreadable}


def _history(raw: RawTables) -> None:
  """Makes `history`: flags from admissions discharged by the prediction time."""
  flags = ', '.join(
    f'max(CAST(p.name = \'{name}\' AS INTEGER)) AS "{name}"' for name in history_names()
  )
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE history AS
    WITH coded AS (
      SELECT hadm_id, icd_code, icd_version, 'diagnoses' AS tbl FROM diagnoses
      UNION ALL SELECT hadm_id, icd_code, icd_version, 'procedures' FROM procedures
    ), named AS (
      SELECT DISTINCT c.hadm_id, p.name FROM coded c JOIN icd_prefixes p
        ON p.tbl = c.tbl AND p.version = c.icd_version
        AND starts_with(c.icd_code, p.prefix)
    )
    SELECT s.sample_id, {flags} FROM samples s
    JOIN admissions a ON a.subject_id = s.subject_id AND a.dischtime <= s.prediction_time
    JOIN named p ON p.hadm_id = a.hadm_id
    GROUP BY s.sample_id
  """)
