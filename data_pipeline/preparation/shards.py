"""Writes one shard: a deterministic function of the sorted tables and its range.

`write_shard` may run in any process on any machine that can read the files: it reads
the range of positions of one shard, conditions its ECGs, writes the records to its own
temporary file, and renames that file when it is safely on disk. It also writes a manifest
with the index columns, which marks the shard as finished. Two attempts at one shard do not
disturb each other: both end with the same bytes.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from data_pipeline.format import examples, records
from data_pipeline.format.atomic import replacing
from data_pipeline.format.modalities.base import count_of, feature_name, table_of
from data_pipeline.format.modalities.staged import ReadRaw, StagedRows
from data_pipeline.format.schema import NUM_FOLDS, DataError, Schema, write_json
from data_pipeline.preparation.staging import Shard

DROPPED_RECORDINGS = 'dropped_recordings.csv'

Example = dict[str, Any]

# Index columns: the place of a record, and the checksum of its head.
PLACE_COLUMNS = ('offset', 'bytes', 'head_bytes', 'head_crc')


class Recordings:
  """The raw recordings of a shard.

  Attributes:
    read: number of recordings tried.
    dropped: study_id, path, reason and detail of unusable recordings.
  """

  def __init__(self, subject_id: np.ndarray):
    """Takes `subject_id` of the shard's samples; those of a subject share recordings."""
    self.read = 0
    self.dropped: list[dict[str, Any]] = []
    self._subject_id = subject_id

  def reader(self, table: pa.Table) -> ReadRaw:
    """A function that reads the raw recordings of the rows of a table, each file once."""
    # Imported late: scipy takes a second to import, and is only needed for ECGs.
    from data_pipeline.ecg import conditioning, raw_recording, reading

    recordings = raw_recording.listed(table)
    study_id = table['study_id'].to_pylist()
    loaded: dict[Any, tuple[np.ndarray, float] | None] = {}
    subject = None

    def read(sample: int, row: int) -> tuple[np.ndarray, float] | None:
      nonlocal loaded, subject
      if self._subject_id[sample] != subject:
        loaded, subject = {}, self._subject_id[sample]
      one = recordings[row]
      if one not in loaded:
        self.read += 1
        try:
          loaded[one] = conditioning.load(one)
        except reading.EcgError as error:
          loaded[one] = None
          found = {'study_id': study_id[row], 'path': one.path, 'reason': error.reason}
          self.dropped.append({**found, 'detail': error.detail})
      return loaded[one]

    return read


@dataclasses.dataclass(frozen=True)
class Job:
  """Input of `write_shard`.

  Attributes:
    schema: of the data set.
    shard: the shard to write.
    tables: folder of the sorted tables, including `samples.parquet`.
    target: folder of the data set.
    manifests: folder of the manifests.
  """

  schema: Schema
  shard: Shard
  tables: Path
  target: Path
  manifests: Path

  @property
  def manifest(self) -> Path:
    """The file that records the finished shard."""
    return self.manifests / f'{self.shard.name}.json'


def length_columns(schema: Schema) -> dict[str, str]:
  """Index column with the number of entries of a modality -> the modality."""
  modalities = schema.modalities.items()
  return {f'n_{name}': name for name, each in modalities if each.counted is not None}


def write_shards(
  jobs: Sequence[Job], run: Callable[[Sequence[Job], Callable[[], object]], None]
) -> list[dict[str, Any]]:
  """Writes all shards that are not finished yet.

  Args:
    jobs: one per shard.
    run: `run(jobs, done)` calls `write_shard` on each job, anywhere, and `done()` after
      each. The result is the same for any: see `processes.run` and `beam.run`.

  Returns:
    The manifests, in the order of `jobs`.

  Raises:
    DataError: as `write_shard`, or a worker died.
  """
  open_jobs = [job for job in jobs if not is_finished(job)]
  bar = tqdm(total=len(jobs), initial=len(jobs) - len(open_jobs), desc='shards')
  with bar:
    if open_jobs:
      run(open_jobs, bar.update)
  return [json.loads(job.manifest.read_text()) for job in jobs]


