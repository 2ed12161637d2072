"""What a task on MIMIC-IV states."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from data_pipeline.format.schema import Target
from data_pipeline.sources.mimic_iv.cohort import Cohort


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """A prediction task: one file of this folder.

  Attributes:
    name: of the flag --task.
    target: what the label means.
    choose: makes the table `samples` of `cohort.py`, step by step.
    observation_hours: length of the window before the prediction time, which starts at
      the sample's `start_time`; None: it has no fixed length, and there is no grid of
      vital signs.
    of_ecgs: the samples are recordings of outpatients and inpatients alike: their whole
      history is read, but no charting of ICU stays.
    of_stays: the samples are ICU stays: `sample_id` is the stay_id.
    condition: as in the schema: what the choice of the samples tells of the time after the
      prediction. Not of unlabelled samples, which are chosen without it.
  """

  name: str
  target: Target
  choose: Callable[[Cohort], None]
  observation_hours: float | None
  of_ecgs: bool = False
  of_stays: bool = False
  condition: str = ''
