"""Writes shards on Apache Beam, with any runner (docs/beam.md).

The jobs and the function are the same as for local processes, so the bytes are too. Workers
without a shared folder get their files through a bucket, where the path of every file
follows the bucket's address.

Apache Beam needs a separate environment (constraints-beam.txt): nothing else imports this
module.
"""

from __future__ import annotations

import dataclasses
import functools
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import apache_beam  # pyright: ignore[reportMissingImports]
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.io.filesystems import (  # pyright: ignore[reportMissingImports]
  FileSystems,
)
from apache_beam.options.pipeline_options import (  # pyright: ignore[reportMissingImports]
  PipelineOptions,
)

from data_pipeline.ecg import raw_recording
from data_pipeline.format.atomic import replacing
from data_pipeline.format.schema import DataError
from data_pipeline.preparation import shards, staging


def runner(options: str, bucket: str | None = None) -> functools.partial[None]:
  """`run` with these options, given as one text and checked before any work.

  Raises:
    DataError: Beam does not accept the options.
  """
  try:
    arguments = shlex.split(options)
    apache_beam.Pipeline(options=PipelineOptions(arguments))
  except (ImportError, ValueError) as error:
    raise DataError(f'--beam_options={options}: {error} (docs/beam.md)') from error
  return functools.partial(run, options=arguments, bucket=bucket)


def run(
  jobs: Sequence[shards.Job],
  done: Callable[[], object],
  *,
  options: Sequence[str],
  bucket: str | None = None,
) -> None:
  """Writes the shards in one pipeline and waits until all are in place.

  Args:
    jobs: one per shard.
    done: called once per shard, at the end.
    options: of the pipeline, for example ['--runner=DirectRunner'].
    bucket: address that Beam can read and write, for example gs://BUCKET/FOLDER, with the
      raw ECGs in it. None: workers see the folders of the jobs and the raw ECGs under the
      same paths.

  Raises:
    DataError: the pipeline failed, or a shard is missing at the end.
  """
  pipeline_options = PipelineOptions(list(options))
  FileSystems.set_options(pipeline_options)
  write = shards.write_shard
  if bucket is not None:
    bucket = bucket.rstrip('/')
    for table in _tables(jobs[0]):
      _copy(str(table), bucket + str(table))
    write = functools.partial(write_through_bucket, bucket=bucket)
  pipeline = apache_beam.Pipeline(options=pipeline_options)
  # Reshuffled, so that no runner fuses all jobs into one worker's bundle.
  elements = pipeline | 'jobs' >> apache_beam.Create(list(jobs), reshuffle=True)
  _ = elements | 'write' >> apache_beam.Map(write)
  try:
    state = pipeline.run().wait_until_finish()
  except Exception as error:  # every runner has its own exceptions
    reason = next(filter(None, reversed(str(error).splitlines())), type(error).__name__)
    raise DataError(
      f'the Beam pipeline failed: {reason}. Its log has the full error. Correct the cause '
      'and run the same command again: finished shards are kept.'
    ) from error
  for job in jobs:
    if bucket is not None and state == 'DONE':
      _fetch_result(job, bucket)
    if not shards.is_finished(job):
      raise DataError(
        f'the Beam pipeline ended as {state}, but {job.shard.name} is not in '
        f'{job.target}. Its workers must write to this folder, or through a bucket '
        '(docs/beam.md). Run the same command again; finished shards are kept.'
      )
    done()


def write_through_bucket(job: shards.Job, *, bucket: str) -> None:
  """`shards.write_shard` for a worker that can only reach the bucket.

  Raises:
    DataError: as `shards.write_shard`.
  """
  with tempfile.TemporaryDirectory() as scratch:
    here = lambda path: Path(scratch + str(path))
    local = dataclasses.replace(
      job,
      tables=here(job.tables),
      target=here(job.target),
      manifests=here(job.manifests),
    )
    for folder in (local.tables, local.target, local.manifests):
      folder.mkdir(parents=True, exist_ok=True)
    position = pc.field('position')
    inside = (position >= job.shard.start) & (position < job.shard.stop)
    for table in _tables(job):
      with FileSystems.open(bucket + str(table)) as file:
        rows = pq.read_table(file, filters=inside)
      if table.stem in staging.raw_tables(job.schema).values():
        paths = rows['path'].to_pylist()
        for path in set(paths):
          _fetch_record(path, bucket, here)
        column = rows.column_names.index('path')
        moved = pa.array([str(here(path)) for path in paths], pa.string())
        rows = rows.set_column(column, 'path', moved)
      pq.write_table(rows, here(table))
    shards.write_shard(local)
    # Unusable recordings are recorded with their path outside the bucket.
    manifest = local.manifest.read_text().replace(scratch, '')
    local.manifest.write_text(manifest)
    # The manifest comes last, because it marks the shard as complete.
    for path in (job.target / job.shard.name, job.manifest):
      _copy(str(here(path)), bucket + str(path))


def _tables(job: shards.Job) -> list[Path]:
  names = ('samples', *staging.tables(job.schema))
  return [job.tables / f'{name}.parquet' for name in names]


def _fetch_record(path: str, bucket: str, here: Callable[[str], Path]) -> None:
  here(path).parent.mkdir(parents=True, exist_ok=True)
  for file in raw_recording.possible_files(path):
    # An absent file is counted when the recording is read; any other failure of the bucket
    # is an error, after which the runner tries again.
    if not here(file).exists() and FileSystems.exists(bucket + file):
      _copy(bucket + file, str(here(file)))


def _fetch_result(job: shards.Job, bucket: str) -> None:
  for path in (job.target / job.shard.name, job.manifest):
    with replacing(path) as partial:
      _copy(bucket + str(path), str(partial))


def _copy(source: str, target: str) -> None:
  with FileSystems.open(source) as read, FileSystems.create(target) as write:
    shutil.copyfileobj(read, write, 1 << 20)
