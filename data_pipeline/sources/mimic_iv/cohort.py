"""Cohorts: which samples there are, their prediction time, label and attributes.

Mortality and LOS (Tasks 2 and 3): the first ICU stay of each subject, at least
24 h long; prediction 24 h after its start. CVD (Task 1): ECGs followed within
90 days by a hospitalisation whose diagnosis is clear.

Nobody is predicted after death or discharge. A subject is dead from the first
`deathtime` of its admissions; where there is none, from the day after `dod`, which
is a date only. An end before its begin (`dischtime`, `outtime`) is missing.

Each function makes the DuckDB table `samples` (sample_id, subject_id, hadm_id,
prediction_time, start_time, label, age and further attributes) and returns the
count of samples and subjects at every inclusion step.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from data_pipeline.format.schema import DataError
from data_pipeline.sources.common.items import read_rows
from data_pipeline.sources.common.raw_tables import RawTables
from data_pipeline.sources.common.targets import CVD

ICU_HOURS = 24
CVD_DAYS = 90
CVD_ADMISSION_HOURS = 24
CVD_AGES = (18, 89)
OF_ECGS = ('cvd', 'cvd_all')  # tasks whose samples are recordings

# What the labels of a task tell of the time after the prediction, beside themselves.
CONDITIONS = {
  'cvd': (
    f'the patient is admitted for at least {CVD_ADMISSION_HOURS} h within {CVD_DAYS} days '
    'after the ECG, and the diagnosis is clear: nobody knows that at the ECG'
  )
}

Steps = list[dict[str, str | int]]

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
  """Loads patients and admissions, one row a key, and `deaths`; counts what was dropped."""
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
  # The flag is the label; the time excludes. Contradictions are left as they are.
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


def icu(
  raw: RawTables, root: Path, task: str, *, unlabelled: bool = False
) -> tuple[Steps, dict[str, dict[str, int]]]:
  """The cohort of 'mortality' and 'los'.

  `unlabelled` takes the steps that can be decided at the prediction time: a stay may go
  on, and every label is null.

  Raises:
    DataError: no stay is left.
  """
  raw.open(root, 'icu/icustays', _STAYS, view='raw_icustays')
  unusable = 'subject_id IS NULL OR stay_id IS NULL OR intime IS NULL'
  rows = {
    'icustays': _load(
      raw,
      'icustays',
      _STAYS,
      'stay_id',
      unusable,
      deciding=('intime', 'outtime'),
      period=('intime', 'outtime'),
    )
  }
  steps = [_step(raw, 'ICU stays', 'icustays')]
  raw.run("""
    CREATE OR REPLACE TEMP TABLE first_stays AS
    SELECT * FROM icustays
    QUALIFY row_number() OVER (PARTITION BY subject_id ORDER BY intime, stay_id) = 1
  """)
  steps.append(_step(raw, 'first ICU stay of the subject', 'first_stays'))
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE long_stays AS
    SELECT *, intime + INTERVAL {ICU_HOURS} HOURS AS prediction_time
    FROM first_stays WHERE outtime >= intime + INTERVAL {ICU_HOURS} HOURS
      {'OR outtime IS NULL' if unlabelled else ''}
  """)
  steps.append(_step(raw, f'stay of at least {ICU_HOURS} h', 'long_stays'))
  if unlabelled:
    # Of a stay that goes on, the tables may end before its prediction time.
    raw.run("""
      DELETE FROM long_stays WHERE prediction_time > (
        SELECT max(greatest(intime, outtime)) FROM icustays)
    """)
    steps.append(_step(raw, 'predicted before the tables end', 'long_stays'))
  raw.run("""
    DELETE FROM long_stays s USING deaths d
    WHERE d.subject_id = s.subject_id AND d.dead_from <= s.prediction_time
  """)
  steps.append(_step(raw, f'alive after {ICU_HOURS} h', 'long_stays'))
  raw.run("""
    DELETE FROM long_stays s USING admissions a
    WHERE a.hadm_id = s.hadm_id AND a.subject_id = s.subject_id
      AND a.dischtime <= s.prediction_time
  """)
  steps.append(_step(raw, f'in hospital after {ICU_HOURS} h', 'long_stays'))
  flag = 'a.hospital_expire_flag'
  label = {
    'mortality': f'CASE WHEN {flag} IN (0, 1) THEN {flag} END',
    'los': "date_diff('second', s.intime, s.outtime) / 86400.0",
  }[task]
  label, known = ('NULL', 'true') if unlabelled else (label, f'{label} IS NOT NULL')
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE samples AS
    SELECT s.stay_id AS sample_id, s.subject_id, s.hadm_id, s.prediction_time,
      s.intime AS start_time, CAST({label} AS DOUBLE) AS label,
      CAST(p.anchor_age + year(a.admittime) - p.anchor_year AS DOUBLE) AS age,
      trim(p.gender) AS gender, a.race, a.insurance, a.admission_type,
      a.admission_location, s.first_careunit AS unit,
      p.anchor_year_group AS year_group
    FROM long_stays s
    JOIN patients p USING (subject_id)
    JOIN admissions a ON a.hadm_id = s.hadm_id AND a.subject_id = s.subject_id
    WHERE {known}
  """)
  what = 'subject and admission' if unlabelled else 'subject, admission and label'
  steps.append(_step(raw, f'{what} known', 'samples'))
  return _not_empty(steps, f'{root}: task {task}'), rows


def cvd(
  raw: RawTables, root: Path, task: str, *, unlabelled: bool = False
) -> tuple[Steps, dict[str, dict[str, int]]]:
  """The cohort of 'cvd' or 'cvd_all', from the table `recordings` (see recordings.py).

  The first admission of at least 24 h that starts within 90 days after the ECG
  gives the class: a CABG or PCI, else the primary diagnosis. An admission with
  a CVD diagnosis that is not primary is unclear. In 'cvd_all' an ECG without such an
  admission is of a class of its own.

  `unlabelled` takes the ECGs of all who are alive, whether they are admitted or not, which
  nobody knows at the ECG; every label is null.

  Raises:
    DataError: no ECG is left.
  """
  rows = {
    'diagnoses_icd': open_icd(raw, root, 'diagnoses'),
    'procedures_icd': open_icd(raw, root, 'procedures'),
  }
  steps = [_step(raw, 'ECGs', 'recordings')]
  raw.run("""
    CREATE OR REPLACE TEMP TABLE cvd_aged AS
    SELECT r.study_id AS sample_id, r.subject_id, r.ecg_time AS prediction_time,
      CAST(p.anchor_age + year(r.ecg_time) - p.anchor_year AS DOUBLE) AS age,
      trim(p.gender) AS gender, p.anchor_year_group AS year_group
    FROM recordings r JOIN patients p USING (subject_id)
  """)
  steps.append(_step(raw, 'subject in patients', 'cvd_aged'))
  low, high = CVD_AGES
  raw.run(f'DELETE FROM cvd_aged WHERE age IS NULL OR age NOT BETWEEN {low} AND {high}')
  steps.append(_step(raw, f'age {low} to {high}', 'cvd_aged'))
  raw.run("""
    DELETE FROM cvd_aged s USING deaths d
    WHERE d.subject_id = s.subject_id AND d.dead_from <= s.prediction_time
  """)
  steps.append(_step(raw, 'alive at the ECG', 'cvd_aged'))
  if unlabelled:
    texts = ('admission_type', 'admission_location', 'insurance', 'race')
    nulls = ', '.join(f'CAST(NULL AS VARCHAR) AS {name}' for name in texts)
    raw.run(f"""
      CREATE OR REPLACE TEMP TABLE samples AS
      SELECT *, CAST(NULL AS BIGINT) AS hadm_id, {nulls},
        CAST(NULL AS TIMESTAMP) AS start_time, CAST(NULL AS DOUBLE) AS label
      FROM cvd_aged
    """)
    return _not_empty(steps, f'{root}: task {task}'), rows
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE cvd_admitted AS
    SELECT s.*, a.* EXCLUDE (subject_id, deathtime) FROM cvd_aged s
    JOIN admissions a ON a.subject_id = s.subject_id
      AND a.admittime > s.prediction_time
      AND a.admittime <= s.prediction_time + INTERVAL {CVD_DAYS} DAYS
      AND a.dischtime >= a.admittime + INTERVAL {CVD_ADMISSION_HOURS} HOURS
    -- Organ donors are admitted again after their death.
    LEFT JOIN deaths d ON d.subject_id = s.subject_id
    WHERE d.dead_from IS NULL OR d.dead_from > a.admittime
    QUALIFY row_number() OVER (
      PARTITION BY s.sample_id ORDER BY a.admittime, a.hadm_id) = 1
  """)
  raw.run(
    'CREATE OR REPLACE TEMP TABLE admitted_ecgs AS SELECT sample_id FROM cvd_admitted'
  )
  steps.append(_step(
    raw,
    f'admitted for at least {CVD_ADMISSION_HOURS} h within {CVD_DAYS} days',
    'cvd_admitted',
  ))  # fmt: skip
  classes = ' '.join(
    f"WHEN '{name}' THEN {index}" for index, name in enumerate(CVD.classes)
  )
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE admission_class AS
    WITH coded AS (
      SELECT hadm_id, NULL AS class, NULL AS seq_num, 'any' AS kind FROM diagnoses
      UNION ALL SELECT d.hadm_id, p.class, d.seq_num, 'diagnosis' FROM diagnoses d
      JOIN icd_prefixes p ON p.tbl = 'diagnoses' AND p.version = d.icd_version
        AND p.class <> '' AND starts_with(d.icd_code, p.prefix)
      UNION ALL SELECT d.hadm_id, p.class, NULL, 'procedure' FROM procedures d
      JOIN icd_prefixes p ON p.tbl = 'procedures' AND p.version = d.icd_version
        AND p.class <> '' AND starts_with(d.icd_code, p.prefix)
    ), per AS (
      SELECT hadm_id, min(class) FILTER (kind = 'procedure') AS operation,
        min(class) FILTER (kind = 'diagnosis' AND seq_num = 1) AS principal,
        bool_or(kind = 'diagnosis') AS any_cvd,
        bool_or(kind <> 'procedure') AS has_diagnoses
      FROM coded GROUP BY hadm_id
    )
    SELECT hadm_id, has_diagnoses, CASE coalesce(operation, principal,
      CASE WHEN any_cvd THEN NULL ELSE '{CVD.classes[0]}' END) {classes} END AS label
    FROM per
  """)
  raw.run("""
    DELETE FROM cvd_admitted WHERE hadm_id NOT IN (
      SELECT hadm_id FROM admission_class WHERE has_diagnoses OR label IS NOT NULL)
  """)
  steps.append(_step(raw, 'admission has coded diagnoses', 'cvd_admitted'))
  raw.run("""
    CREATE OR REPLACE TEMP TABLE samples AS
    SELECT s.* EXCLUDE (admittime, dischtime, hospital_expire_flag),
      CAST(NULL AS TIMESTAMP) AS start_time, CAST(c.label AS DOUBLE) AS label
    FROM cvd_admitted s JOIN admission_class c USING (hadm_id)
    WHERE c.label IS NOT NULL
  """)
  steps.append(_step(raw, 'no CVD diagnosis that is not primary (or operated)', 'samples'))
  if task == 'cvd_all':
    raw.run(f"""
      INSERT INTO samples BY NAME
      SELECT s.*, CAST({len(CVD.classes)} AS DOUBLE) AS label FROM cvd_aged s
      WHERE s.sample_id NOT IN (SELECT sample_id FROM admitted_ecgs)
    """)
    steps.append(_step(raw, 'with those who are not admitted', 'samples'))
  return _not_empty(steps, f'{root}: task {task}'), rows


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
  """Makes `table` of `raw_{table}`: one row a key, no `period` that ends early."""
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


def _step(raw: RawTables, text: str, table: str) -> dict[str, str | int]:
  samples, subjects = raw.run(
    f'SELECT count(*), count(DISTINCT subject_id) FROM {table}'
  ).fetchall()[0]
  return {'step': text, 'samples': samples, 'subjects': subjects}


def _not_empty(steps: Steps, where: str) -> Steps:
  for step in steps:
    if step['samples'] == 0:
      raise DataError(
        f'{where}: empty cohort, no sample is left after the step {step["step"]!r}. '
        'Check that all folders are of the same release and are complete.'
      )
  return steps
