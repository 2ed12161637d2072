"""MEDS 0.4 data sets with MEDS labels: parquet shards to staging parquet.

A mapping file says which codes become which variables (docs/sources.md, "MEDS").
`stage` is the source's one entry (docs/design.md, "Sources and staging").
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pyarrow as pa

from data_pipeline.ecg.report_terms import terms
from data_pipeline.format.schema import DataError, Grid, Item, Schema
from data_pipeline.sources import Resources, Staged, existing, setting
from data_pipeline.sources.common import vitals
from data_pipeline.sources.common.duckdb_files import parquet
from data_pipeline.sources.common.items import items, make_table
from data_pipeline.sources.common.raw_tables import RawTables, in_scratch
from data_pipeline.sources.meds import (
  codes,
  ecg_table,
  files,
  labels,
  mapping,
  rows,
  static,
)
from data_pipeline.sources.meds.variables import Events, Mapping, Variable

TASKS = tuple(labels.TARGETS)


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a user may choose about a MEDS data set; each field is a flag."""

  meds: Path = setting('Folder of the MEDS data set, with data/ and metadata/.')
  labels: Path = setting('MEDS labels: a parquet file, or a folder of them.')
  mapping: str = setting(
    'YAML file that maps codes to variables, or a shipped one: mimic_iv.'
  )
  ecg: Path | None = setting(
    'Table of the ECGs beside the data set, parquet or csv: docs/sources.md has its '
    'columns. Without it there are no ECGs.',
    default=None,
  )
  unlabelled: bool = setting(
    'Whether --labels has only subjects and prediction times, to be predicted.',
    default=False,
  )

  def __post_init__(self):
    existing('meds', self.meds)
    existing('labels', self.labels, 'folder' if self.labels.is_dir() else 'file')
    if self.ecg is not None:
      existing('ecg', self.ecg, 'file')
    path = mapping.path_of(self.mapping)
    if self.mapping not in mapping.shipped():
      object.__setattr__(self, 'mapping', str(path.resolve()))


def stage(task: str, staging: Path, settings: Settings, resources: Resources) -> Staged:
  """Writes the staging files of a task.

  Args:
    task: one of `TASKS`.
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
  versions = files.open_metadata(raw, settings.meds)
  counts = {'data': files.open_data(raw, settings.meds, chosen.unit_column)}
  steps, counts['labels'] = labels.make_samples(
    raw,
    settings.labels,
    task,
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
  for name in variables:
    output = staging / f'{"grid" if name in chosen.grids else "events"}_{name}.parquet'
    if name in charted:
      counts[name] = _write_charted(raw, charted[name], scanned, scratch, output)
      continue
    resolved = scratch / f'resolved_{name}.parquet'
    counts[name] = rows.resolve(raw, variables[name], read[name], scanned, resolved)
    if name in chosen.grids:
      grid = chosen.grids[name]
      counts[name] |= rows.write_grid(raw, resolved, grid.steps, grid.step_hours, output)
    else:
      counts[name] |= rows.write_events(raw, resolved, output)
  report: dict[str, object] = {}
  if settings.ecg is not None:
    counts['ecg_table'], report['unmatched_report_lines'] = ecg_table.write_recordings(
      raw, settings.ecg, scratch, staging / 'recordings.parquet', task
    )
  counts['static'] = static.write_static(raw, chosen, distinct, scratch, staging)

  numeric, categorical = static.static_columns(chosen)
  schema = Schema(
    task=task,
    source='meds',
    target=labels.TARGETS[task],
    events={
      name: items('vitals_categorical') if of.charted else _items(variables[name])
      for name, of in chosen.events.items()
    },
    grids={
      name: Grid(_items(grid.variables), grid.steps, grid.step_hours)
      for name, grid in chosen.grids.items()
    },
    ecg_terms=terms() if settings.ecg is not None else (),
    static_numeric=numeric,
    static_categorical=categorical,
    attributes=static.attribute_names(chosen),
    observation_hours=chosen.observation_hours,
  )
  return Staged(schema, {'steps': steps, 'rows': counts, **report}, versions)


def _items(variables: tuple[Variable, ...]) -> tuple[Item, ...]:
  return tuple(one.item for one in variables)


def _event_variables(
  raw: RawTables, name: str, events: Events, distinct: list[str]
) -> tuple[Variable, ...]:
  """Listed items, then those that are found in the data."""
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
        'Compare the codes of the mapping with metadata/codes.parquet, or leave the '
        'modality out.'
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
  """Rhythm and ectopy by the code that reads chartevents, of which these rows are."""
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
