"""PhysioNet/CinC Challenge 2012: the first 48 hours of ICU stays, to staging parquet.

`stage` is the source's entry point (docs/design.md, "Sources and staging").
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from pathlib import Path

import pyarrow as pa

from data_pipeline.format.modalities import Events, Grid, Static
from data_pipeline.format.schema import DataError, Schema
from data_pipeline.sources import Resources, Staged, setting
from data_pipeline.sources.common import targets
from data_pipeline.sources.common.duckdb_files import parquet
from data_pipeline.sources.common.items import make_table
from data_pipeline.sources.common.raw_tables import RawTables, in_scratch
from data_pipeline.sources.physionet2012 import observations, outcomes, records
from data_pipeline.sources.physionet2012.variables import (
  event_items,
  grid_items,
  static_items,
  variables,
)

TASKS = tuple(outcomes.COLUMNS)
GRID_STEPS = 96
GRID_STEP_MINUTES = 30
# The files have no dates, so every stay begins on this day.
ADMISSION = '2000-01-01'

_TARGETS = {
  'mortality': targets.MORTALITY,
  # The whole hospital stay, because the files lack the end of the ICU stay.
  'los': dataclasses.replace(
    targets.LOS,
    description='length of the hospital stay',
    horizon='until discharge',
  ),
}


@dataclasses.dataclass(frozen=True)
class Settings:
  """The user's settings for PhysioNet 2012; each field is a flag."""

  physionet2012: Path = setting(
    'Folder with set-a, set-b, set-c (folders, .tar.gz, .tar.xz or .tar) and their '
    'Outcomes-a.txt and so on; or one of the archives, with its outcomes beside it.'
  )

  def __post_init__(self):
    if not self.physionet2012.exists():
      raise DataError(f'--physionet2012={self.physionet2012}: no such folder or file.')


def stage(task: str, staging: Path, settings: Settings, resources: Resources) -> Staged:
  """Writes the staging files of a task.

  Args:
    task: one of `TASKS`.
    staging: an existing or new folder; scratch files are removed again.
    settings: of this source.
    resources: memory and threads.

  Raises:
    DataError: a file is missing, damaged or has the wrong format.
  """
  sets = records.find_sets(settings.physionet2012)
  with in_scratch(staging, resources) as (raw, _):
    observations.read(raw, sets)
    steps, rows = _make_samples(raw, sets, task)
    rows['records'] = observations.resolve(raw)
    rows['static'] = _write_static(raw, staging)
    rows['events'] = _write_events(raw, staging / 'events_events.parquet')
    rows['vitals'] = _write_grid(raw, staging / 'grid_vitals.parquet')
  versions = {'challenge-2012': ', '.join(one.name for one in sets)}
  return Staged(schema(task), {'steps': steps, 'rows': rows}, versions)


def schema(task: str) -> Schema:
  """The schema of a task, which does not depend on the available sets."""
  return Schema(
    task=task,
    source='physionet2012',
    target=_TARGETS[task],
    modalities={
      'static': Static(static_items('numeric'), static_items('categorical')),
      'events': Events(event_items()),
      'vitals': Grid(grid_items(), GRID_STEPS, GRID_STEP_MINUTES / 60),
    },
    attributes=('sex', 'age', 'unit'),
    observation_hours=float(observations.HOURS),
  )


def _make_samples(
  raw: RawTables, sets: list[records.RecordSet], task: str
) -> tuple[list[dict[str, object]], dict[str, dict[str, int]]]:
  """Makes the table `samples` (record, label)."""
  labels: dict[int, float] = {}
  rows: dict[str, dict[str, int]] = {}
  present = {row[0] for row in raw.run('SELECT record FROM records').fetchall()}
  for one in sets:
    found, counts = outcomes.labels(one.outcomes, task)
    counts['dropped: no record of this number'] += len(found.keys() - present)
    again = found.keys() & labels.keys()
    if again:
      raise DataError(
        f'{one.outcomes} has {len(again)} records of an earlier set. Download it again '
        f'from {records.DOWNLOAD}'
      )
    labels |= found
    rows[one.outcomes.name] = _without_zeros(counts)
  stays = sorted(present & labels.keys())
  known = [(record, labels[record]) for record in stays if not math.isnan(labels[record])]
  make_table(raw.con, 'samples', {'record': pa.int64(), 'label': pa.float64()}, known)
  step = lambda name, n: {'step': name, 'samples': n, 'subjects': n}
  wanted = {'mortality': 'in-hospital death', 'los': 'length of stay'}[task]
  return [
    step('records', len(present)),
    step('with a row of outcomes', len(stays)),
    step(f'{wanted} known', len(known)),
  ], rows


