"""Assigns staged samples to folds and shards, and sorts the staged tables by them.

Every sample gets a position: by fold, shard, subject, prediction time. Each staged
table is joined to the positions and sorted once in DuckDB, within its memory limit,
so that a shard is one contiguous range of positions in every table.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data_pipeline.format.atomic import replacing
from data_pipeline.format.modalities.base import Table, table_of
from data_pipeline.format.schema import NUM_FOLDS, DataError, Schema
from data_pipeline.format.subjects import hash_subject
from data_pipeline.preparation import folds
from data_pipeline.sources.common.duckdb_files import parquet, text

SORTED = 'sorted'


@dataclasses.dataclass(frozen=True)
class Shard:
  """One file of the data set: the samples at positions `start` to `stop`."""

  name: str
  fold: int
  start: int
  stop: int


@dataclasses.dataclass(frozen=True)
class Assignment:
  """The fold and shard of every sample.

  Attributes:
    samples: the staged samples in order of position, with `position`, `fold`, `validates_0`
      to `validates_4` and `seconds` (prediction time since 1970).
    shards: in order of position.
    folds: of the subjects.
    having: staged table -> number of samples with a row in it.
  """

  samples: pa.Table
  shards: tuple[Shard, ...]
  folds: folds.Folds
  having: dict[str, int]


def tables(schema: Schema) -> dict[str, Table]:
  """Name of a staged table -> its description, except for `samples`."""
  found = [table_of(name, each) for name, each in schema.modalities.items()]
  return {table.name: table for table in found}


def raw_tables(schema: Schema) -> dict[str, str]:
  """Modality -> the staged table that names its raw files."""
  found = {name: table_of(name, each) for name, each in schema.modalities.items()}
  return {name: table.name for name, table in found.items() if table.raw_files}


def assign(
  schema: Schema,
  staging: Path,
  database: duckdb.DuckDBPyConnection,
  *,
  key: str,
  samples_per_shard: int,
  split: str = 'folds',
  seed: int = 0,
) -> Assignment:
  """Assigns the samples in `staging` to folds and shards.

  All samples of a subject are in one fold and one shard, in order of time.

  Args:
    schema: of the data set.
    staging: folder with the staged parquet files.
    database: a DuckDB connection.
    key: of hashes that define the order of the subjects.
    samples_per_shard: approximate number of samples per shard.
    split: 'folds', or 'year_group': the subjects of the last year group are fold 0.
    seed: of the folds.

  Raises:
    DataError: an empty cohort, fewer subjects than folds, a repeated sample, a label out of
      range, or a staged table that is absent or has unknown samples.
  """
  samples = _read_samples(schema, staging / 'samples.parquet')
  sample_id = samples['sample_id'].to_numpy()
  subject_id = samples['subject_id'].to_numpy()

  available = {}
  for name, modality in schema.modalities.items():
    table = table_of(name, modality).name
    path = staging / f'{table}.parquet'
    if not path.exists():
      raise DataError(f'{path}: the source did not write this table.')
    present = database.sql(f'SELECT DISTINCT sample_id FROM {parquet(path)}').fetchnumpy()[
      'sample_id'
    ]
    if not np.isin(present, sample_id).all():
      raise DataError(f'{path}: holds samples that are not in samples.parquet.')
    if modality.counted is not None:
      available[table] = np.isin(sample_id, present)

  division = folds.assign_folds(
    subject_id,
    _label_vectors(samples, schema),
    available,
    schema.target,
    tested=None if split == 'folds' else _of_last_years(samples),
    seed=seed,
  )
  owner = np.searchsorted(division.subjects, subject_id)
  hashes = np.array([hash_subject(s, key) for s in division.subjects])
  seconds = samples['prediction_time'].cast(pa.timestamp('us')).cast(pa.int64())
  seconds = seconds.to_numpy() // 1_000_000
  fold = division.fold[owner]
  order = np.lexsort((sample_id, seconds, hashes[owner], fold))

  columns = {'position': np.arange(len(order)), 'fold': fold[order]}
  for k in range(NUM_FOLDS):
    columns[f'validates_{k}'] = division.validates[owner[order], k]
  columns['seconds'] = seconds[order]
  ordered = samples.take(order)
  for name, values in columns.items():
    ordered = ordered.append_column(name, pa.array(values))
  shards = _divide(schema.task, fold[order], owner[order], samples_per_shard)
  having = {table: int(present.sum()) for table, present in available.items()}
  return Assignment(ordered, shards, division, having)


def sort(
  assignment: Assignment,
  schema: Schema,
  staging: Path,
  database: duckdb.DuckDBPyConnection,
) -> None:
  """Writes every staged table, sorted by position, to `staging / SORTED`.

  Tables that an interrupted run has finished are kept.
  """
  folder = staging / SORTED
  folder.mkdir(exist_ok=True)
  positions = assignment.samples.select(['sample_id', 'position'])
  database.register('positions', positions)
  for table in tqdm(tables(schema).values(), desc='sort', unit='table'):
    target = folder / f'{table.name}.parquet'
    if target.exists():
      continue
    columns = ', '.join(filter(None, ('position', table.order)))
    with replacing(target) as partial:
      database.execute(
        'COPY (SELECT position, staged.* EXCLUDE (sample_id) '
        f'FROM {parquet(staging / f"{table.name}.parquet")} AS staged '
        f'JOIN positions USING (sample_id) ORDER BY {columns}) '
        f'TO {text(partial)} (FORMAT parquet)'
      )
  database.unregister('positions')


def connect(folder: Path, *, memory_limit: str, threads: int) -> duckdb.DuckDBPyConnection:
  """An in-memory DuckDB that spills to `folder`.

  Raises:
    DataError: the memory limit is not a memory size.
  """
  try:
    return duckdb.connect(
      config={
        'memory_limit': memory_limit,
        'threads': threads,
        'temp_directory': str(folder / 'duckdb'),
      }
    )
  except duckdb.Error as error:
    raise DataError(
      f'--memory_limit={memory_limit}: not a memory size; write for example 4GB.'
    ) from error


def _read_samples(schema: Schema, path: Path) -> pa.Table:
  samples = pq.read_table(path)
  if samples.num_rows == 0:
    raise DataError(
      f'the cohort of task {schema.task} is empty: no sample meets its inclusion '
      'criteria. See the steps in cohort.json, and check the raw tables and --task.'
    )
  if len(np.unique(samples['sample_id'].to_numpy())) < samples.num_rows:
    raise DataError(f'{path}: a sample_id occurs twice.')
  if schema.target.label_length == 1 and not pa.types.is_list(samples['label'].type):
    labels = samples['label'].cast(pa.float64()).to_numpy()[:, np.newaxis]
  else:
    labels = _vectors(samples['label'], schema, path)
  valid = schema.target.accepts(labels).all(axis=1)
  if not valid.all():
    raise DataError(
      f'{path}: row {int(np.argmin(valid))} has a label that a {schema.target.kind} '
      'target does not have.'
    )
  vectors = pa.array(labels.tolist(), pa.list_(pa.float64()))
  samples = samples.set_column(samples.schema.get_field_index('label'), 'label', vectors)
  if 'weight' not in samples.schema.names:
    samples = samples.append_column('weight', pa.array(np.ones(len(labels))))
  weights = samples['weight'].to_numpy()
  positive = (weights > 0) & np.isfinite(weights)
  if not positive.all():
    raise DataError(
      f'{path}: row {int(np.argmin(positive))} has a weight that is not a number above 0. '
      'Leave out a sample that should not count, or leave out its label.'
    )
  return samples


def _vectors(column: pa.ChunkedArray, schema: Schema, path: Path) -> np.ndarray:
  """Label vectors, NaN for unknown entries: float64 (n, l).

  Raises:
    DataError: a vector has another length.
  """
  length = schema.target.label_length
  unknown = [None] * length
  rows = [unknown if each is None else each for each in column.to_pylist()]
  for number, row in enumerate(rows):
    if len(row) != length:
      raise DataError(
        f'{path}: row {number} has {len(row)} labels; a {schema.target.kind} target of '
        f'task {schema.task} has {length}.'
      )
  return np.array(rows, np.float64).reshape(len(rows), length)


def _of_last_years(samples: pa.Table) -> np.ndarray:
  """Whether each sample's subject is of the last `year_group`: bool (n,)."""
  if 'year_group' not in samples.schema.names:
    raise DataError('--split=year_group: this source has no year_group for its subjects.')
  years = np.array([year or '' for year in samples['year_group'].to_pylist()])
  if len(np.unique(years)) < 2:
    raise DataError(
      f'--split=year_group: all samples are of the years {years[0]!r}, so there are no '
      'earlier years to train on. Use --split=folds.'
    )
  return years == max(years)


