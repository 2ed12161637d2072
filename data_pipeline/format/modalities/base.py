"""Interface of a kind of modality on the side of data sets (docs/design.md, "Modalities").

A modality of a data set is an instance of its kind: items and sizes, but nothing fitted.
The instance defines how its rows are staged, stored in a record, arranged in a batch, and
aligned with a model's; `medm2t_jax.modalities` defines what a model does with them.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np

from data_pipeline.format.items import Item
from data_pipeline.format.modalities.staged import StagedRows

Arrays = Mapping[str, np.ndarray]
# Layout of a modality's arrays in a batch: 'fixed' (b ...), one shape for all rows;
# 'padded' (b n ...), rows of any length, with `mask` (b n); 'packed' (m ...), the entries
# of all rows of a device concatenated, with `owner` and `mask` (m).
Layout = Literal['fixed', 'padded', 'packed']
HOURS = 'hours relative to the prediction time, never above 0'


@dataclasses.dataclass(frozen=True)
class Feature:
  """One array of an example.

  Attributes:
    dtype: NumPy dtype.
    shape: None stands for the sample's own length; () is a scalar.
    batch: whether a batch has it unchanged, as a 'flag' (bool), or not at all ('unread').
    padding: value in rows of padding.
    heavy: stored after the head of a record, because it is large and not always read.
    meaning: of a number in it, with its unit.
    absurd: for arrays that are not floats, a value that no record has and that is a safe
      index: the audit overwrites inputs with it that must not matter.
  """

  dtype: type[np.generic]
  shape: tuple[int | None, ...] = ()
  batch: Literal['same', 'flag', 'unread'] = 'same'
  padding: int = 0
  heavy: bool = False
  absurd: int = 0
  meaning: str = ''

  @property
  def row_bytes(self) -> int:
    """Bytes of one row of the leading dimension."""
    return math.prod(filter(None, self.shape[1:])) * np.dtype(self.dtype).itemsize

  @property
  def batch_dtype(self) -> type[np.generic]:
    """The dtype of the array in a batch."""
    return np.bool_ if self.batch == 'flag' else self.dtype


@dataclasses.dataclass(frozen=True)
class Table:
  """The staged table of a modality, `{name}.parquet`.

  Attributes:
    name: without extension.
    order: columns that it is sorted by within a sample, as SQL; '' for none.
    raw_files: whether its column `path` names raw files, read when shards are written.
  """

  name: str
  order: str
  raw_files: bool = False


@dataclasses.dataclass(frozen=True)
class Cost:
  """Disk space and time of a modality, for estimates only.

  Attributes:
    rows: name of its staged rows; '' for one row per sample.
    row_bytes: bytes per staged row in sorted table and shard together.
    rows_per_second: speed of writing.
    parallel: whether more workers write faster.
  """

  rows: str
  row_bytes: int
  rows_per_second: int
  parallel: bool = False


class Modality(abc.ABC):
  """A modality of a data set. Subclasses are frozen dataclasses of items and sizes.

  Class attributes:
    kind: name of the kind, in dataset.json.
    layout: of its arrays in a batch.
    prefix: of its features in a record, with {name} for the modality's name.
    table: of its staged rows, also with {name}.
    counted: the array whose rows (for a flag: ones) the index column `n_{name}` counts.
      None: every sample has the modality, and nothing is counted.
    noun: name of the counted entries.
    time: the array with the hours of its entries, None if they have no times.
  """

  kind: ClassVar[str]
  layout: ClassVar[Layout]
  prefix: ClassVar[str]
  table: ClassVar[Table]
  counted: ClassVar[str | None]
  noun: ClassVar[str]
  time: ClassVar[str | None] = None

  @classmethod
  @abc.abstractmethod
  def from_json(cls, fields: Mapping[str, Any]) -> Self:
    """Inverse of `dataclasses.asdict`."""

  @property
  @abc.abstractmethod
  def variables(self) -> tuple[Item, ...]:
    """Its variables, which are matched with those of a model by code and unit."""

  @property
  @abc.abstractmethod
  def cost(self) -> Cost:
    """Of the rows of its table."""

  @property
  @abc.abstractmethod
  def arrays(self) -> dict[str, Feature]:
    """Array name -> how a record stores it.

    With a layout other than 'fixed' the leading dimension of every array is the number of
    entries, in the order of their times.
    """

  @abc.abstractmethod
  def examples(self, rows: StagedRows) -> Iterator[dict[str, np.ndarray]]:
    """Yields the arrays of each sample, from staged rows.

    Raises:
      DataError: a row breaks the staging contract.
    """

  @abc.abstractmethod
  def aligned(self, data: Any, places: Sequence[int], arrays: Arrays) -> Arrays:
    """Arrays of a batch of `data`, aligned to the variables of this modality of a model.

    Args:
      data: a modality of the same kind, whose `difference` from this one is ''.
      places: index in `data.variables` of each of the variables here, -1 if absent.
      arrays: with a leading device axis.
    """

  def known_at(self, arrays: Arrays, hours: float) -> dict[str, np.ndarray]:
    """One sample as known at an earlier moment, with hours relative to that moment.

    Later entries are removed. Entries from before the sample's own window are not added, so
    the window is shorter than usual.

    Args:
      arrays: as a record stores them.
      hours: of the moment, relative to the prediction time, at most 0.
    """
    assert self.time is not None, f'{self.kind} says what was known when'
    time = arrays[self.time]
    known = {key: array[time <= hours] for key, array in arrays.items()}
    moved = known[self.time].astype(np.float64) - hours
    return {**known, self.time: moved.astype(time.dtype)}

  @abc.abstractmethod
  def last_values(self, arrays: Arrays) -> np.ndarray:
    """The last value of every variable in one sample, NaN if absent: float64 (v,).

    Args:
      arrays: as a record stores them, without the heavy ones.
    """

  @abc.abstractmethod
  def found(self, arrays: Arrays, rows: tuple[int, int]) -> np.ndarray:
    """Which variables each row of a batch has: bool (d b v).

    Args:
      arrays: with a leading device axis.
      rows: d and b.
    """

  @abc.abstractmethod
  def invented(self, padding: Arrays, generator: np.random.Generator) -> Arrays:
    """Synthetic arrays, without data of any patient, for the self-test of a model.

    Args:
      padding: arrays of a batch without a device axis, for shapes and dtypes.
      generator: draws all values.
    """

  def labels(self) -> list[tuple[str, bool]]:
    """Readable name of each variable, and whether its last value is a category."""
    return [(item.name, item.kind == 'categorical') for item in self.variables]

  def difference(self, data: Modality) -> str:
    """Why nothing of a data set's modality of this kind can be read; '' if it can."""
    del data
    return ''

  @property
  def extent_hours(self) -> float | None:
    """Hours before the prediction time at which cells begin; None without fixed cells."""
    return None

  @property
  def sizes(self) -> tuple[Any, ...]:
    """Properties beside the variables that must be equal for batches to be the same."""
    return ()


