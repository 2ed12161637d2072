"""Writes one shard: a deterministic function of the sorted tables and its range.

`write_shard` may run in any process, on any machine that sees the files: it reads
the range of positions of one shard, conditions its ECGs, writes the records to a
partial file of its own, and renames that when it is safely on disk. Beside it, it
leaves a manifest with what the index needs, which also marks the shard as finished.
Two attempts at one shard do not disturb each other: both end with the same bytes.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import itertools
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from data_pipeline.format import examples, records
from data_pipeline.format.schema import (
  ECG_LEADS,
  ECG_MEASUREMENTS,
  ECG_SAMPLES,
  NUM_FOLDS,
  DataError,
  Item,
  Schema,
  write_json,
)
from data_pipeline.preparation.staging import Shard

PARTIAL = '.partial'
DROPPED_RECORDINGS = 'dropped_recordings.csv'

Example = dict[str, Any]

# Index columns: where a record is, and what its head is checked by.
PLACE_COLUMNS = ('offset', 'bytes', 'head_bytes', 'head_crc')


@dataclasses.dataclass
class Recordings:
  """The raw recordings of a shard.

  Attributes:
    read: how many were tried.
    dropped: study_id, path, reason and detail of those that could not be used.
  """

  read: int = 0
  dropped: list[dict[str, Any]] = dataclasses.field(default_factory=list)

  def drop(self, study_id: int, path: str, reason: str, detail: str) -> None:
    self.dropped.append(
      {'study_id': study_id, 'path': path, 'reason': reason, 'detail': detail}
    )


@dataclasses.dataclass(frozen=True)
class Job:
  """Everything that `write_shard` needs.

  Attributes:
    schema: of the data set.
    shard: which one.
    tables: folder of the sorted tables, with `samples.parquet` among them.
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
    return self.manifests / f'{self.shard.name}.json'


def length_columns(schema: Schema) -> dict[str, str]:
  """Index column of a sample's length -> the feature whose rows or ones it counts."""
  result = {f'n_{name}': f'events/{name}/time' for name in schema.events}
  result |= {f'n_{name}': f'grid/{name}/observed' for name in schema.grids}
  if 'ecg' in schema.modalities:
    result['n_ecg'] = 'ecg/time'
  return result


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
  # Another attempt may be under way: Beam starts some twice.
  partial = path.with_name(f'{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}')
  digest = hashlib.sha256()
  recordings = Recordings()
  places: dict[str, list[int]] = {name: [] for name in PLACE_COLUMNS}
  counts: dict[str, list[int]] = {name: [] for name in length_columns(job.schema)}
  offset = 0
  try:
    with open(partial, 'wb') as file:
      for example in _examples(job, recordings):
        head, rest = examples.serialize(example, specs)
        framed = records.frame(head + rest)
        file.write(framed)
        digest.update(framed)
        place = offset, len(head) + len(rest), len(head), records.checksum(head)
        for name, number in zip(PLACE_COLUMNS, place, strict=True):
          places[name].append(number)
        for name, feature in length_columns(job.schema).items():
          array = example[feature]
          observed = feature.endswith('/observed')
          counts[name].append(int(array.sum()) if observed else len(array))
        offset += len(framed)
      file.flush()
      os.fsync(file.fileno())
    partial.replace(path)
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
  finally:
    partial.unlink(missing_ok=True)
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


def _examples(job: Job, recordings: Recordings) -> Iterator[Example]:
  """The examples of a shard in order of position."""
  schema, shard = job.schema, job.shard
  samples = _read(job, 'samples')
  columns = {
    name: _numpy(samples, name)
    for name in ('subject_id', 'sample_id', 'seconds', 'weight', 'fold')
  }
  labels = [np.array(each, np.float32) for each in samples['label'].to_pylist()]
  validates = [_numpy(samples, f'validates_{k}') for k in range(NUM_FOLDS)]
  validates = np.stack(validates, axis=1).astype(np.uint8)

  parts = []
  if 'static' in schema.modalities:
    parts.append(_static(job))
  parts.extend(_events(job, modality) for modality in schema.events)
  parts.extend(_grid(job, modality) for modality in schema.grids)
  if 'ecg' in schema.modalities:
    parts.append(_ecg(job, columns['subject_id'], recordings))
  for i in range(shard.stop - shard.start):
    example = {
      'subject_id': columns['subject_id'][i],
      'sample_id': columns['sample_id'][i],
      'prediction_time': columns['seconds'][i],
      'label': labels[i],
      'weight': np.float32(columns['weight'][i]),
      'fold': columns['fold'][i],
      'validates': validates[i],
    }
    for part in parts:
      example.update(next(part))
    yield example


def _static(job: Job) -> Iterator[Example]:
  table = _read(job, 'static')
  count = job.shard.stop - job.shard.start
  row = _numpy(table, 'position') - job.shard.start
  numeric = np.full((count, len(job.schema.static_numeric)), np.nan, np.float32)
  for s, item in enumerate(job.schema.static_numeric):
    numeric[row, s] = _numpy(table, item.itemid, np.float64)
  categorical = np.full((count, len(job.schema.static_categorical)), -1, np.int32)
  for c, item in enumerate(job.schema.static_categorical):
    categorical[row, c] = _codes(table, item)
  mask = np.isfinite(numeric)
  for i in range(count):
    yield {
      'static/numeric': np.where(mask[i], numeric[i], np.float32(0)),
      'static/numeric_mask': mask[i].astype(np.uint8),
      'static/categorical': categorical[i],
    }


