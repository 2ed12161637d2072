"""The definition of a task on MIMIC-IV."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from data_pipeline.format.schema import Target
from data_pipeline.sources.mimic_iv.cohort import Cohort


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """A prediction task: one file of this folder.

  Attributes:
    name: value of the flag --task.
    target: what the label means.
    choose: makes the table `samples` of `cohort.py`, step by step.
    observation_hours: length of the observation window, which starts at the sample's
      `start_time`; None: it has no fixed length, and there is no grid of vital signs.
    of_ecgs: whether the samples are recordings of outpatients and inpatients: their whole
      history is read, but no charting of ICU stays.
    of_stays: whether the samples are ICU stays: `sample_id` is the stay_id.
    condition: as in the schema: a fact about the time after the prediction that the
      selection of the samples implies. Not for unlabelled samples, which are selected
      without it.
  """

  name: str
  target: Target
  choose: Callable[[Cohort], None]
  observation_hours: float | None
  of_ecgs: bool = False
  of_stays: bool = False
  condition: str = ''
