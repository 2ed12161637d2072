"""CVD: the cardiovascular reason of the next admission, from an ECG (MedM2T, Task 1).

Anchor and prediction time: every ECG.
Observation window: the whole history before it.
Horizon: the first admission of at least 24 h that starts within 90 days.
Excluded: ages outside 18 to 89; patients who are dead at the ECG; ECGs without such an
  admission; admissions without coded diagnoses, or with a CVD diagnosis that is not
  primary.
Label: the class of that admission: CHD after a CABG or PCI, else by the primary diagnosis.
Unlabelled: the ECGs of all living patients, whether or not they are admitted, which is
  unknown at the ECG.
"""

from __future__ import annotations

from data_pipeline.sources.common import targets
from data_pipeline.sources.mimic_iv import tables
from data_pipeline.sources.mimic_iv.cohort import Cohort
from data_pipeline.sources.mimic_iv.tasks.task import Task

DAYS = 90
ADMISSION_HOURS = 24
AGES = (18, 89)


def choose(cohort: Cohort) -> None:
  """Makes `samples`; `aged_ecgs` and `admitted_ecgs` are those before the admission."""
  raw = cohort.raw
  for kind in ('diagnoses', 'procedures'):
    cohort.rows[f'{kind}_icd'] = tables.open_icd(raw, cohort.root, kind)
  cohort.step('ECGs', 'recordings')
  raw.run("""
    CREATE OR REPLACE TEMP TABLE aged_ecgs AS
    SELECT r.study_id AS sample_id, r.subject_id, r.ecg_time AS prediction_time,
      CAST(p.anchor_age + year(r.ecg_time) - p.anchor_year AS DOUBLE) AS age,
      trim(p.gender) AS gender, p.anchor_year_group AS year_group
    FROM recordings r JOIN patients p USING (subject_id)
  """)
  cohort.step('subject in patients', 'aged_ecgs')
  low, high = AGES
  raw.run(f'DELETE FROM aged_ecgs WHERE age IS NULL OR age NOT BETWEEN {low} AND {high}')
  cohort.step(f'age {low} to {high}', 'aged_ecgs')
  cohort.keep_living('aged_ecgs', 'alive at the ECG')
  if cohort.unlabelled:
    texts = ('admission_type', 'admission_location', 'insurance', 'race')
    nulls = ', '.join(f'CAST(NULL AS VARCHAR) AS {name}' for name in texts)
    raw.run(f"""
      CREATE OR REPLACE TEMP TABLE samples AS
      SELECT *, CAST(NULL AS BIGINT) AS hadm_id, {nulls},
        CAST(NULL AS TIMESTAMP) AS start_time, CAST(NULL AS DOUBLE) AS label
      FROM aged_ecgs
    """)
    return
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE cvd_admitted AS
    SELECT s.*, a.* EXCLUDE (subject_id, deathtime) FROM aged_ecgs s
    JOIN admissions a ON a.subject_id = s.subject_id
      AND a.admittime > s.prediction_time
      AND a.admittime <= s.prediction_time + INTERVAL {DAYS} DAYS
      AND a.dischtime >= a.admittime + INTERVAL {ADMISSION_HOURS} HOURS
    -- Organ donors are admitted again after their death.
    LEFT JOIN deaths d ON d.subject_id = s.subject_id
    WHERE d.dead_from IS NULL OR d.dead_from > a.admittime
    QUALIFY row_number() OVER (
      PARTITION BY s.sample_id ORDER BY a.admittime, a.hadm_id) = 1
  """)
  raw.run(
    'CREATE OR REPLACE TEMP TABLE admitted_ecgs AS SELECT sample_id FROM cvd_admitted'
  )
  cohort.step(
    f'admitted for at least {ADMISSION_HOURS} h within {DAYS} days', 'cvd_admitted'
  )
  names = targets.CVD.classes
  classes = ' '.join(f"WHEN '{name}' THEN {index}" for index, name in enumerate(names))
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
      CASE WHEN any_cvd THEN NULL ELSE '{names[0]}' END) {classes} END AS label
    FROM per
  """)
  raw.run("""
    DELETE FROM cvd_admitted WHERE hadm_id NOT IN (
      SELECT hadm_id FROM admission_class WHERE has_diagnoses OR label IS NOT NULL)
  """)
  cohort.step('admission has coded diagnoses', 'cvd_admitted')
  raw.run("""
    CREATE OR REPLACE TEMP TABLE samples AS
    SELECT s.* EXCLUDE (admittime, dischtime, hospital_expire_flag),
      CAST(NULL AS TIMESTAMP) AS start_time, CAST(c.label AS DOUBLE) AS label
    FROM cvd_admitted s JOIN admission_class c USING (hadm_id)
    WHERE c.label IS NOT NULL
  """)
  cohort.step('no CVD diagnosis that is not primary (or operated)', 'samples')


TASK = Task(
  name='cvd',
  target=targets.CVD,
  choose=choose,
  observation_hours=None,
  of_ecgs=True,
  condition=(
    f'the patient is admitted for at least {ADMISSION_HOURS} h within {DAYS} days '
    'after the ECG, and the diagnosis is clear, which is unknown at the ECG'
  ),
)