def _codes(table: pa.Table, item: Item) -> np.ndarray:
  """Index into the item's categories, -1 where null: int32 (rows,)."""
  column = table[item.itemid].cast(pa.string())
  values = pa.array(item.categories, pa.string())
  codes = pc.call_function('index_in', [column], pc.SetLookupOptions(values))
  if codes.null_count > column.null_count:
    raise DataError(
      f"static.parquet, column {item.itemid}: a value is not in the schema's "
      'categories. Correct the source.'
    )
  return codes.fill_null(-1).to_numpy().astype(np.int32)


def _events(job: Job, modality: str) -> Iterator[Example]:
  name = f'events_{modality}'
  table = _read(job, name)
  items = job.schema.events[modality]
  item = _numpy(table, 'item').astype(np.int32)
  value = _numpy(table, 'value', np.float32)
  category = _numpy(table, 'category').astype(np.int32)
  time = _numpy(table, 'time').astype(np.float32)
  categories = np.array([len(i.categories) for i in items])
  _check(name, 'item', (item >= 0) & (item < len(items)))
  _check(name, 'time', time <= 0)
  is_number = categories[item] == 0
  _check(name, 'value', np.where(is_number, np.isfinite(value), np.isnan(value)))
  _check(
    name,
    'category',
    np.where(is_number, category == -1, (category >= 0) & (category < categories[item])),
  )
  for rows in _slices(table, job.shard):
    yield {
      f'events/{modality}/item': item[rows],
      f'events/{modality}/value': value[rows],
      f'events/{modality}/category': category[rows],
      f'events/{modality}/time': time[rows],
    }


def _grid(job: Job, modality: str) -> Iterator[Example]:
  name = f'grid_{modality}'
  table = _read(job, name)
  grid = job.schema.grids[modality]
  shape = (grid.steps, len(grid.items))
  step, signal = _numpy(table, 'step'), _numpy(table, 'signal')
  value = _numpy(table, 'value', np.float32)
  _check(name, 'step', (step >= 0) & (step < grid.steps))
  _check(name, 'signal', (signal >= 0) & (signal < len(grid.items)))
  _check(name, 'value', np.isfinite(value))
  for rows in _slices(table, job.shard):
    values = np.zeros(shape, np.float32)
    observed = np.zeros(shape, np.uint8)
    values[step[rows], signal[rows]] = value[rows]
    observed[step[rows], signal[rows]] = 1
    yield {f'grid/{modality}/value': values, f'grid/{modality}/observed': observed}


def _ecg(job: Job, subject_id: np.ndarray, recordings: Recordings) -> Iterator[Example]:
  # scipy's import takes a second, which processes without ECGs need not spend.
  from data_pipeline.ecg import conditioning, raw_recording, reading

  table = _read(job, 'recordings')
  raw = raw_recording.listed(table)
  terms_of = table['terms'].to_pylist()
  time = _numpy(table, 'time').astype(np.float32)
  study_id = _numpy(table, 'study_id').astype(np.int64)
  measured = np.stack(
    [_numpy(table, name, np.float32) for name in ECG_MEASUREMENTS], axis=1
  )
  mask = np.isfinite(measured)
  terms = np.zeros((len(raw), len(job.schema.ecg_terms)), np.uint8)
  for row, indices in enumerate(terms_of):
    terms[row, indices or []] = 1
  _check('recordings', 'time', time <= 0)

  # A subject's samples are neighbours and share recordings: read each file once.
  loaded: dict[object, tuple[np.ndarray, float] | None] = {}
  subject = None
  for rows, owner in zip(_slices(table, job.shard), subject_id, strict=True):
    if owner != subject:
      loaded, subject = {}, owner
    usable, signals = [], []
    for row in range(rows.start, rows.stop):
      one = raw[row]
      if one not in loaded:
        recordings.read += 1
        try:
          loaded[one] = conditioning.load(one)
        except reading.EcgError as error:
          recordings.drop(int(study_id[row]), one.path, error.reason, error.detail)
          loaded[one] = None
      recording = loaded[one]
      if recording is not None:
        usable.append(row)
        signals.append(recording)
    signal = np.zeros((len(usable), ECG_SAMPLES, len(ECG_LEADS)), np.int16)
    for slot, recording in enumerate(signals):
      signal[slot] = recording[0]
    yield {
      'ecg/signal': signal,
      'ecg/gain': np.array([recording[1] for recording in signals], np.float32),
      'ecg/time': time[usable],
      'ecg/study_id': study_id[usable],
      'ecg/measurements': np.where(mask[usable], measured[usable], np.float32(0)),
      'ecg/measurements_mask': mask[usable].astype(np.uint8),
      'ecg/terms': terms[usable],
    }


def _read(job: Job, table: str) -> pa.Table:
  """The rows of a sorted table that belong to the shard."""
  position = pc.field('position')
  inside = (position >= job.shard.start) & (position < job.shard.stop)
  path = job.tables / f'{table}.parquet'
  return pq.read_table(path, filters=inside, use_threads=False)


def _slices(table: pa.Table, shard: Shard) -> Iterator[slice]:
  """Rows of each sample of a table that is sorted by position."""
  positions = np.arange(shard.start, shard.stop + 1)
  bounds = np.searchsorted(_numpy(table, 'position'), positions).tolist()
  return (slice(*pair) for pair in itertools.pairwise(bounds))


def _numpy(
  table: pa.Table, name: str, dtype: type[np.floating] | None = None
) -> np.ndarray:
  """A column; with `dtype`, nulls become NaN."""
  column = table[name]
  if dtype is None:
    if column.null_count:
      raise DataError(f'column {name} holds nulls. Correct the source.')
    return column.to_numpy()
  return column.to_numpy().astype(dtype)


def _check(table: str, column: str, valid: np.ndarray) -> None:
  if not valid.all():
    raise DataError(
      f'{table}.parquet, column {column}: {int((~valid).sum())} rows of this shard '
      'break the staging contract (docs/design.md). Correct the source.'
    )
