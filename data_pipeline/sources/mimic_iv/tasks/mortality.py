"""Mortality: death in hospital, predicted after the first day in the ICU (MedM2T, Task 2).

Anchor: the first ICU stay of each subject, at least 24 h long.
Prediction time: 24 h after its start.
Observation window: these 24 h.
Horizon: until discharge from hospital.
Excluded: patients who are dead or discharged from hospital by the prediction time; stays
  without patient, admission or label.
Label: `hospital_expire_flag` of the admission.
Unlabelled: ongoing stays are samples too.
"""

from __future__ import annotations

from data_pipeline.sources.common import targets
from data_pipeline.sources.mimic_iv.cohort import Cohort
from data_pipeline.sources.mimic_iv.tasks.task import Task

HOURS = 24


def _choose(cohort: Cohort) -> None:
  cohort.first_stays(HOURS)
  flag = 'CASE WHEN a.hospital_expire_flag IN (0, 1) THEN a.hospital_expire_flag END'
  cohort.choose(None if cohort.unlabelled else flag)


TASK = Task(
  name='mortality',
  target=targets.MORTALITY,
  choose=_choose,
  observation_hours=float(HOURS),
  of_stays=True,
)
