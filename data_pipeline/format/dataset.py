"""Opens a prepared data set: schema, index, folds. Reads no shard."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.format.schema import NUM_FOLDS, DataError, Schema, Target

Split = Literal['train', 'validation', 'test']

# Files beside the shards.
DATASET = 'dataset.json'  # written last
COHORT = 'cohort.json'
INDEX = 'index.parquet'
RECORDINGS = 'recordings.parquet'

_AGAIN = 'Prepare it (again) with `python -m data_pipeline.prepare`.'


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A prepared data set.

  Attributes:
    directory: folder of the data set.
    schema: contents of a sample.
    version: hash over the shards' contents and the schema.
    stored: schema of the shards if it differs (`data_pipeline.reading.alignment.seen_as`),
      else None.
    index: column of index.parquet -> array (n,); row i is sample i. `file` is an index into
      `files`; attributes are objects, None if unknown; `label` is (n,), or (n, l) for a
      multilabel target, NaN if unknown; `prediction_time` is in seconds since 1970.
    files: names of the shards.
    subject_key: secret key of the subject hashes, hex text.
    metadata: the content of dataset.json.
    splits: index rows of each split if they come from a file (`split_file.py`): the only
      fold is then 0, and `metadata['folds']` describes it.
  """

  directory: Path
  schema: Schema
  version: str
  index: Mapping[str, np.ndarray]
  files: tuple[str, ...]
  subject_key: str
  metadata: Mapping[str, Any]
  splits: Mapping[Split, np.ndarray] | None = None
  stored: Schema | None = None

  def __len__(self) -> int:
    return len(self.index['sample_id'])

  def rows(self, fold: int, split: Split) -> np.ndarray:
    """Index rows of a split of fold 0..4, ascending: int64 (rows,)."""
    self._check_fold(fold)
    if self.splits is not None:
      return self.splits[split]
    tests = self.index['fold'] == fold
    validates = self.index[f'validates_{fold}'] == 1
    masks = {
      'test': tests,
      'validation': validates,
      'train': ~tests & ~validates,
    }
    return np.flatnonzero(masks[split])

  def subjects(self, fold: int, split: Split) -> tuple[str, ...]:
    """Keyed hashes of the subjects of a split, sorted."""
    self._check_fold(fold)
    folds = self.metadata['folds']
    if split in folds[str(fold)]:
      return tuple(folds[str(fold)][split])
    everyone = {h for k in range(NUM_FOLDS) for h in folds[str(k)]['test']}
    held_out = {*folds[str(fold)]['test'], *folds[str(fold)]['validation']}
    return tuple(sorted(everyone - held_out))

  def as_prepared(self) -> Dataset:
    """The data set with the schema of its shards."""
    return dataclasses.replace(self, schema=self.stored or self.schema, stored=None)

  def _check_fold(self, fold: int) -> None:
    if self.splits is not None and fold != 0:
      raise DataError(
        f'fold {fold} does not exist: config.data.split_file defines a single split. Set '
        'config.folds=0.'
      )
    if self.metadata['request'].get('split') == 'year_group' and fold != 0:
      raise DataError(
        f'fold {fold} does not exist: {self.directory} was prepared with '
        '--split=year_group, and later years would predict earlier ones. Set '
        'config.folds=0.'
      )
    if fold not in range(NUM_FOLDS):
      raise DataError(f'fold {fold} does not exist: folds are 0 to {NUM_FOLDS - 1}.')

  def lengths(self, modality: str) -> np.ndarray:
    """Number of entries (events, observed cells, recordings) per sample: int32 (n,).

    It is 1 for every sample if the modality has no counted entries.
    """
    if not self.holds(modality):
      return np.zeros(len(self), np.int32)
    if self.schema.modalities[modality].counted is None:
      return np.ones(len(self), np.int32)
    return self.index[f'n_{modality}']

  def holds(self, modality: str) -> bool:
    """Whether the shards have the modality, with the same kind as in the schema."""
    stored = (self.stored or self.schema).modalities
    seen = self.schema.modalities[modality]
    return modality in stored and type(stored[modality]) is type(seen)

  @property
  def counted(self) -> tuple[str, ...]:
    """Modalities that may be absent from a sample, in model order."""
    modalities = self.schema.modalities.items()
    return tuple(name for name, each in modalities if each.counted is not None)


def open_dataset(directory: Path | str) -> Dataset:
  """Opens the data set in `directory`.

  Raises:
    DataError: the folder is not a finished data set, has another schema version, or a shard
      is missing or has the wrong size.
  """
  directory = Path(directory)
  path = directory / DATASET
  try:
    metadata = json.loads(path.read_text())
  except FileNotFoundError as error:
    raise DataError(f'{directory}: not a finished data set. {_AGAIN}') from error
  except json.JSONDecodeError as error:
    raise DataError(f'{path}: not valid JSON. {_AGAIN}') from error
  schema = Schema.from_json(metadata['schema'], where=path)
  for name, entry in metadata['files'].items():
    shard = directory / name
    size = shard.stat().st_size if shard.exists() else None
    if size != entry['bytes']:
      found = 'is missing' if size is None else f'has {size} bytes'
      raise DataError(
        f'{shard} {found}, but dataset.json says {entry["bytes"]} bytes. Copy the data '
        'set again, or delete it and prepare it again.'
      )
  index, files = _read_index(directory / INDEX, schema.target)
  if len(index['sample_id']) != metadata['counts']['samples']:
    raise DataError(
      f'{directory / INDEX} has {len(index["sample_id"])} rows, but dataset.json '
      f'says {metadata["counts"]["samples"]}. {_AGAIN}'
    )
  return Dataset(
    directory=directory,
    schema=schema,
    version=metadata['data_version'],
    index=index,
    files=files,
    subject_key=metadata['subject_key'],
    metadata=metadata,
  )


def _read_index(
  path: Path, target: Target
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
  try:
    table = pq.read_table(path)
  except FileNotFoundError as error:
    raise DataError(f'{path}: the index is missing. {_AGAIN}') from error
  except pa.ArrowInvalid as error:
    raise DataError(f'{path}: not a parquet file. {_AGAIN}') from error
  files, number = np.unique(table['file'].to_numpy().astype(str), return_inverse=True)
  label = table['label'].combine_chunks().flatten().to_numpy()
  if target.kind == 'multilabel':
    label = label.reshape(-1, target.label_length)
  index = {
    name: label if name == 'label' else table[name].to_numpy()
    for name in table.column_names
  }
  index['file'] = number.astype(np.int32)
  return index, tuple(files.tolist())
