"""MEDS 0.4 data sets with MEDS labels: parquet shards to staging parquet.

A mapping file says which codes become which variables (docs/sources.md, "MEDS").
`stage` is the source's entry point (docs/design.md, "Sources and staging").
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pyarrow as pa

from data_pipeline.ecg.report_terms import terms
from data_pipeline.format import modalities
from data_pipeline.format.schema import DataError, Item, Schema
from data_pipeline.sources import Resources, Staged, existing, setting
from data_pipeline.sources.common import notes, vitals
from data_pipeline.sources.common.duckdb_files import parquet
from data_pipeline.sources.common.items import items, make_table
from data_pipeline.sources.common.raw_tables import RawTables, in_scratch
from data_pipeline.sources.meds import (
  codes,
  ecg_table,
  files,
  mapping,
  rows,
  static,
)
from data_pipeline.sources.meds.labelling import labels
from data_pipeline.sources.meds.labelling.label_files import LabelFiles, label_files
from data_pipeline.sources.meds.labelling.tasks import Task, task_of
from data_pipeline.sources.meds.variables import Events, Mapping, Variable

TASKS = None  # any task: the labels define it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """The user's settings for a MEDS data set; each field is a flag."""

  meds: Path = setting('Folder of the MEDS data set, with data/ and metadata/.')
  labels: str | LabelFiles | None = setting(
    'MEDS labels: a parquet file, a folder of them, or several, one per label, separated '
    'by commas. Replaces the labels of --task_file.',
    default=None,
  )
  mapping: str = setting(
    'YAML file that maps codes to variables, or a shipped one: mimic_iv, physionet2012.'
  )
  task_file: Path | None = setting(
    'YAML file that describes the task (docs/your_own_task.md).', default=None
  )
  ecg: Path | None = setting(
    'Table of the ECGs beside the data set, parquet or csv: docs/sources.md has its '
    'columns. Without it there are no ECGs.',
    default=None,
  )
  notes: Path | None = setting(
    'Parquet file of notes as vectors of a text model: subject_id (or sample_id), '
    'time, vector.',
    default=None,
  )
  unlabelled: bool = setting(
    'Whether --labels only has subjects and prediction times, to be predicted.',
    default=False,
  )

  def __post_init__(self):
    existing('meds', self.meds)
    if self.ecg is not None:
      existing('ecg', self.ecg, 'file')
    if self.notes is not None:
      existing('notes', self.notes, 'file')
    if self.task_file is not None:
      existing('task_file', self.task_file, 'file')
    found = self.labels
    if found is None:
      found = self.task().labels if self.task_file else None
      if found is None:
        raise DataError('--labels is missing: give a parquet file of MEDS labels.')
    elif not isinstance(found, LabelFiles):
      found = label_files(str(found), Path())
    object.__setattr__(self, 'labels', found)
    path = mapping.path_of(self.mapping)
    if self.mapping not in mapping.shipped():
      object.__setattr__(self, 'mapping', str(path.resolve()))

  def task(self, name: str | None = None) -> Task:
    """The task `--task`, as described by `--task_file`.

    Raises:
      DataError: the name is invalid, missing or different from the file's, or the file is
        invalid.
    """
    files.meds_package()
    return task_of(name, self.task_file)

  def task_name(self, name: str | None) -> str:
    """The name of the task, from `--task` or the task file; raises as `task`."""
    return self.task(name).name


def stage(task: str, staging: Path, settings: Settings, resources: Resources) -> Staged:
  """Writes the staging files of a task.

  Args:
    task: its name.
    staging: an existing or new folder; scratch files are removed again.
    settings: of this source.
    resources: memory and threads.

  Raises:
    DataError: a file is missing, damaged or not MEDS, the mapping is wrong, a label
      does not fit the task, or the cohort is empty.
  """
  path = mapping.path_of(settings.mapping)
  files.meds_package()
  chosen = mapping.load(path)
  with (
    in_scratch(staging, resources) as (raw, scratch),
    files.naming_damaged_data(raw, settings.meds),
  ):
    staged = _stage(raw, task, staging, scratch, settings, chosen)
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  return dataclasses.replace(
    staged, versions=staged.versions | {'mapping': f'{path.name} {digest[:12]}'}
  )


