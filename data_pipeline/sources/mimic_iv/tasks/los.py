"""Length of stay: days in the ICU, predicted after the first (MedM2T, Task 3).

Anchor, prediction time, observation window and exclusions: those of `mortality`.
Label: days from the start to the end of the ICU stay, including the first 24 h.
Unlabelled: ongoing stays are samples too.
"""

from __future__ import annotations

from data_pipeline.sources.common import targets
from data_pipeline.sources.mimic_iv.cohort import Cohort
from data_pipeline.sources.mimic_iv.tasks.mortality import HOURS
from data_pipeline.sources.mimic_iv.tasks.task import Task


def _choose(cohort: Cohort) -> None:
  cohort.first_stays(HOURS)
  days = "date_diff('second', s.intime, s.outtime) / 86400.0"
  cohort.choose(None if cohort.unlabelled else days)


TASK = Task(
  name='los',
  target=targets.LOS,
  choose=_choose,
  observation_hours=float(HOURS),
  of_stays=True,
)
