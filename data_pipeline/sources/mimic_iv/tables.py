"""The hospital's small tables: patients, admissions, ICU stays, deaths, codes.

A subject is dead from the first `deathtime` of its admissions; if there is none, from the
day after `dod`, which has no time. An end before its beginning (`dischtime`, `outtime`)
counts as missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from data_pipeline.sources.common.items import read_rows
from data_pipeline.sources.common.raw_tables import RawTables

_PATIENTS = {
  'subject_id': 'BIGINT', 'gender': 'VARCHAR', 'anchor_age': 'INTEGER',
  'anchor_year': 'INTEGER', 'anchor_year_group': 'VARCHAR', 'dod': 'DATE',
}  # fmt: skip
_ADMISSIONS = {
  'subject_id': 'BIGINT', 'hadm_id': 'BIGINT', 'admittime': 'TIMESTAMP',
  'dischtime': 'TIMESTAMP', 'deathtime': 'TIMESTAMP', 'admission_type': 'VARCHAR',
  'admission_location': 'VARCHAR', 'insurance': 'VARCHAR', 'race': 'VARCHAR',
  'hospital_expire_flag': 'INTEGER',
}  # fmt: skip
_STAYS = {
  'subject_id': 'BIGINT', 'hadm_id': 'BIGINT', 'stay_id': 'BIGINT',
  'first_careunit': 'VARCHAR', 'intime': 'TIMESTAMP', 'outtime': 'TIMESTAMP',
}  # fmt: skip


def open_patients_and_admissions(raw: RawTables, root: Path) -> dict[str, dict[str, int]]:
  """Loads patients and admissions, one row per key, and `deaths`; counts dropped rows."""
  raw.open(root, 'hosp/patients', _PATIENTS, view='raw_patients')
  raw.open(root, 'hosp/admissions', _ADMISSIONS, view='raw_admissions')
  rows = {
    'patients': _load(
      raw,
      'patients',
      _PATIENTS,
      'subject_id',
      'subject_id IS NULL',
      deciding=('anchor_age', 'anchor_year', 'dod'),
    ),
    'admissions': _load(
      raw,
      'admissions',
      _ADMISSIONS,
      'hadm_id',
      'subject_id IS NULL OR hadm_id IS NULL OR admittime IS NULL',
      deciding=('admittime', 'dischtime', 'deathtime', 'hospital_expire_flag'),
      period=('admittime', 'dischtime'),
    ),
  }
  raw.run("""
    CREATE OR REPLACE TEMP TABLE deaths AS
    SELECT p.subject_id, coalesce(min(a.deathtime), p.dod + INTERVAL 1 DAY) AS dead_from
    FROM patients p LEFT JOIN admissions a USING (subject_id)
    GROUP BY p.subject_id, p.dod HAVING dead_from IS NOT NULL
  """)
  # The flag is the label, the time excludes. Contradictions are not resolved.
  contradictions = raw.counts("""
    SELECT CASE
      WHEN hospital_expire_flag = 1 AND deathtime IS NULL
        THEN 'kept: hospital_expire_flag without deathtime'
      WHEN hospital_expire_flag = 0 AND deathtime IS NOT NULL
        THEN 'kept: deathtime without hospital_expire_flag'
      END AS reason, count(*) FROM admissions GROUP BY reason
  """)
  rows['admissions'].update(contradictions)
  return rows


def open_stays(raw: RawTables, root: Path) -> dict[str, int]:
  """Loads icustays, one row per stay; counts dropped rows."""
  raw.open(root, 'icu/icustays', _STAYS, view='raw_icustays')
  return _load(
    raw,
    'icustays',
    _STAYS,
    'stay_id',
    'subject_id IS NULL OR stay_id IS NULL OR intime IS NULL',
    deciding=('intime', 'outtime'),
    period=('intime', 'outtime'),
  )


def open_icd(raw: RawTables, root: Path, kind: str) -> dict[str, int]:
  """Loads `{kind}_icd` as the table `kind`, and the table `icd_prefixes`."""
  columns = {
    'subject_id': 'BIGINT', 'hadm_id': 'BIGINT', 'seq_num': 'INTEGER',
    'icd_code': 'VARCHAR', 'icd_version': 'INTEGER',
  }  # fmt: skip
  view = f'raw_{kind}'
  raw.open(root, f'hosp/{kind}_icd', columns, view=view)
  prefixes = [
    f"('{row['name']}', '{row['table']}', '{row['class']}', {row['version']}, '{prefix}')"
    for row in read_rows('icd')
    for prefix in row['prefixes'].split('|')
  ]
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE icd_prefixes AS SELECT * FROM (VALUES
    {', '.join(prefixes)}) AS t(name, tbl, class, version, prefix)
  """)
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE all_{kind} AS SELECT * REPLACE (
      upper(replace(trim(icd_code), '.', '')) AS icd_code) FROM {view}
  """)
  unusable = (
    'subject_id IS NULL OR hadm_id IS NULL OR icd_code IS NULL OR icd_version IS NULL'
  )
  # The order of diagnoses and the version of their codes decide the class.
  unreadable = raw.unreadable(
    view, f'all_{kind}', columns, deciding=('seq_num', 'icd_version')
  )
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE {kind} AS SELECT DISTINCT {', '.join(columns)}
    FROM all_{kind} WHERE NOT ({unusable})
  """)
  read, kept = raw.value(f'SELECT count(*) FROM all_{kind}'), _count(raw, kind)
  bad = raw.value(f'SELECT count(*) FROM all_{kind} WHERE {unusable}')
  raw.run(f'DROP TABLE all_{kind}')
  return _reasons(read, bad, kept) | unreadable


def _load(
  raw: RawTables,
  table: str,
  columns: Mapping[str, str],
  key: str,
  unusable: str,
  *,
  deciding: tuple[str, ...],
  period: tuple[str, str] | None = None,
) -> dict[str, int]:
  """Makes `table` from `raw_{table}`: one row per key, and no `period` that ends early."""
  raw.run(f'CREATE OR REPLACE TEMP TABLE all_{table} AS SELECT * FROM raw_{table}')
  unreadable = raw.unreadable(f'raw_{table}', f'all_{table}', columns, deciding=deciding)
  names = ', '.join(columns)
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE {table} AS SELECT {names} FROM all_{table}
    WHERE NOT ({unusable})
    QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {names}) = 1
  """)
  bad = raw.value(f'SELECT count(*) FROM all_{table} WHERE {unusable}')
  read, kept = raw.value(f'SELECT count(*) FROM all_{table}'), _count(raw, table)
  raw.run(f'DROP TABLE all_{table}')
  counts = _reasons(read, bad, kept) | unreadable
  if period:
    begin, end = period
    [[reversed_]] = raw.run(
      f'UPDATE {table} SET {end} = NULL WHERE {end} < {begin}'
    ).fetchall()
    if reversed_:
      counts[f'repaired: {end} before {begin} is missing'] = reversed_
  return counts


def _reasons(read: int, bad: int, kept: int) -> dict[str, int]:
  counts = {
    'read': read,
    'dropped: missing or malformed key or time': bad,
    'dropped: duplicate': read - bad - kept,
  }
  return {reason: n for reason, n in counts.items() if n or reason == 'read'}


def _count(raw: RawTables, table: str) -> int:
  return raw.value(f'SELECT count(*) FROM {table}')