def _stage(
  raw: RawTables,
  task: str,
  staging: Path,
  scratch: Path,
  settings: Settings,
  chosen: Mapping,
) -> Staged:
  file = settings.notes and notes.checked(raw, settings.notes, stays=False)
  unreadable = settings.ecg and ecg_table.open_table(raw, settings.ecg)
  versions = files.open_metadata(raw, settings.meds)
  counts = {'data': files.open_data(raw, settings.meds, chosen.unit_column)}
  assert isinstance(settings.labels, LabelFiles)
  labelled = labels.make_samples(
    raw,
    settings.labels,
    settings.task(task),
    chosen.observation_hours,
    unlabelled=settings.unlabelled,
  )
  rows.make_windows(raw)
  distinct = [
    row[0]
    for row in raw.run(
      'SELECT DISTINCT code FROM data WHERE code IS NOT NULL ORDER BY code'
    ).fetchall()
  ]
  variables = {
    name: _event_variables(raw, name, of, distinct) for name, of in chosen.events.items()
  } | {name: grid.variables for name, grid in chosen.grids.items()}
  read = {name: codes.readings(name, of, distinct) for name, of in variables.items()}
  charted = {
    name: _charted_codes(of, distinct) for name, of in chosen.events.items() if of.charted
  }
  _check_found(settings, {name: read[name] or charted.get(name) for name in read})

  scanned = scratch / 'scanned.parquet'
  wanted = {one.code for of in read.values() for one in of}
  wanted.update(code for of in charted.values() for code in of)
  counts['data'] |= rows.scan(raw, sorted(wanted), history=False, output=scanned)
  outputs = []
  for name in variables:
    output = staging / f'{"grid" if name in chosen.grids else "events"}_{name}.parquet'
    outputs.append(output)
    if name in charted:
      counts[name] = _write_charted(raw, charted[name], scanned, scratch, output)
      continue
    resolved = scratch / f'resolved_{name}.parquet'
    counts[name] = rows.resolve(variables[name], read[name], scanned, resolved)
    if name in chosen.grids:
      grid = chosen.grids[name]
      counts[name] |= rows.write_grid(raw, resolved, grid.steps, grid.step_hours, output)
    else:
      counts[name] |= rows.write_events(raw, resolved, output)
  report: dict[str, object] = {}
  if unreadable is not None:
    counts['ecg_table'], report['unmatched_report_lines'] = ecg_table.write_recordings(
      raw, unreadable, scratch, staging / 'recordings.parquet', task
    )
    outputs.append(staging / 'recordings.parquet')
  counts['static'] = static.write_static(raw, chosen, distinct, scratch, staging)

  found = _modalities(chosen, variables)
  if settings.ecg is not None:
    _require_free(settings, found, 'ecg', '--ecg')
    found['ecg'] = modalities.Waveform(terms())
  if file is not None:
    _require_free(settings, found, notes.NAME, '--notes')
    found[notes.NAME], counts[notes.NAME] = notes.write_notes(
      raw, file, staging / f'notes_{notes.NAME}.parquet',
      observation_hours=chosen.observation_hours,
    )  # fmt: skip
    outputs.append(staging / f'notes_{notes.NAME}.parquet')
  labels.count_without_events(raw, outputs, labelled)
  counts |= labelled.counts
  schema = Schema(
    task=task,
    source='meds',
    target=labelled.target,
    modalities=found,
    attributes=static.attribute_names(chosen),
    observation_hours=chosen.observation_hours,
  )
  cohort = {'steps': labelled.steps, 'rows': counts, 'notes': labelled.notes, **report}
  return Staged(schema, cohort, versions)


def _modalities(
  chosen: Mapping, variables: dict[str, tuple[Variable, ...]]
) -> dict[str, modalities.Modality]:
  """Modalities by name, in the order in which models read them: static, events, grids."""
  numeric, categorical = static.static_columns(chosen)
  found: dict[str, modalities.Modality] = {}
  if numeric or categorical:
    found['static'] = modalities.Static(numeric, categorical)
  for name, of in chosen.events.items():
    charted = items('vitals_categorical')
    found[name] = modalities.Events(charted if of.charted else _items(variables[name]))
  for name, grid in chosen.grids.items():
    found[name] = modalities.Grid(_items(grid.variables), grid.steps, grid.step_hours)
  return found


def _require_free(
  settings: Settings, found: dict[str, modalities.Modality], name: str, flag: str
) -> None:
  """Raises DataError if the mapping has a modality with the name of a flag."""
  if name in found:
    raise DataError(
      f'--mapping={settings.mapping} has a modality {name}, a name that is reserved for '
      f'{flag}. Rename it.'
    )


def _items(variables: tuple[Variable, ...]) -> tuple[Item, ...]:
  return tuple(one.item for one in variables)


def _event_variables(
  raw: RawTables, name: str, events: Events, distinct: list[str]
) -> tuple[Variable, ...]:
  """Listed items, followed by those found in the data."""
  if events.automatic is None:
    return events.variables
  taken = {one.code for one in codes.readings(name, events.variables, distinct)}
  found = codes.automatic_variables(raw, events.automatic, taken, distinct)
  return (*events.variables, *found)


def _check_found(settings: Settings, read: dict[str, object]) -> None:
  for name, of in read.items():
    if not of:
      raise DataError(
        f'--mapping={settings.mapping}: no code of {settings.meds} belongs to {name}. '
        'Compare the codes of the mapping with metadata/codes.parquet, or remove the '
        'modality.'
      )


def _charted_codes(events: Events, distinct: list[str]) -> dict[str, int]:
  """Code -> itemid of MIMIC-IV's heart rhythm and ectopy."""
  found = {}
  for code in distinct:
    hit = codes.match(events.charted, code)
    if hit and int(hit[1]['itemid']) in vitals.CATEGORICAL_ITEMIDS:
      found[code] = int(hit[1]['itemid'])
  return found


def _write_charted(
  raw: RawTables, itemids: dict[str, int], scanned: Path, scratch: Path, output: Path
) -> dict[str, int]:
  """Writes rhythm and ectopy with the code for MIMIC-IV's chartevents."""
  make_table(
    raw.con,
    'charted_codes',
    {'code': pa.string(), 'itemid': pa.int32()},
    list(itemids.items()),
  )
  path = scratch / 'charted.parquet'
  raw.copy(
    f"""
    SELECT subject_id, itemid, time AS charttime, CAST(NULL AS TIMESTAMP) AS storetime,
      text AS value, number, kept
    FROM {parquet(scanned)} JOIN charted_codes USING (code)
    """,
    path,
  )
  return vitals.write_categorical(raw, path, 'charttime', output)
