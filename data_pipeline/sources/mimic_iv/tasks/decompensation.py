"""Decompensation: death within 24 h, predicted every 6 h of the ICU stay.

Anchor: the first ICU stay of each subject.
Prediction times: 6, 12, 18, ... h after its start, as long as the patient is in the unit.
Observation window: the 24 h before each prediction time; for the first three it reaches
  back before the stay, where there are laboratory results but no vital signs.
Horizon: 24 h.
Excluded: stays of at most 6 h or without an end; times at or after death, discharge
  from the unit, or discharge from hospital.
Label: 1 if the subject dies after the prediction time and at most 24 h later, in the unit
  or not, by the first `deathtime`. If a death only has a date (`dod`), it is 1 if the day
  ends within the horizon, 0 if it begins after it, and otherwise unknown (null); also
  unknown for a death in hospital without any time. Unknown labels are counted.
Weight: 1 / samples of the stay, so that every stay counts equally.
Unlabelled: all such times that the tables reach; ongoing stays also have samples.
Source: Harutyunyan et al., Scientific Data 6, 96 (2019), who predict every hour from the
  fifth and read the whole stay before it, for all stays of adults in MIMIC-III.
"""

from __future__ import annotations

from data_pipeline.format.schema import Target
from data_pipeline.sources.mimic_iv.cohort import Cohort
from data_pipeline.sources.mimic_iv.tasks.task import Task

EVERY_HOURS = 6
WINDOW_HOURS = 24
HORIZON_HOURS = 24
SAMPLES_PER_STAY = 10_000  # sample numbers reserved per stay: more than six years


def _choose(cohort: Cohort) -> None:
  raw = cohort.raw
  cohort.open_first_stays()
  end = 's.outtime'
  inside = 's.outtime > s.prediction_time'
  if cohort.unlabelled:
    end = '(SELECT max(greatest(intime, outtime)) FROM icustays)'
    inside = f'({inside} OR s.outtime IS NULL AND s.prediction_time <= {end})'
    end = f'coalesce(s.outtime, {end})'
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE moments AS
    WITH numbered AS (
      SELECT s.*, unnest(generate_series(1,
        date_diff('second', s.intime, {end}) // {EVERY_HOURS * 3600})) AS number
      FROM first_stays s
    ), timed AS (
      SELECT *, intime + to_hours(CAST({EVERY_HOURS} * number AS INTEGER))
        AS prediction_time FROM numbered
    )
    SELECT stay_id * {SAMPLES_PER_STAY} + number AS sample_id, stay_id, subject_id, hadm_id,
      prediction_time, prediction_time - INTERVAL {WINDOW_HOURS} HOURS AS start_time,
      first_careunit AS unit
    FROM timed s WHERE {inside}
  """)
  cohort.step(f'every {EVERY_HOURS} h of the stay', 'moments')
  cohort.keep_living('moments', 'alive at the prediction time')
  cohort.keep_in_hospital('moments', 'in hospital at the prediction time')
  weight = '1.0 / count(*) OVER (PARTITION BY s.stay_id)'
  if cohort.unlabelled:
    cohort.choose(None, weight=weight, table='moments')
    return
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE labelled_moments AS
    WITH times AS (
      SELECT p.subject_id, min(a.deathtime) AS deathtime, p.dod,
        bool_or(a.hospital_expire_flag = 1) AS died_in_hospital
      FROM patients p LEFT JOIN admissions a USING (subject_id)
      GROUP BY p.subject_id, p.dod
    ), ends AS (
      SELECT *, prediction_time + INTERVAL {HORIZON_HOURS} HOURS AS horizon FROM moments
    )
    SELECT s.* EXCLUDE (horizon), CASE
      WHEN t.deathtime IS NOT NULL THEN CAST(t.deathtime <= s.horizon AS INTEGER)
      WHEN t.dod IS NOT NULL THEN CASE
        WHEN t.dod + INTERVAL 1 DAY <= s.horizon THEN 1
        WHEN t.dod >= s.horizon THEN 0 END
      WHEN t.died_in_hospital THEN NULL
      ELSE 0 END AS dies
    FROM ends s LEFT JOIN times t USING (subject_id)
  """)
  cohort.choose('s.dies', may_be_unknown=True, weight=weight, table='labelled_moments')
  cohort.count_unknown('the time of death is not known')


TASK = Task(
  name='decompensation',
  target=Target(
    'binary',
    ('survives', 'dies'),
    description='death',
    horizon=f'within {HORIZON_HOURS} h of the prediction',
  ),
  choose=_choose,
  observation_hours=float(WINDOW_HOURS),
)
