"""MIMIC-IV 2.2 and 3.1 with MIMIC-IV-ECG 1.0: raw tables to staging parquet.

`stage` is the source's entry point (docs/design.md, "Sources and staging").
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Literal

from data_pipeline.ecg.report_terms import terms
from data_pipeline.format.modalities import Events, Grid, Modality, Static, Waveform
from data_pipeline.format.schema import DataError, Schema
from data_pipeline.sources import Resources, Staged, existing, setting
from data_pipeline.sources.common import notes, vitals
from data_pipeline.sources.common.items import items, read_rows
from data_pipeline.sources.common.raw_tables import RawTables, in_scratch
from data_pipeline.sources.mimic_iv import (
  drugs,
  events,
  extras,
  recordings,
  static,
  tables,
  tasks,
)
from data_pipeline.sources.mimic_iv.cohort import Cohort
from data_pipeline.sources.mimic_iv.tasks.task import Task

TASKS = tuple(task.name for task in tasks.TASKS)
_ATTRIBUTES = ('sex', 'age', 'race', 'insurance', 'admission_type', 'unit', 'year_group')


@dataclasses.dataclass(frozen=True)
class Settings:
  """The user's settings for MIMIC-IV; each field is a flag."""

  mimic_iv: Path = setting('Folder of MIMIC-IV, with hosp/ and icu/.')
  mimic_iv_ecg: Path | None = setting(
    'Folder of MIMIC-IV-ECG. Without it there are no ECGs; task cvd needs it.', default=None
  )
  availability: Literal['charttime', 'storetime'] = setting(
    'Time from which an event is known: charttime or storetime.', default='charttime'
  )
  static: Literal['core', 'extended'] = setting(
    'Static columns: core or extended (cvd only).', default='core'
  )
  drug_groups: Path | None = setting(
    'CSV file (columns group, name, unless) that adds to the shipped table of drug names.',
    default=None,
  )
  notes: Path | None = setting(
    'Parquet file of notes as vectors of a text model: sample_id (or stay_id, subject_id), '
    'time, vector.',
    default=None,
  )
  extra: str | None = setting(
    'Further modalities for tasks on ICU stays: medications, urine_output, ventilation, '
    'separated by commas.',
    default=None,
  )
  unlabelled: bool = setting(
    'Samples without labels, to be predicted: selected only by what is known at the '
    'prediction time.',
    default=False,
  )

  def __post_init__(self):
    existing('mimic_iv', self.mimic_iv)
    if self.mimic_iv_ecg is not None:
      existing('mimic_iv_ecg', self.mimic_iv_ecg)
    if self.notes is not None:
      existing('notes', self.notes, 'file')
    object.__setattr__(self, 'extra', extras.named(self.extra))
    if self.drug_groups is not None:
      existing('drug_groups', self.drug_groups, 'file')
      if self.static != 'extended':
        raise DataError('--drug_groups: only --static=extended has drug columns.')


def stage(task: str, staging: Path, settings: Settings, resources: Resources) -> Staged:
  """Writes the staging files of a task.

  Args:
    task: one of `TASKS`.
    staging: an existing or new folder; scratch files are removed again.
    settings: of this source.
    resources: memory and threads.

  Raises:
    DataError: a table or column is missing or damaged, or the cohort is empty.
  """
  chosen = tasks.find(task)
  if chosen.of_ecgs and settings.mimic_iv_ecg is None:
    raise DataError(f'task {task} predicts from ECGs; give --mimic_iv_ecg=DIR')
  extras.check_task(settings.extra, chosen)
  extras.check_tables(settings.extra, settings.mimic_iv)
  drugs.rules(settings.drug_groups)  # finds a bad file before hours of work
  with in_scratch(staging, resources) as (raw, scratch):
    return _stage(raw, chosen, staging, scratch, settings)


