"""Reads splits from a file, for published splits; they replace the five folds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.format.dataset import Dataset, Split
from data_pipeline.format.schema import DataError
from data_pipeline.format.subjects import hash_subject

_KEYS: dict[str, Split] = {'train': 'train', 'val': 'validation', 'test': 'test'}
_NAMED = 5  # ids listed in a message


def with_split_file(dataset: Dataset, path: Path) -> Dataset:
  """The data set with the splits of a file, as its only fold 0.

  Its version depends on the subjects of each split, not on the path of the file.

  Args:
    dataset: as prepared.
    path: a JSON file {"train": [...], "val": [...], "test": [...]} of sample ids (the
      RecordID in PhysioNet 2012). Samples that it does not list are in no split.

  Raises:
    DataError: the file has another format, an unknown or repeated id, or a subject with
      samples in two splits.
  """
  splits: dict[Split, np.ndarray] = {}
  for key, ids in _read(path).items():
    splits[_KEYS[key]] = _rows(dataset, ids, f'{path}: {key!r}')
  subjects = {
    split: {int(subject) for subject in dataset.index['subject_id'][rows]}
    for split, rows in splits.items()
  }
  names = tuple(subjects)
  for i, first in enumerate(names):
    for second in names[i + 1 :]:
      shared = sorted(subjects[first] & subjects[second])
      if shared:
        raise DataError(
          f'{path}: {_some(shared)} in {first} and in {second}. All samples of a '
          'subject must be in the same split.'
        )
  hashes = {
    split: sorted(hash_subject(subject, dataset.subject_key) for subject in of)
    for split, of in subjects.items()
  }
  digest = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
  return dataclasses.replace(
    dataset,
    version=f'{dataset.version}+{digest[:16]}',
    splits=splits,
    metadata={**dataset.metadata, 'folds': {'0': hashes}},
  )


def _read(path: Path) -> dict[str, list[int]]:
  try:
    found: Any = json.loads(path.read_text())
  except FileNotFoundError:
    raise DataError(f'--config.data.split_file={path}: no such file.') from None
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise DataError(f'{path}: not valid JSON: {error}') from error
  if not isinstance(found, dict) or found.keys() != _KEYS.keys():
    raise DataError(f'{path}: must be one object with the lists "train", "val" and "test".')
  for key, ids in found.items():
    if not isinstance(ids, list) or not ids or any(type(each) is not int for each in ids):
      raise DataError(f'{path}: {key!r} must be a non-empty list of whole numbers.')
  return found


def _rows(dataset: Dataset, ids: list[int], where: str) -> np.ndarray:
  """Index rows of sample ids, ascending."""
  row_of = {int(sample): row for row, sample in enumerate(dataset.index['sample_id'])}
  unknown = sorted({each for each in ids if each not in row_of})
  if unknown:
    raise DataError(
      f'{where} has samples that {dataset.directory} does not have: {_some(unknown)}. '
      'Prepare the data set that belongs to the splits, or remove these samples.'
    )
  if len(set(ids)) < len(ids):
    repeated = sorted(each for each, n in Counter(ids).items() if n > 1)
    raise DataError(f'{where} repeats {_some(repeated)}.')
  return np.sort(np.array([row_of[each] for each in ids], np.int64))


def _some(ids: Sequence[int]) -> str:
  """The first few ids, and the number of further ones."""
  more = f' and {len(ids) - _NAMED} more' if len(ids) > _NAMED else ''
  return ', '.join(str(each) for each in ids[:_NAMED]) + more
