"""One pass over all records, in memory that does not grow with their number.

Letters: c columns, k folds, r entries of a column's random sample.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from data_pipeline.format.dataset import Dataset, Split
from data_pipeline.format.heads import read_heads
from data_pipeline.format.modalities.base import feature_name
from medm2t_jax import targets
from medm2t_jax.audit.columns import Column, columns, last_values

CAPACITY = 8192  # size of a column's random sample
SPLITS: tuple[Split, ...] = ('train', 'validation', 'test')


@dataclasses.dataclass
class Scan:
  """The results of one pass over the records.

  Attributes:
    dataset: the data set.
    columns: its inputs.
    disagreeing: number of samples whose record and index differ in subject, sample, label
      or fold.
    latest: modality with times -> latest hour relative to the prediction; -inf if empty.
    late: modality -> number of entries later than the prediction or without a time.
    present: number of samples with the column, int64 (c,).
    label_present: number of samples with the column among those in which a class or label
      is true: int64 (classes, c).
    label_absent: the same among those in which it is false.
    split_present: number of samples with the column by fold and split (k, 3, c).
    value, row: random samples of the columns' values and index rows (c r).
  """

  dataset: Dataset
  columns: tuple[Column, ...]
  disagreeing: int
  latest: dict[str, float]
  late: dict[str, int]
  present: np.ndarray
  label_present: np.ndarray
  label_absent: np.ndarray
  split_present: np.ndarray
  value: np.ndarray
  row: np.ndarray

  def sampled(self, column: int) -> tuple[np.ndarray, np.ndarray]:
    """A random sample of a column's present values, and their index rows."""
    size = min(int(self.present[column]), self.value.shape[1])
    return self.value[column, :size], self.row[column, :size]


def scan(dataset: Dataset, folds: Sequence[int], *, capacity: int = CAPACITY) -> Scan:
  """Reads every record once.

  Args:
    dataset: the data set.
    folds: whose splits are counted.
    capacity: r.

  Raises:
    DataError: a shard is missing or corrupt.
  """
  schema = dataset.schema
  found = columns(schema)
  timed = {
    name: feature_name(name, each, each.time)
    for name, each in schema.modalities.items()
    if each.time is not None
  }
  outputs = len(schema.target.classes)
  result = Scan(
    dataset=dataset,
    columns=found,
    disagreeing=0,
    latest=dict.fromkeys(timed, -np.inf),
    late=dict.fromkeys(timed, 0),
    present=np.zeros(len(found), np.int64),
    label_present=np.zeros((outputs, len(found)), np.int64),
    label_absent=np.zeros((outputs, len(found)), np.int64),
    split_present=np.zeros((len(folds), len(SPLITS) + 1, len(found)), np.int64),
    value=np.zeros((len(found), min(capacity, len(dataset)))),
    row=np.zeros((len(found), min(capacity, len(dataset))), np.int32),
  )
  # The labels in the records are compared with those of the index below.
  true = targets.of(schema.target).is_true(dataset.index['label'])
  splits = split_codes(dataset, folds)
  generator = np.random.default_rng(0)
  heads = tqdm(
    read_heads(dataset), desc='records', total=len(dataset), unit='sample', leave=False
  )
  for row, example in heads:
    result.disagreeing += not _agrees(example, dataset, row)
    for name, feature in timed.items():
      time = example[feature]
      if len(time):
        result.latest[name] = max(result.latest[name], float(time.max()))
        result.late[name] += int((~(time <= 0)).sum())
    values = last_values(example, schema)
    present = ~np.isnan(values)
    result.present += present
    result.label_present[true[row] == 1] += present
    result.label_absent[true[row] == 0] += present
    result.split_present[np.arange(len(folds)), splits[:, row]] += present
    _remember(result, np.flatnonzero(present), values, row, generator)
  return result


def split_codes(dataset: Dataset, folds: Sequence[int]) -> np.ndarray:
  """Index into `SPLITS` of every sample in every fold (k n); 3 if it is in none."""
  codes = np.full((len(folds), len(dataset)), len(SPLITS), np.int8)
  for number, fold in enumerate(folds):
    for code, split in enumerate(SPLITS):
      codes[number, dataset.rows(fold, split)] = code
  return codes


def _agrees(example: Mapping[str, np.ndarray], dataset: Dataset, row: int) -> bool:
  """Whether a record and its row of the index agree."""
  index = dataset.index
  names = ('subject_id', 'sample_id', 'fold')
  validates = [index[f'validates_{k}'][row] for k in range(len(example['validates']))]
  return (
    all(int(example[name]) == int(index[name][row]) for name in names)
    and np.array_equal(
      example['label'], np.float32(index['label'][row]).reshape(-1), equal_nan=True
    )
    and bool(np.array_equal(example['validates'], validates))
  )


def _remember(
  result: Scan,
  present: np.ndarray,
  values: np.ndarray,
  row: int,
  generator: np.random.Generator,
) -> None:
  """Reservoir sampling (Vitter's algorithm R) of every column at once."""
  seen = result.present[present]
  capacity = result.value.shape[1]
  drawn = (generator.random(len(present)) * seen).astype(np.int64)
  place = np.where(seen <= capacity, seen - 1, drawn)
  kept = place < capacity
  result.value[present[kept], place[kept]] = values[present[kept]]
  result.row[present[kept], place[kept]] = row