def _write_static(raw: RawTables, staging: Path) -> dict[str, int]:
  """Writes `samples.parquet` and `static.parquet`; missing values by column."""
  columns = []
  for index, one in enumerate(variables()):
    if one.role == 'event':
      continue
    names = ', '.join(f"'{name}'" for name in one.item.categories)
    value = f'[{names}][category + 1]' if one.codes else 'value'
    columns.append(f'any_value({value}) FILTER (variable = {index}) AS "{one.item.itemid}"')
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE static AS
    SELECT s.record AS sample_id, {', '.join(columns)}
    FROM samples s LEFT JOIN observations o
      ON o.record = s.record AND o.static AND o.reason IS NULL
    GROUP BY s.record
  """)
  items = (*static_items('numeric'), *static_items('categorical'))
  names = [item.itemid for item in items]
  raw.copy(
    f'SELECT sample_id, {", ".join(names)} FROM static ORDER BY sample_id',
    staging / 'static.parquet',
  )
  raw.copy(
    f"""
    SELECT record AS sample_id, record AS subject_id,
      TIMESTAMP '{ADMISSION}' + INTERVAL {observations.HOURS} HOUR AS prediction_time,
      label, Gender AS sex, Age AS age, ICUType AS unit
    FROM samples JOIN static ON sample_id = record ORDER BY record
    """,
    staging / 'samples.parquet',
  )
  missing = {
    f'missing: {name}': raw.value(f'SELECT count(*) FROM static WHERE {name} IS NULL')
    for name in names
  }
  written = {'written to static': raw.value('SELECT count(*) FROM static')}
  return _without_zeros(missing) | written


def _write_events(raw: RawTables, output: Path) -> dict[str, int]:
  _make_index(raw, 'event_index', [item.itemid for item in event_items()])
  raw.copy(
    f"""
    SELECT record AS sample_id, i.position AS item,
      CAST(coalesce(value, 'nan'::DOUBLE) AS FLOAT) AS value,
      CAST(if(value IS NULL, category, -1) AS INTEGER) AS category,
      CAST(minute / 60.0 - {observations.HOURS} AS FLOAT) AS time
    FROM observations JOIN event_index i USING (variable)
    WHERE reason IS NULL AND NOT static
    """,
    output,
  )
  return {'written to events': raw.value(f'SELECT count(*) FROM {parquet(output)}')}


def _write_grid(raw: RawTables, output: Path) -> dict[str, int]:
  """Writes the mean observation of each cell; one at 48:00 belongs to the last cell."""
  _make_index(raw, 'signal_index', [item.itemid for item in grid_items()])
  observed = """
    FROM observations JOIN signal_index i USING (variable)
    WHERE reason IS NULL AND NOT static
  """
  # Ordered, so that the mean does not depend on the number of threads.
  raw.copy(
    f"""
    SELECT record AS sample_id,
      CAST(least(minute // {GRID_STEP_MINUTES}, {GRID_STEPS - 1}) AS INTEGER) AS step,
      i.position AS signal,
      CAST(list_avg(list(value ORDER BY value)) AS FLOAT) AS value
    {observed} GROUP BY ALL
    """,
    output,
  )
  return {
    'observations averaged': raw.value(f'SELECT count(*) {observed}'),
    'written to vitals': raw.value(f'SELECT count(*) FROM {parquet(output)}'),
  }


def _make_index(raw: RawTables, table: str, names: list[str]) -> None:
  """A table (variable, position) of the variables of a modality."""
  every = [one.item.itemid for one in variables()]
  rows = [(every.index(name), position) for position, name in enumerate(names)]
  make_table(raw.con, table, {'variable': pa.int32(), 'position': pa.int32()}, rows)


def _without_zeros(counts: dict[str, int] | Counter[str]) -> dict[str, int]:
  return {reason: n for reason, n in counts.items() if n}
