"""Readmission: back in hospital, unplanned, within 30 days after discharge.

Anchor: every admission of at least 24 h that ends with the discharge of a living patient.
Prediction time: the discharge.
Observation window: the admission, from the arrival in the emergency department where there
  was one (`edregtime`); its length differs.
Horizon: 30 days after discharge, day 30 to the second.
Excluded: admissions without `dischtime`; deaths in hospital; shorter admissions, which are
  observations; patients who are in another admission at that time (a transfer).
Label: 1 if an unplanned admission begins within the horizon. Planned admissions have one of
  the types `PLANNED`; they are not events, and do not hide a later unplanned one.
Patients who die within 30 days without a readmission are negatives. They are counted,
  because a low risk of readmission can mean a high risk of death.
Unlabelled: the same steps, all of which can be decided at discharge.
Source: the 30-day unplanned readmission of the Centers for Medicare & Medicaid Services,
  which identify planned readmissions by procedures and diagnoses; this, transfers to and
  readmissions to other hospitals, and discharge against advice are left out.
"""

from __future__ import annotations

from data_pipeline.format.schema import Target
from data_pipeline.sources.mimic_iv import tables
from data_pipeline.sources.mimic_iv.cohort import Cohort
from data_pipeline.sources.mimic_iv.tasks.task import Task

DAYS = 30
ADMISSION_HOURS = 24
# Admission types with an appointment.
PLANNED = ('ELECTIVE', 'SURGICAL SAME DAY ADMISSION', 'AMBULATORY OBSERVATION')


def _choose(cohort: Cohort) -> None:
  raw = cohort.raw
  arrivals = {'hadm_id': 'BIGINT', 'edregtime': 'TIMESTAMP'}
  raw.open(cohort.root, 'hosp/admissions', arrivals, view='raw_arrivals')
  cohort.rows['admissions'] = raw.unreadable(
    'raw_arrivals', 'raw_arrivals', {'edregtime': 'TIMESTAMP'}
  )
  cohort.rows['icustays'] = tables.open_stays(raw, cohort.root)
  cohort.step('admissions', 'admissions')
  raw.run("""
    CREATE OR REPLACE TEMP TABLE discharges AS
    WITH arrivals AS (
      SELECT hadm_id, min(edregtime) AS edregtime FROM raw_arrivals GROUP BY hadm_id
    ), units AS (
      SELECT hadm_id, arg_min(first_careunit, (intime, stay_id)) AS unit
      FROM icustays GROUP BY hadm_id
    )
    SELECT a.hadm_id AS sample_id, a.subject_id, a.hadm_id, a.admittime, a.deathtime,
      a.hospital_expire_flag, a.dischtime AS prediction_time,
      CASE WHEN r.edregtime <= a.admittime THEN r.edregtime ELSE a.admittime END
        AS start_time, u.unit
    FROM admissions a LEFT JOIN arrivals r USING (hadm_id) LEFT JOIN units u USING (hadm_id)
    WHERE a.dischtime IS NOT NULL
  """)
  cohort.step('discharge time known', 'discharges')
  raw.run("""
    DELETE FROM discharges WHERE hospital_expire_flag = 1 OR deathtime IS NOT NULL
  """)
  cohort.keep_living('discharges', 'discharged alive')
  raw.run(f"""
    DELETE FROM discharges
    WHERE prediction_time < admittime + INTERVAL {ADMISSION_HOURS} HOURS
  """)
  cohort.step(f'admission of at least {ADMISSION_HOURS} h', 'discharges')
  raw.run("""
    DELETE FROM discharges s USING admissions a
    WHERE a.subject_id = s.subject_id AND a.hadm_id <> s.hadm_id
      AND a.admittime <= s.prediction_time AND a.dischtime > s.prediction_time
  """)
  cohort.step('in no other admission at discharge', 'discharges')
  if cohort.unlabelled:
    cohort.choose(None, table='discharges')
    return
  planned = ', '.join(f"'{name}'" for name in PLANNED)
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE readmitted AS
    SELECT DISTINCT s.sample_id FROM discharges s
    JOIN admissions a ON a.subject_id = s.subject_id AND a.hadm_id <> s.hadm_id
      AND a.admittime > s.prediction_time
      AND a.admittime <= s.prediction_time + INTERVAL {DAYS} DAYS
      AND coalesce(upper(trim(a.admission_type)), '') NOT IN ({planned})
    -- Organ donors are admitted again after their death.
    LEFT JOIN deaths d ON d.subject_id = s.subject_id
    WHERE d.dead_from IS NULL OR d.dead_from > a.admittime
  """)
  cohort.choose(
    'CAST(s.sample_id IN (SELECT sample_id FROM readmitted) AS INTEGER)', table='discharges'
  )
  died = raw.value(f"""
    SELECT count(*) FROM samples s JOIN deaths d USING (subject_id)
    WHERE s.label = 0 AND d.dead_from <= s.prediction_time + INTERVAL {DAYS} DAYS
  """)
  if died:
    cohort.rows['admissions']['kept: died within 30 days, not readmitted'] = died


TASK = Task(
  name='readmission',
  target=Target(
    'binary',
    ('not readmitted', 'readmitted'),
    description='unplanned readmission to the hospital',
    horizon=f'within {DAYS} days of discharge',
  ),
  choose=_choose,
  observation_hours=None,
)
