"""A simulated hospital in MIMIC's raw layout (docs/simulated_hospital.md)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from data_pipeline.format.schema import DataError
from data_pipeline.sources import Resources, Staged, existing, mimic_iv, setting
from data_pipeline.sources.mimic_iv import extras
from data_pipeline.sources.mimic_iv.tasks import find
from data_pipeline.sources.simulated.hospital import planted_effects, write_hospital

__all__ = ['TASKS', 'Settings', 'planted_effects', 'stage', 'write_hospital']

TASKS = mimic_iv.TASKS


@dataclasses.dataclass(frozen=True)
class Settings:
  """The user's settings for the simulated hospital; each field is a flag."""

  patients: int = setting('Number of simulated patients.', default=2000)
  seed: int = setting('Seed of the simulated hospital.', default=0)
  hospital: Literal['a', 'b'] = setting(
    'a, or b: another hospital, with different units, sampling, people and prevalence.',
    default='a',
    recorded='unless default',
  )
  ecgs: bool = setting(
    'Whether the hospital records ECGs; tasks cvd and cvd_all need them.',
    default=True,
    recorded='unless default',
  )
  raw: Path | None = setting(
    'Folder to keep the simulated raw files; by default they are deleted at the end.',
    default=None,
    recorded=False,
  )
  availability: Literal['charttime', 'storetime'] = setting(
    'Time from which an event is known: charttime or storetime.', default='charttime'
  )
  static: Literal['core', 'extended'] = setting(
    'Static columns: core or extended (cvd only).', default='core'
  )
  notes: Path | None = setting('As of mimic_iv.', default=None)
  extra: str | None = setting('As of mimic_iv.', default=None)
  unlabelled: bool = setting('As of mimic_iv.', default=False)

  def __post_init__(self):
    if self.notes is not None:
      existing('notes', self.notes, 'file')
    object.__setattr__(self, 'extra', extras.named(self.extra))


def stage(task: str, staging: Path, settings: Settings, resources: Resources) -> Staged:
  """Simulates the hospital and stages it with the code that reads MIMIC-IV.

  Raises:
    DataError: a number is out of range, `raw` holds other files, or the task needs ECGs
      that are left out.
  """
  if find(task).of_ecgs and not settings.ecgs:
    raise DataError(f'task {task} predicts from ECGs; leave out --noecgs')
  extras.check_task(settings.extra, find(task))
  raw = settings.raw or staging / 'raw'
  write_hospital(
    raw,
    patients=settings.patients,
    seed=settings.seed,
    hospital=settings.hospital,
    ecg=settings.ecgs,
  )
  staged = mimic_iv.stage(
    task,
    staging,
    mimic_iv.Settings(
      mimic_iv=raw / 'mimic-iv',
      mimic_iv_ecg=raw / 'mimic-iv-ecg' if settings.ecgs else None,
      availability=settings.availability,
      static=settings.static,
      notes=settings.notes,
      extra=settings.extra,
      unlabelled=settings.unlabelled,
    ),
    resources,
  )
  schema = dataclasses.replace(staged.schema, source='simulated')
  return dataclasses.replace(staged, schema=schema)
