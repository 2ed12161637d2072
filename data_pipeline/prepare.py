"""The command that turns raw tables into a prepared data set.

  python -m data_pipeline.prepare --source=mimic_iv --mimic_iv=DIR \\
      --mimic_iv_ecg=DIR --task=cvd --out=DIR
  python -m data_pipeline.prepare --source=simulated --patients=2000 --task=los --out=DIR

Interrupted at any point, the same command continues and ends with the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import duckdb
import pyarrow.parquet as pq
from absl import app, flags

from data_pipeline import folds, publish, shards, staging
from data_pipeline.schema import DataError, Schema, write_json
from data_pipeline.sources import Options, Staged, simulated
from data_pipeline.sources import mimic_iv as mimic_iv_source

SOURCES = ('mimic_iv', 'simulated')
TASKS = ('cvd', 'mortality', 'los')

_STAGING = '.staging'
_STAGED = 'staged.json'
_SAMPLES_PER_SHARD = 1024
# What a recording and its share of a second cost, for the estimate only.
_RECORDING_BYTES = 30_500
_EVENT_BYTES = 16
_RECORDINGS_PER_SECOND = 200
_EVENTS_PER_SECOND = 500_000


def prepare(
  *,
  source: str,
  task: str,
  out: Path | str,
  mimic_iv: Path | str | None = None,
  mimic_iv_ecg: Path | str | None = None,
  availability: Literal['charttime', 'storetime'] = 'charttime',
  static: Literal['core', 'extended'] = 'core',
  memory_limit: str = '4GB',
  workers: int | None = None,
  patients: int = 2000,
  seed: int = 0,
  raw: Path | str | None = None,
  samples_per_shard: int = _SAMPLES_PER_SHARD,
) -> Path:
  """Prepares a data set, or continues, or returns at once if it is finished.

  Args:
    source: one of `SOURCES`.
    task: one of `TASKS`.
    out: folder of the data set.
    mimic_iv: folder of MIMIC-IV (source mimic_iv).
    mimic_iv_ecg: folder of MIMIC-IV-ECG (source mimic_iv); None: no recordings, which
      task cvd cannot do without.
    availability: which time makes an event known: 'charttime' or 'storetime'.
    static: 'core' or 'extended' static columns.
    memory_limit: of DuckDB, for example '4GB'.
    workers: processes and threads; None: one per core.
    patients: number of simulated patients (source simulated).
    seed: of the simulated hospital.
    raw: where the simulated raw files are kept; None: they are deleted at the end.
    samples_per_shard: what a shard should hold, about.

  Returns:
    `out`.

  Raises:
    DataError: wrong arguments, bad input, a full disk, or an `out` that holds
      something else.
  """
  _check_choice('source', source, SOURCES)
  _check_choice('task', task, TASKS)
  _check_choice('availability', availability, ('charttime', 'storetime'))
  _check_choice('static', static, ('core', 'extended'))
  workers = workers or os.cpu_count() or 1
  out = Path(out).resolve()
  request: dict[str, Any] = {
    'source': source,
    'task': task,
    'availability': availability,
    'static': static,
    'samples_per_shard': samples_per_shard,
  }
  if source == 'simulated':
    request |= {'patients': patients, 'seed': seed}
    hospital = Path(raw).resolve() if raw else out / _STAGING / 'raw'
    roots = {'mimic_iv': hospital / 'mimic-iv', 'mimic_iv_ecg': hospital / 'mimic-iv-ecg'}
  else:
    roots = {'mimic_iv': _existing_folder('mimic_iv', mimic_iv)}
    if mimic_iv_ecg is not None:
      roots['mimic_iv_ecg'] = _existing_folder('mimic_iv_ecg', mimic_iv_ecg)
    request |= {name: str(root) for name, root in roots.items()}
  options = Options(
    roots=roots,
    availability=availability,
    static=static,
    memory_limit=memory_limit,
    threads=workers,
  )

  def stage(folder: Path) -> Staged:
    if source == 'simulated':
      hospital.parent.mkdir(parents=True, exist_ok=True)
      simulated.write_hospital(hospital, patients=patients, seed=seed)
    # The simulated hospital is read by exactly the code that reads MIMIC-IV.
    staged = mimic_iv_source.stage(task, folder, options)
    return dataclasses.replace(
      staged, schema=dataclasses.replace(staged.schema, source=source)
    )

  build(stage, out, request=request, memory_limit=memory_limit, workers=workers)
  return out


def build(
  stage: Callable[[Path], Staged],
  out: Path,
  *,
  request: dict[str, Any],
  memory_limit: str,
  workers: int,
) -> None:
  """Runs `stage(folder) -> Staged` and writes the data set to `out`.

  Every step leaves its result in `out/.staging` when it is complete, so that an
  interrupted preparation continues with the first step that is not.

  Raises:
    DataError: as `prepare`.
  """
  finished = out / publish.DATASET
  folder = out / _STAGING
  if finished.exists():
    _check_request(finished, json.loads(finished.read_text())['request'], request)
    shutil.rmtree(folder, ignore_errors=True)
    _say(f'{out}: this data set is finished, nothing to do.')
    return
  _begin(out, folder, request)
  staged = _staged(stage, folder)
  key = folds.fold_key(staged.schema.source)
  tables = folder / 'tables'
  # Also there, for the user to read, when the cohort turns out to be empty.
  write_json(out / publish.COHORT, staged.cohort)
  try:
    with staging.connect(folder, memory_limit=memory_limit, threads=workers) as database:
      assignment = staging.assign(
        staged.schema,
        tables,
        database,
        key=key,
        samples_per_shard=request['samples_per_shard'],
      )
      _announce(out, staged.schema, tables, assignment, workers)
      staging.sort(assignment, staged.schema, tables, database)
  except DataError:
    # The source's fault: once it is corrected, its step has to run again.
    (folder / _STAGED).unlink()
    raise
  except duckdb.OutOfMemoryException as error:
    raise DataError(
      f'--memory_limit={memory_limit} is too small for this data set or the disk of '
      f'{out} is full. Raise the limit or make room, and run the same command again.'
    ) from error
  sorted_tables = tables / staging.SORTED
  pq.write_table(assignment.samples, sorted_tables / 'samples.parquet')
  manifests = folder / 'manifests'
  manifests.mkdir(exist_ok=True)
  written = shards.write_shards(
    [
      shards.Job(staged.schema, shard, sorted_tables, out, manifests)
      for shard in assignment.shards
    ],
    workers=workers,
  )
  publish.publish(out, staged, assignment, written, key=key, request=request)
  shutil.rmtree(folder)


def _begin(out: Path, folder: Path, request: dict[str, Any]) -> None:
  """Makes the staging folder, or accepts that of an interrupted run."""
  marker = folder / 'request.json'
  if marker.exists():
    _check_request(marker, json.loads(marker.read_text()), request)
    _say(f'{out}: continuing an interrupted preparation.')
    return
  if out.exists() and not out.is_dir():
    raise DataError(f'--out={out}: is a file. Name a folder.')
  if out.exists() and any(path.name != _STAGING for path in out.iterdir()):
    raise DataError(f'--out={out}: holds other files. Name a new or an empty folder.')
  folder.mkdir(parents=True, exist_ok=True)
  write_json(marker, request)


def _staged(stage: Callable[[Path], Staged], folder: Path) -> Staged:
  """The result of the source's own step; a complete one is not repeated."""
  marker, tables = folder / _STAGED, folder / 'tables'
  if not marker.exists():
    shutil.rmtree(tables, ignore_errors=True)
    tables.mkdir()
    staged = stage(tables)
    write_json(
      marker,
      {
        'schema': staged.schema.to_json(),
        'cohort': staged.cohort,
        'versions': staged.versions,
      },
    )
  # Read back even if just written, so that both ways give the same bytes.
  fields = json.loads(marker.read_text())
  schema = Schema.from_json(fields['schema'], where=marker)
  return Staged(schema, fields['cohort'], fields['versions'])


