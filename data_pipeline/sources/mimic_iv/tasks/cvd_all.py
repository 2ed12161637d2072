"""CVD of all ECGs: as `cvd`, with ECGs without an admission as a separate class.

Anchor, prediction time, observation window and horizon: those of `cvd`.
Excluded: as in `cvd`, except for ECGs without an admission within 90 days.
Label: the class of `cvd`, or no admission.
Unlabelled: as in `cvd`.
"""

from __future__ import annotations

from data_pipeline.sources.common import targets
from data_pipeline.sources.mimic_iv.cohort import Cohort
from data_pipeline.sources.mimic_iv.tasks import cvd
from data_pipeline.sources.mimic_iv.tasks.task import Task


def _choose(cohort: Cohort) -> None:
  cvd.choose(cohort)
  if cohort.unlabelled:
    return
  cohort.raw.run(f"""
    INSERT INTO samples BY NAME
    SELECT s.*, CAST({len(targets.CVD.classes)} AS DOUBLE) AS label FROM aged_ecgs s
    WHERE s.sample_id NOT IN (SELECT sample_id FROM admitted_ecgs)
  """)
  cohort.step('with those who are not admitted', 'samples')


TASK = Task(
  name='cvd_all',
  target=targets.CVD_ALL,
  choose=_choose,
  observation_hours=None,
  of_ecgs=True,
)