def table_of(name: str, modality: Modality) -> Table:
  """The staged table of a modality."""
  return dataclasses.replace(modality.table, name=modality.table.name.format(name=name))


def features_of(name: str, modality: Modality) -> dict[str, Feature]:
  """Feature of a record -> how it is stored."""
  return {feature_name(name, modality, key): each for key, each in modality.arrays.items()}


def feature_name(name: str, modality: Modality, array: str) -> str:
  """The feature of a record that holds an array."""
  return f'{modality.prefix.format(name=name)}/{array}'


def arrays_of(
  name: str, modality: Modality, example: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """The arrays of a modality among the features of an example."""
  stored = {key: feature_name(name, modality, key) for key in modality.arrays}
  return {key: example[each] for key, each in stored.items() if each in example}


def count_of(name: str, modality: Modality, example: Mapping[str, np.ndarray]) -> int:
  """The number of entries of a modality in one sample, as in the index."""
  assert modality.counted is not None
  array = example[feature_name(name, modality, modality.counted)]
  flag = modality.arrays[modality.counted].batch == 'flag'
  return int(array.sum()) if flag else len(array)


def found_in(
  modalities: Mapping[str, Modality], batch: Mapping[str, Any]
) -> Iterator[tuple[str, np.ndarray]]:
  """Modality, and which of its variables each valid row has: bool (rows, variables).

  Args:
    modalities: of the batch.
    batch: with a leading device axis.
  """
  valid = batch['row'] >= 0
  for name, modality in modalities.items():
    yield name, modality.found(batch[name], valid.shape)[valid]


def sample_bytes(modality: Modality) -> int:
  """Bytes of the arrays of fixed shape in a record."""
  if modality.layout != 'fixed':
    return 0
  arrays = modality.arrays.values()
  return sum(
    math.prod(filter(None, each.shape)) * np.dtype(each.dtype).itemsize for each in arrays
  )


def nothing(
  modality: Modality, rows: tuple[int, ...], entries: int = 1
) -> dict[str, np.ndarray]:
  """Arrays of a batch in which no row has the modality.

  Args:
    modality: of the batch.
    rows: (d, b), or (b,) without a device axis.
    entries: per row if padded, per device if packed.
  """
  lead = {'fixed': rows, 'padded': (*rows, entries), 'packed': (*rows[:-1], entries)}
  result = {}
  for key, feature in modality.arrays.items():
    if feature.batch != 'unread':
      inner: Any = feature.shape if modality.layout == 'fixed' else feature.shape[1:]
      shape = (*lead[modality.layout], *inner)
      result[key] = np.full(shape, feature.padding, feature.batch_dtype)
  if modality.layout == 'packed':
    result['owner'] = np.zeros(lead['packed'], np.int32)
  if modality.layout != 'fixed':
    result['mask'] = np.zeros(lead[modality.layout], bool)
  return result


def chosen(array: np.ndarray, places: np.ndarray, missing: Any) -> np.ndarray:
  """Reorders columns of the last axis; the result is `missing` if a place is -1."""
  if not len(places):
    return np.zeros((*array.shape[:-1], 0), array.dtype)
  if not array.shape[-1]:
    return np.full((*array.shape[:-1], len(places)), missing, array.dtype)
  return np.where(places >= 0, array[..., places], missing)


def kept(arrays: Arrays, keep: np.ndarray) -> dict[str, np.ndarray]:
  """Entries of padded or packed arrays that stay, moved to the front; zeros follow.

  Args:
    arrays: with `mask`, with any leading axes.
    keep: bool, shaped like `mask`; has no effect where the mask is False.
  """
  stay = np.asarray(arrays['mask'] & keep)
  if np.array_equal(stay, arrays['mask']):
    return dict(arrays)
  axis = stay.ndim - 1
  order = np.argsort(~stay, axis=axis, kind='stable')
  mask = np.take_along_axis(stay, order, axis)
  result = {}
  for name, array in arrays.items():
    wide = lambda index, array=array: index.reshape(
      index.shape + (1,) * (array.ndim - index.ndim)
    )
    moved = np.take_along_axis(array, wide(order), axis)
    result[name] = np.where(wide(mask), moved, np.zeros((), moved.dtype))
  return {**result, 'mask': mask}


def last_seen(value: np.ndarray, observed: np.ndarray) -> np.ndarray:
  """The last observed value (v,) of each column of values (g v); NaN if there is none."""
  if not len(value):
    return np.full(value.shape[1], np.nan)
  observed = observed > 0
  last = len(value) - 1 - observed[::-1].argmax(axis=0)
  return np.where(observed.any(axis=0), value[last, np.arange(value.shape[1])], np.nan)


def plausible(items: Sequence[Item], generator: np.random.Generator) -> np.ndarray:
  """A random value of each item, inside its limits if it has any: float64 (items,)."""
  low = np.array([0.0 if item.low is None else item.low for item in items])
  high = np.array([100.0 if item.high is None else item.high for item in items])
  return low + (high - low) * generator.uniform(0.1, 0.6, len(items))
