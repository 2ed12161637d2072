"""The tasks on MIMIC-IV: one file each (docs/tasks.md)."""

from __future__ import annotations

from data_pipeline.sources.mimic_iv.tasks import (
  aki,
  cvd,
  cvd_all,
  decompensation,
  los,
  mortality,
  phenotypes,
  readmission,
)
from data_pipeline.sources.mimic_iv.tasks.task import Task

TASKS: tuple[Task, ...] = (
  cvd.TASK,
  cvd_all.TASK,
  mortality.TASK,
  los.TASK,
  readmission.TASK,
  aki.TASK,
  phenotypes.TASK,
  decompensation.TASK,
)


def find(name: str) -> Task:
  """The task of that name, one of `TASKS`."""
  [found] = [task for task in TASKS if task.name == name]
  return found