def _announce(
  out: Path,
  schema: Schema,
  tables: Path,
  assignment: staging.Assignment,
  workers: int,
) -> None:
  """One line: how much disk and time the rest will take.

  Raises:
    DataError: more disk than there is.
  """
  rows = {
    name: pq.read_metadata(tables / f'{name}.parquet').num_rows
    for name in staging.tables(schema)
  }
  recordings = rows.get('recordings', 0)
  events = sum(n for name, n in rows.items() if name.startswith(('events_', 'grid_')))
  samples = assignment.samples.num_rows
  cells = sum(grid.steps * len(grid.items) * 5 for grid in schema.grids.values())
  # The sorted tables and the shards.
  need = recordings * _RECORDING_BYTES + events * 2 * _EVENT_BYTES + samples * cells
  seconds = recordings / (_RECORDINGS_PER_SECOND * workers) + events / _EVENTS_PER_SECOND
  free = shutil.disk_usage(out).free
  _say(
    f'{samples:,} samples, {events:,} events, {recordings:,} recordings: about '
    f'{need / 1e9:.1f} GB ({free / 1e9:.1f} GB free) and {seconds / 60:.0f} minutes '
    f'with {workers} workers, {len(assignment.shards)} shards.'
  )
  if need > free:
    raise DataError(
      f'--out={out}: about {need / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are '
      'free. Make room and run the same command again, or name another disk.'
    )


