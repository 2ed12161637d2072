"""AKI: acute kidney injury of KDIGO stage 1 or higher within 48 h, after a day in the ICU.

Anchor: the first ICU stay of each subject, at least 24 h long.
Prediction time: 24 h after its start.
Observation window: these 24 h.
Horizon: 48 h.
AKI (`kidneys.py`) is one of
  creatinine that is 0.3 mg/dL or more above the lowest of the 48 h before it;
  creatinine that is at least 1.5 times the baseline: the lowest of the 7 days before it;
  urine output under 0.5 mL/kg/h over 6 h, where the tables have `icu/outputevents`.
Excluded: patients who are dead or discharged from hospital by the prediction time;
  end-stage renal disease, coded for this admission or an earlier one (585.6, N18.6);
  patients without a creatinine in the 7 days before the prediction time, with which to
  compare; patients who already have AKI, by any measurement of these 7 days.
Label: 1 if a measurement in the horizon fulfils a criterion, wherever the patient is then.
  0 if none does, and a creatinine in the horizon could be compared. Otherwise null, and
  counted: without a creatinine, urine output can show AKI, but not its absence.
Unlabelled: without the step on codes of this admission, which are assigned after its end.
Source: KDIGO Clinical Practice Guideline for Acute Kidney Injury (Kidney Int. Suppl. 2,
  2012), Table 2, with the baselines of the MIMIC Code Repository (concepts/organfailure).
  Left out: a presumed baseline if there is no creatinine (so AKI on arrival is often
  missed), and renal replacement therapy as a criterion.
"""

from __future__ import annotations

from data_pipeline.format.schema import Target
from data_pipeline.sources.mimic_iv import kidneys, tables
from data_pipeline.sources.mimic_iv.cohort import Cohort
from data_pipeline.sources.mimic_iv.tasks.task import Task

HOURS = 24
HORIZON_HOURS = 48
BEFORE_DAYS = 7
END_STAGE_RENAL_DISEASE = ('5856', 'N186')


def _choose(cohort: Cohort) -> None:
  raw = cohort.raw
  cohort.first_stays(HOURS)
  cohort.rows['diagnoses_icd'] = tables.open_icd(raw, cohort.root, 'diagnoses')
  codes = ', '.join(f"'{code}'" for code in END_STAGE_RENAL_DISEASE)
  own = 'false' if cohort.unlabelled else 'a.hadm_id = s.hadm_id'
  raw.run(f"""
    DELETE FROM stays WHERE stay_id IN (
      SELECT s.stay_id FROM stays s
      JOIN admissions a ON a.subject_id = s.subject_id
        AND (a.dischtime <= s.prediction_time OR {own})
      JOIN diagnoses d ON d.hadm_id = a.hadm_id AND d.icd_code IN ({codes}))
  """)
  cohort.step('no end-stage renal disease coded', 'stays')
  hours = 0 if cohort.unlabelled else HORIZON_HOURS
  cohort.rows |= kidneys.measure(
    raw, cohort.root, cohort.scratch, before_days=BEFORE_DAYS, horizon_hours=hours
  )
  raw.run(f"""
    DELETE FROM stays s WHERE NOT EXISTS (
      FROM creatinine c WHERE c.subject_id = s.subject_id
        AND c.charttime >= s.prediction_time - INTERVAL {BEFORE_DAYS} DAYS
        AND c.charttime <= s.prediction_time)
  """)
  cohort.step(f'creatinine in the {BEFORE_DAYS} days before', 'stays')
  raw.run(f"""
    DELETE FROM stays s WHERE EXISTS (
      FROM kidney_injuries k WHERE k.subject_id = s.subject_id
        AND k.charttime >= s.prediction_time - INTERVAL {BEFORE_DAYS} DAYS
        AND k.charttime <= s.prediction_time)
  """)
  cohort.step(f'no AKI in the {BEFORE_DAYS} days before', 'stays')
  if cohort.unlabelled:
    cohort.choose(None)
    return
  within = f"""subject_id = s.subject_id AND charttime > s.prediction_time
    AND charttime <= s.prediction_time + INTERVAL {HORIZON_HOURS} HOURS"""
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE judged_stays AS
    SELECT s.*, CASE WHEN EXISTS (FROM kidney_injuries WHERE {within}) THEN 1
      WHEN EXISTS (FROM creatinine WHERE {within} AND baseline IS NOT NULL) THEN 0
      END AS injury
    FROM stays s
  """)
  cohort.choose('s.injury', may_be_unknown=True, table='judged_stays')
  cohort.count_unknown('no creatinine to compare in the horizon')


TASK = Task(
  name='aki',
  target=Target(
    'binary',
    ('no AKI', 'AKI'),
    description='acute kidney injury of KDIGO stage 1 or higher, by creatinine and, where '
    'the tables have it, urine output',
    horizon=f'within {HORIZON_HOURS} h of the prediction',
  ),
  choose=_choose,
  observation_hours=float(HOURS),
  of_stays=True,
  condition=(
    f'a creatinine of the {HORIZON_HOURS} h after the prediction can be compared with one '
    f'of the {BEFORE_DAYS} days before it, or urine output shows AKI, and no end-stage '
    'renal disease is coded at discharge, which is unknown at the prediction time'
  ),
)