def _stage(
  raw: RawTables, task: Task, staging: Path, scratch: Path, settings: Settings
) -> Staged:
  root, ecg_root = settings.mimic_iv, settings.mimic_iv_ecg
  file = settings.notes and notes.checked(raw, settings.notes, stays=task.of_stays)
  rows = tables.open_patients_and_admissions(raw, root)
  if ecg_root is not None:
    rows['record_list'] = recordings.open_recordings(raw, ecg_root, deciding=task.of_ecgs)
  cohort = Cohort(raw, root, scratch, unlabelled=settings.unlabelled)
  task.choose(cohort)
  cohort.check(task.name)
  _merge(rows, cohort.rows)
  events.make_windows(raw)
  _merge(rows, _write_measurements(raw, task, staging, scratch, settings))

  report: dict[str, object] = {}
  if ecg_root is not None:
    found, unmatched = recordings.write_recordings(
      raw, ecg_root, scratch, staging / 'recordings.parquet'
    )
    _merge(rows, found)
    report['unmatched_report_lines'] = unmatched

  _merge(rows, static.write_static(
    raw, root, task, settings.static, drugs.rules(settings.drug_groups),
    staging / 'static.parquet',
  ))  # fmt: skip
  modalities = _modalities(task, settings)
  more, counts = extras.write(
    raw, root, settings.extra, settings.availability, scratch, staging
  )
  modalities |= more
  _merge(rows, counts)
  if absent := extras.check_tables(settings.extra, root):
    report['notes'] = absent
  if file is not None:
    modalities[notes.NAME], rows[notes.NAME] = notes.write_notes(
      raw, file, staging / f'notes_{notes.NAME}.parquet',
      observation_hours=task.observation_hours,
    )  # fmt: skip
  attributes = tuple(n for n in _ATTRIBUTES if not task.of_ecgs or n != 'unit')
  static.write_samples(raw, attributes, staging / 'samples.parquet')
  schema = Schema(
    task=task.name,
    source='mimic_iv',
    target=task.target,
    modalities=modalities,
    attributes=attributes,
    observation_hours=task.observation_hours,
    condition='' if settings.unlabelled else task.condition,
  )
  return Staged(schema, {'steps': cohort.steps, 'rows': rows, **report}, _versions(
    raw, root, ecg_root
  ))  # fmt: skip


def _write_measurements(
  raw: RawTables, task: Task, staging: Path, scratch: Path, settings: Settings
) -> dict[str, dict[str, int]]:
  """Writes laboratory results and, except for tasks of ECGs, the charting of ICU stays."""
  labs, known = _labs(task), settings.availability
  sources = ['labevents'] if task.of_ecgs else ['labevents', 'chartevents']
  itemids = {table: _itemids(table, task) for table in sources}
  if not task.of_ecgs:
    more = extras.chart_itemids(settings.extra)
    itemids['chartevents'] = sorted({*itemids['chartevents'], *more})
  rows = events.scan_all(
    raw, settings.mimic_iv, itemids, known, scratch,
    words=extras.chart_itemids(settings.extra, words=True),
  )  # fmt: skip
  _merge(rows, events.resolve(raw, sources, labs, scratch))
  rows['labs'] = events.write_events(
    raw, 'labs', scratch / f'resolved_{labs}.parquet', known,
    staging / 'events_labs.parquet',
  )  # fmt: skip
  if not task.of_ecgs:
    if task.observation_hours is not None:
      _merge(rows, events.resolve(raw, ['chartevents'], 'vitals', scratch))
      rows['vitals'] = vitals.write_grid(
        raw, scratch / 'resolved_vitals.parquet', known, task.observation_hours,
        staging / 'grid_vitals.parquet',
      )  # fmt: skip
    rows['vitals_categorical'] = vitals.write_categorical(
      raw, scratch / 'chartevents.parquet', known,
      staging / 'events_vitals_categorical.parquet',
    )  # fmt: skip
  return rows


def _modalities(task: Task, settings: Settings) -> dict[str, Modality]:
  """All modalities except extras and notes, whose width depends on a file."""
  found: dict[str, Modality] = {
    'static': Static(*static.columns(task, settings.static)),
    'labs': Events(items(_labs(task))),
  }
  if not task.of_ecgs:
    found['vitals_categorical'] = Events(items('vitals_categorical'))
    if task.observation_hours is not None:
      steps = vitals.grid_steps(task.observation_hours)
      found['vitals'] = Grid(items('vitals'), steps, vitals.GRID_STEP_HOURS)
  if settings.mimic_iv_ecg is not None:
    found['ecg'] = Waveform(terms())
  return found


def _labs(task: Task) -> str:
  return 'cvd_labs' if task.of_ecgs else 'labs'


def _itemids(table: str, task: Task) -> list[int]:
  modalities = [_labs(task)]
  if not task.of_ecgs and task.observation_hours is not None:
    modalities.append('vitals')
  itemids = {
    int(row['itemid'])
    for row in read_rows('item_map')
    if row['table'] == table and row['modality'] in modalities
  }
  return sorted(itemids | set(vitals.CATEGORICAL_ITEMIDS if table == 'chartevents' else ()))


def _merge(rows: dict[str, dict[str, int]], more: dict[str, dict[str, int]]) -> None:
  for table, counts in more.items():
    of = rows.setdefault(table, {})
    for reason, n in counts.items():
      of[reason] = of.get(reason, 0) + n


def _versions(raw: RawTables, root: Path, ecg_root: Path | None) -> dict[str, str]:
  """Release of each raw folder, from its name or from content that only 3.x has."""
  later = raw.value("SELECT count(*) FROM patients WHERE anchor_year_group LIKE '2020%'")
  versions = {'mimic-iv': _named_version(root) or ('3.x' if later else '2.x')}
  if ecg_root is not None:
    versions['mimic-iv-ecg'] = _named_version(ecg_root) or 'unknown'
  return versions


def _named_version(root: Path) -> str | None:
  match = re.search(r'(?:^|-)(\d+\.\d+)$', root.resolve().name)
  return match[1] if match else None