def _check_choice(flag: str, value: str | None, choices: Sequence[str]) -> None:
  if value not in choices:
    raise DataError(f'--{flag}={value}: give one of {", ".join(choices)}.')


def _check_request(where: Path, found: dict[str, Any], request: dict[str, Any]) -> None:
  different = sorted(
    name for name in found.keys() | request.keys() if found.get(name) != request.get(name)
  )
  if different:
    details = ', '.join(
      f'{name} {found.get(name)} there, {request.get(name)} here' for name in different
    )
    raise DataError(
      f'{where}: made by another request ({details}). Name another --out, or delete '
      'that folder.'
    )


def _existing_folder(flag: str, value: Path | str | None) -> Path:
  if value is None:
    raise DataError(f'--{flag} is missing: name the folder of the raw files.')
  path = Path(value).resolve()
  if not path.is_dir():
    raise DataError(f'--{flag}={value}: no such folder.')
  return path


def _say(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


def _define_flags() -> None:
  # Not at import: other commands use `prepare` and have flags of their own.
  flags.DEFINE_string('source', None, f'One of {", ".join(SOURCES)}.')
  flags.DEFINE_string('task', None, f'One of {", ".join(TASKS)}.')
  flags.DEFINE_string('out', None, 'Folder of the data set.')
  flags.DEFINE_string('mimic_iv', None, 'Folder of MIMIC-IV, with hosp/ and icu/.')
  flags.DEFINE_string('mimic_iv_ecg', None, 'Folder of MIMIC-IV-ECG.')
  flags.DEFINE_string(
    'availability',
    'charttime',
    'Which time makes an event known: charttime or storetime.',
  )
  flags.DEFINE_string('static', 'core', 'Static columns: core or extended (CVD).')
  flags.DEFINE_string('memory_limit', '4GB', 'Memory limit of DuckDB.')
  flags.DEFINE_integer('workers', None, 'Processes; one per core if not given.', 1)
  flags.DEFINE_integer('patients', 2000, 'Simulated patients.', 1)
  flags.DEFINE_integer('seed', 0, 'Seed of the simulated hospital.')
  flags.DEFINE_string('raw', None, 'Where to keep the simulated raw files.')


def _parse_flags(argv: Sequence[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    _fail(str(error).replace('\n', ' '))


def _fail(message: str) -> NoReturn:
  _say(f'error: {message}')
  sys.exit(1)


def _main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    _fail(f'{argv[1]}: not a flag. Write --name=value.')
  given = flags.FLAGS.flag_values_dict()
  names = (
      'source', 'task', 'mimic_iv', 'mimic_iv_ecg', 'availability', 'static',
      'memory_limit', 'workers', 'patients', 'seed', 'raw',
  )  # fmt: skip
  try:
    if given['out'] is None:
      raise DataError('--out is missing: name the folder of the data set.')
    out = prepare(out=given['out'], **{name: given[name] for name in names})
  except DataError as error:
    _fail(' '.join(str(error).split()))
  metadata = json.loads((out / publish.DATASET).read_text())
  summary = {'out': str(out), 'data_version': metadata['data_version']}
  print(json.dumps({**summary, **metadata['counts']}))


if __name__ == '__main__':
  _define_flags()
  app.run(_main, flags_parser=_parse_flags)