def _label_vectors(samples: pa.Table, schema: Schema) -> np.ndarray:
  """Labels as `_read_samples` returns them, NaN if unknown: float64 (n, l)."""
  flat = samples['label'].combine_chunks().flatten().to_numpy()
  return flat.reshape(-1, schema.target.label_length)


def _divide(
  task: str, fold: np.ndarray, owner: np.ndarray, samples_per_shard: int
) -> tuple[Shard, ...]:
  """Shards of samples in order of position, given their fold and subject."""
  shards = []
  for k in range(NUM_FOLDS):
    inside = np.flatnonzero(fold == k)
    if not len(inside):
      continue  # fewer subjects without a label than folds
    count = max(1, round(len(inside) / samples_per_shard))
    # A subject belongs to the shard of its first sample.
    first = np.flatnonzero(np.diff(owner[inside], prepend=-1))
    wanted = first * count // len(inside)
    starts = inside[first[np.flatnonzero(np.diff(wanted, prepend=-1))]]
    stops = [*starts[1:], inside[-1] + 1]
    shards.extend(
      Shard(
        f'{task}-fold{k}.tfrecord-{i:05d}-of-{len(starts):05d}',
        k,
        int(start),
        int(stop),
      )
      for i, (start, stop) in enumerate(zip(starts, stops, strict=True))
    )
  return tuple(shards)
