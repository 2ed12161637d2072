"""The rows of a staged table from which one shard is written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.format.items import DataError, Item

# (index of the sample in the shard, row) -> content of the row's raw file; None if the file
# cannot be used, which is then recorded.
ReadRaw = Callable[[int, int], tuple[np.ndarray, float] | None]


class StagedRows:
  """Rows of a sorted staged table, with checks of the staging contract.

  Attributes:
    name: of the table.
    samples: number of samples in the shard.
    read_raw: reads a raw file that the table names; None if it names none.
  """

  def __init__(
    self,
    name: str,
    table: pa.Table,
    start: int,
    stop: int,
    read_raw: ReadRaw | None = None,
  ):
    """Takes the rows of a table whose `position` ascends from `start` to below `stop`."""
    self.name = name
    self.samples = stop - start
    self.read_raw = read_raw
    self._table = table
    self._start, self._stop = start, stop

  def sample(self) -> np.ndarray:
    """Index in the shard of each row's sample: int64 (rows,)."""
    return self.column('position') - self._start

  def slices(self) -> Iterator[slice]:
    """The rows of each sample of the shard, in order."""
    positions = np.arange(self._start, self._stop + 1)
    bounds = np.searchsorted(self.column('position'), positions).tolist()
    return (slice(*pair) for pair in itertools.pairwise(bounds))

  def column(self, name: str, dtype: type[np.floating] | None = None) -> np.ndarray:
    """A column; with `dtype`, nulls become NaN.

    Raises:
      DataError: it holds nulls, and `dtype` is None.
    """
    column = self._table[name]
    if dtype is None:
      if column.null_count:
        raise DataError(
          f'{self.name}.parquet: column {name} holds nulls. Correct the source.'
        )
      return column.to_numpy()
    return column.to_numpy().astype(dtype)

  def listed(self, name: str) -> list:
    """A column as Python objects."""
    return self._table[name].to_pylist()

  def vectors(self, name: str, width: int) -> np.ndarray:
    """A column of lists of `width` numbers: float32 (rows, width).

    Raises:
      DataError: a list has another length, or is null.
    """
    column = self._table[name].combine_chunks()
    lengths = pc.call_function('list_value_length', [column]).to_numpy(zero_copy_only=False)
    self.check(name, lengths == width)
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float32).reshape(len(column), width)

  def codes(self, item: Item) -> np.ndarray:
    """Index into an item's categories of each value of its column, -1 for null: int32.

    Raises:
      DataError: a value is not one of the categories.
    """
    column = self._table[item.itemid].cast(pa.string())
    values = pa.array(item.categories, pa.string())
    codes = pc.call_function('index_in', [column], pc.SetLookupOptions(values))
    if codes.null_count > column.null_count:
      raise DataError(
        f"{self.name}.parquet, column {item.itemid}: a value is not in the schema's "
        'categories. Correct the source.'
      )
    return codes.fill_null(-1).to_numpy().astype(np.int32)

  def check(self, column: str, valid: np.ndarray) -> None:
    """Raises DataError unless all rows are valid."""
    if not valid.all():
      raise DataError(
        f'{self.name}.parquet, column {column}: {int((~valid).sum())} rows of this shard '
        'break the staging contract (docs/design.md). Correct the source.'
      )