def write_shard(job: Job) -> None:
  """Writes one shard and its manifest.

  Raises:
    DataError: a staged row is invalid, a file cannot be read or written, or the disk
      is full.
  """
  specs = examples.features(job.schema)
  path = job.target / job.shard.name
  digest = hashlib.sha256()
  places: dict[str, list[int]] = {name: [] for name in PLACE_COLUMNS}
  counts: dict[str, list[int]] = {name: [] for name in length_columns(job.schema)}
  offset = 0
  try:
    samples = _read(job, 'samples')
    recordings = Recordings(samples['subject_id'].to_numpy())
    # Another attempt may be running: Beam starts some jobs twice.
    with replacing(path) as partial, open(partial, 'wb') as file:
      for example in _examples(job, samples, recordings):
        head, rest = examples.serialize(example, specs)
        framed = records.frame(head + rest)
        file.write(framed)
        digest.update(framed)
        place = offset, len(head) + len(rest), len(head), records.checksum(head)
        for name, number in zip(PLACE_COLUMNS, place, strict=True):
          places[name].append(number)
        for name, modality in length_columns(job.schema).items():
          each = job.schema.modalities[modality]
          counts[name].append(count_of(modality, each, example))
        offset += len(framed)
      file.flush()
      os.fsync(file.fileno())
  except OSError as error:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
      raise DataError(
        f'{path}: no space left on the disk. Make room and run the same command '
        'again; finished shards are kept.'
      ) from error
    raise DataError(
      f'{path}: could not be written: {error}. The process that writes a shard needs '
      'the staged tables, the raw ECGs and the data set under the same paths.'
    ) from error
  write_json(
    job.manifest,
    {
      'places': places,
      'counts': counts,
      'recordings_read': recordings.read,
      'recordings_dropped': recordings.dropped,
      'file_bytes': offset,
      'sha256': digest.hexdigest(),
    },
  )


def is_finished(job: Job) -> bool:
  """Whether the shard and its manifest are complete."""
  if not job.manifest.exists():
    return False
  path = job.target / job.shard.name
  size = json.loads(job.manifest.read_text())['file_bytes']
  return path.exists() and path.stat().st_size == size


def _examples(job: Job, samples: pa.Table, recordings: Recordings) -> Iterator[Example]:
  """The examples of a shard in order of position."""
  shard = job.shard
  of_samples = StagedRows('samples', samples, shard.start, shard.stop)
  columns = {
    name: of_samples.column(name)
    for name in ('subject_id', 'sample_id', 'seconds', 'weight', 'fold')
  }
  labels = [np.array(each, np.float32) for each in of_samples.listed('label')]
  validates = [of_samples.column(f'validates_{k}') for k in range(NUM_FOLDS)]
  validates = np.stack(validates, axis=1).astype(np.uint8)
  parts = []
  for name, modality in job.schema.modalities.items():
    staged = table_of(name, modality)
    table = _read(job, staged.name)
    reader = recordings.reader(table) if staged.raw_files else None
    rows = StagedRows(staged.name, table, shard.start, shard.stop, reader)
    parts.append((name, modality, modality.examples(rows)))
  for i in range(of_samples.samples):
    example = {
      'subject_id': columns['subject_id'][i],
      'sample_id': columns['sample_id'][i],
      'prediction_time': columns['seconds'][i],
      'label': labels[i],
      'weight': np.float32(columns['weight'][i]),
      'fold': columns['fold'][i],
      'validates': validates[i],
    }
    for name, modality, arrays in parts:
      for key, array in next(arrays).items():
        example[feature_name(name, modality, key)] = array
    yield example


def _read(job: Job, table: str) -> pa.Table:
  """The rows of a sorted table that belong to the shard."""
  position = pc.field('position')
  inside = (position >= job.shard.start) & (position < job.shard.stop)
  path = job.tables / f'{table}.parquet'
  return pq.read_table(path, filters=inside, use_threads=False)
