"""Prepares a data set: stages a source, assigns its samples, writes shards.

If interrupted at any point, the same call continues and ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from data_pipeline import folders, lock, processors, sources
from data_pipeline.format.atomic import PARTIAL
from data_pipeline.format.dataset import COHORT, DATASET
from data_pipeline.format.schema import DataError, Schema, write_json
from data_pipeline.format.subjects import KEY_FILE, institution_key, order_key
from data_pipeline.preparation import (
  estimate,
  processes,
  publish,
  recordings_check,
  shards,
  staging,
)
from data_pipeline.sources import Staged
from data_pipeline.sources.common.raw_tables import UnreadableCells

_STAGING = '.staging'
_STAGED = 'staged.json'
_REQUEST = 'request.json'
_SAMPLES_PER_SHARD = 1024
MAX_DROPPED_RECORDINGS = 0.2
SPLITS = ('folds', 'year_group')

# The `run` argument of `shards.write_shards`: where and how the shards are written.
Run = Callable[[Sequence[shards.Job], Callable[[], object]], None]


def prepare(
  *,
  source: str,
  task: str | None,
  out: Path | str,
  memory_limit: str | None = None,
  workers: int | None = None,
  samples_per_shard: int = _SAMPLES_PER_SHARD,
  split: str = 'folds',
  max_dropped_recordings: float = MAX_DROPPED_RECORDINGS,
  beam_options: str | None = None,
  beam_bucket: str | None = None,
  subject_key: Path | str | None = None,
  **settings: Any,
) -> Path:
  """Prepares a data set, continues an interrupted one, or finds that it is finished.

  Args:
    source: a folder of `data_pipeline/sources`, for example 'mimic_iv'.
    task: one of the source's `TASKS`; None if its settings name the task.
    out: folder of the data set.
    memory_limit: of DuckDB, for example '4GB'; None: half a GB per worker, at least one.
    workers: processes and threads; None: one per processor that this process may use.
    samples_per_shard: approximate number of samples per shard.
    split: 'folds', or 'year_group': the subjects of the last anchor_year_group are the test
      subjects, and fold 0 is the only fold.
    max_dropped_recordings: largest share of unusable ECG recordings.
    beam_options: write the shards on Apache Beam with these pipeline options, for example
      '--runner=FlinkRunner --flink_master=HOST:8081' (docs/beam.md).
    beam_bucket: bucket for the files of Beam's workers if they share no folder.
    subject_key: file with the key of the subject hashes, which the data sets of an
      institution share; created if it does not exist. None: `subject_key` beside `out`.
    **settings: fields of the source's `Settings`, for example mimic_iv=DIR.

  Returns:
    `out`.

  Raises:
    DataError: wrong arguments, bad input, a full disk, or an `out` that holds other files.
  """
  module = sources.load(source)
  sources.check_choice('split', split, SPLITS)
  chosen = sources.make_settings(source, settings)
  task = sources.task_name(source, task, chosen)
  workers = workers or processors.available()
  memory_limit = memory_limit or f'{max(1, workers / 2)}GB'
  out = Path(out).resolve()
  request: dict[str, Any] = {
    'source': source,
    'task': task,
    'samples_per_shard': samples_per_shard,
    **({} if split == 'folds' else {'split': split}),
    **sources.recorded(chosen),
  }
  resources = sources.Resources(memory_limit=memory_limit, threads=workers)

  def stage(folder: Path) -> Staged:
    estimate.announce_reading(out, chosen)
    return module.stage(task, folder, chosen, resources)

  build(
    stage,
    out,
    request=request,
    memory_limit=memory_limit,
    workers=workers,
    max_dropped_recordings=max_dropped_recordings,
    recordings_here=beam_bucket is None,
    subject_key=None if subject_key is None else Path(subject_key),
    run=_beam(beam_options, beam_bucket),
  )
  return out


def build(
  stage: Callable[[Path], Staged],
  out: Path,
  *,
  request: dict[str, Any],
  memory_limit: str,
  workers: int,
  max_dropped_recordings: float = MAX_DROPPED_RECORDINGS,
  recordings_here: bool = True,
  subject_key: Path | None = None,
  run: Run | None = None,
) -> None:
  """Runs `stage(folder) -> Staged` and writes the data set to `out`.

  Every complete step leaves its result in `out/.staging`, so that an interrupted
  preparation continues with the first incomplete step.

  Args:
    stage: the source's step.
    out: folder of the data set.
    request: identifies the data set; only the same request continues an interrupted one.
    memory_limit: of DuckDB.
    workers: processes and threads.
    max_dropped_recordings: largest share of unusable ECG recordings.
    recordings_here: whether this machine can read the raw recordings.
    subject_key: as in `prepare`.
    run: where the shards are written; by default in `workers` processes.

  Raises:
    DataError: as `prepare`.
  """
  run = run or functools.partial(processes.run, workers=workers)
  finished = out / DATASET
  folder = out / _STAGING
  if not finished.exists():
    _make_folder(out, folder)
    held = lock.exclusive(folder / 'lock', 'prepares a data set here', 'give another --out')
    with held, _full_disk(out):
      # Checked again, because another process may just have finished it.
      if not finished.exists():
        _build(
            stage, out, folder, request, memory_limit, workers, max_dropped_recordings,
            recordings_here, subject_key or out.parent / KEY_FILE, run,
        )  # fmt: skip
        _remove(folder)
        return
  _check_request(finished, json.loads(finished.read_text())['request'], request)
  _remove(folder)
  _say(f'{out}: this data set is finished, nothing to do.')


def _build(
  stage: Callable[[Path], Staged],
  out: Path,
  folder: Path,
  request: dict[str, Any],
  memory_limit: str,
  workers: int,
  max_dropped_recordings: float,
  recordings_here: bool,
  subject_key: Path,
  run: Run,
) -> None:
  key = institution_key(subject_key)  # a bad file is found before hours of work
  _begin(out, folder, request)
  try:
    staged = _staged(stage, folder)
  except UnreadableCells as error:
    stopped = {'step': 'stopped before the cohort', 'samples': 0, 'subjects': 0}
    cohort = {'steps': [stopped], 'rows': error.rows, 'error': str(error)}
    write_json(out / COHORT, cohort)
    raise
  tables = folder / 'tables'
  # Written even if the cohort is empty, so that the user can see why.
  write_json(out / COHORT, staged.cohort)
  for note in staged.cohort.get('notes', ()):
    _say(f'note: {note}')
  try:
    with staging.connect(folder, memory_limit=memory_limit, threads=workers) as database:
      assignment = staging.assign(
        staged.schema,
        tables,
        database,
        key=order_key(staged.schema.source),
        samples_per_shard=request['samples_per_shard'],
        split=request.get('split', 'folds'),
      )
      staged = _with_what_is_absent(staged, assignment)
      for table in staging.raw_tables(staged.schema).values() if recordings_here else ():
        recordings_check.require_some(tables / f'{table}.parquet', max_dropped_recordings)
      estimate.announce_writing(out, staged.schema, tables, assignment, workers)
      staging.sort(assignment, staged.schema, tables, database)
  except DataError:
    # An error of the source: after its correction, its step has to run again.
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
  for abandoned in out.glob(f'*{PARTIAL}'):
    abandoned.unlink()
  jobs = [
    shards.Job(staged.schema, shard, sorted_tables, out, manifests)
    for shard in assignment.shards
  ]
  written = shards.write_shards(jobs, run)
  recordings_check.require_enough(jobs, written, max_dropped_recordings)
  publish.publish(
    out,
    staged,
    assignment,
    written,
    tables=sorted_tables,
    key=key,
    request=request,
  )


def _with_what_is_absent(staged: Staged, assignment: staging.Assignment) -> Staged:
  """Adds notes on empty tables and on modalities that no sample has; also to the cohort.

  Raises:
    DataError: all modalities are empty.
  """
  absent = [
    f'{table}: no usable row, {reason} is 0'
    for table, reasons in staged.cohort['rows'].items()
    for reason, n in reasons.items()
    if reason.startswith(('read', 'values read', 'used')) and n == 0
  ]
  empty = [table for table, n in assignment.having.items() if n == 0]
  absent += [f'{table}: no sample has any' for table in empty]
  for line in absent:
    _say(f'warning: {line}')
  if len(empty) == len(staged.schema.modalities):
    raise DataError(
      'all modalities are empty, so there is nothing to predict from. See cohort.json, and '
      'check that all raw files are complete and of the same release.'
    )
  if not absent:
    return staged
  return dataclasses.replace(staged, cohort={**staged.cohort, 'absent': absent})


def _beam(options: str | None, bucket: str | None) -> Run | None:
  if options is None:
    if bucket is not None:
      raise DataError('--beam_bucket: give --beam_options as well (docs/beam.md).')
    return None
  try:
    from data_pipeline.preparation import beam  # optional
  except ModuleNotFoundError as error:
    raise DataError(
      f'--beam_options: {error.name} is not installed in this environment; it is part of '
      'medm2t_jax[beam], which needs a separate environment (docs/beam.md).'
    ) from error
  return beam.runner(options, bucket)


def _make_folder(out: Path, folder: Path) -> None:
  """Creates the staging folder in a new or empty `out`, or finds the existing one."""
  folders.make(out, '--out')
  started = (folder / _REQUEST).exists()
  others = (p for p in out.iterdir() if p.name != _STAGING and not folders.is_foreign(p))
  if not started and any(others):
    raise DataError(f'--out={out}: holds other files. Give a new or an empty folder.')
  folders.make(folder, '--out')


def _begin(out: Path, folder: Path, request: dict[str, Any]) -> None:
  """Records the request, or checks it against that of the interrupted run."""
  marker = folder / _REQUEST
  if marker.exists():
    _check_request(marker, json.loads(marker.read_text()), request)
    _say(f'{out}: continuing an interrupted preparation.')
  else:
    write_json(marker, request)


def _remove(folder: Path) -> None:
  # Another process may be removing it at the same time.
  shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _full_disk(out: Path) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
      raise
    raise DataError(
      f'--out={out}: no space left on the disk. Make room and run the same command '
      'again; completed work is kept.'
    ) from error


def _staged(stage: Callable[[Path], Staged], folder: Path) -> Staged:
  """The result of the source's step, which is not repeated if complete."""
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
  # Read back even if just written, so that both cases give the same bytes.
  fields = json.loads(marker.read_text())
  schema = Schema.from_json(fields['schema'], where=marker)
  return Staged(schema, fields['cohort'], fields['versions'])


def _check_request(where: Path, found: dict[str, Any], request: dict[str, Any]) -> None:
  different = sorted(
    name for name in found.keys() | request.keys() if found.get(name) != request.get(name)
  )
  if different:
    details = ', '.join(
      f'{name} is {found.get(name)} there and {request.get(name)} here'
      for name in different
    )
    raise DataError(
      f'{where}: created by a different request ({details}). Give another --out, or delete '
      'that folder.'
    )


def _say(line: str) -> None:
  print(line, file=sys.stderr, flush=True)
