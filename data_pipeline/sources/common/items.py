"""The item tables (`tables/*.csv`) as Python objects and as DuckDB tables."""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from data_pipeline.format.schema import Item
from data_pipeline.sources.common.units import unit_key

if TYPE_CHECKING:
  import duckdb  # not at run time: models use the lists of items without DuckDB

_FOLDER = Path(__file__).parent / 'tables'


@functools.cache
def read_rows(name: str, folder: Path = _FOLDER) -> tuple[Mapping[str, str], ...]:
  """Rows of `{name}.csv`, which is read once; lines that start with `#` are comments."""
  with (folder / f'{name}.csv').open(encoding='utf-8', newline='') as file:
    return tuple(csv.DictReader(line for line in file if not line.startswith('#')))


@functools.cache
def items(modality: str) -> tuple[Item, ...]:
  """The items of 'labs', 'cvd_labs', 'vitals' or 'vitals_categorical', in order."""
  return tuple(_item(row) for row in read_rows('items') if row['modality'] == modality)


@functools.cache
def static_items(columns: str) -> tuple[Item, ...]:
  """The static columns of 'icu' (mortality, LOS) or 'core' (CVD)."""
  rows = read_rows('static_items')
  return tuple(_item(row) for row in rows if row['columns'] == columns)


def register(con: duckdb.DuckDBPyConnection, modality: str) -> None:
  """Makes the temporary tables that one event or grid modality needs.

  `item_map_{m}` (tbl, itemid, item_index, default_unit), `items_{m}` (item_index,
  low, high, is_category), `units_{m}` (item_index, unit, scale, offset_),
  `repairs_{m}` and `value_categories_{m}`.
  """
  wanted = items(modality)
  position = {item.itemid: index for index, item in enumerate(wanted)}
  make_table(
    con, f'items_{modality}',
    {'item_index': pa.int32(), 'low': pa.float64(), 'high': pa.float64(),
     'is_category': pa.bool_()},
    [(i, item.low, item.high, item.kind == 'categorical')
     for i, item in enumerate(wanted)],
  )  # fmt: skip
  make_table(
    con, f'item_map_{modality}',
    {'tbl': pa.string(), 'itemid': pa.int32(), 'item_index': pa.int32(),
     'default_unit': pa.string()},
    [(row['table'], int(row['itemid']), position[row['item']],
      unit_key(row['unit']) or None)
     for row in read_rows('item_map') if row['modality'] == modality],
  )  # fmt: skip
  make_table(
    con, f'units_{modality}',
    {'item_index': pa.int32(), 'unit': pa.string(), 'scale': pa.float64(),
     'offset_': pa.float64()},
    [(index, unit, scale, offset)
     for index, item in enumerate(wanted) if item.kind == 'numeric'
     for unit, (scale, offset) in conversions(item).items()],
  )  # fmt: skip
  make_table(
    con, f'repairs_{modality}',
    {'item_index': pa.int32(), 'low': pa.float64(), 'high': pa.float64(),
     'scale': pa.float64(), 'offset_': pa.float64(), 'reason': pa.string()},
    [(position[row['item']], *(float(row[key]) for key in
      ('low', 'high', 'scale', 'offset')), row['reason'])
     for row in read_rows('repairs') if row['item'] in position],
  )  # fmt: skip
  make_table(
    con, f'value_categories_{modality}',
    {'item_index': pa.int32(), 'low': pa.float64(), 'high': pa.float64(),
     'category': pa.int32()},
    [(position[row['item']], float(row['low']), float(row['high'] or 'inf'),
      wanted[position[row['item']]].categories.index(row['category']))
     for row in read_rows('value_categories') if row['item'] in position],
  )  # fmt: skip


@functools.cache
def conversions(item: Item) -> Mapping[str, tuple[float, float]]:
  """Unit key -> (scale, offset) to the item's unit; rows naming the item win."""
  found: dict[str, tuple[float, float]] = {}
  for named in (False, True):
    for row in read_rows('units'):
      of = [text for text in row['items'].split('|') if text]
      if row['to'] == item.unit and (item.itemid in of if named else not of):
        found[unit_key(row['unit'])] = (float(row['scale']), float(row['offset']))
  found[unit_key(item.unit)] = (1.0, 0.0)
  found.pop('', None)
  return found


def make_table(
  con: duckdb.DuckDBPyConnection,
  name: str,
  columns: dict[str, pa.DataType],
  rows: list[tuple],
) -> None:
  """Makes the temporary table `name` from Python rows."""
  arrays = [
    pa.array([row[i] for row in rows], kind) for i, kind in enumerate(columns.values())
  ]
  con.register('rows_', pa.table(arrays, names=list(columns)))
  con.execute(f'CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM rows_')
  con.unregister('rows_')


def _item(row: Mapping[str, str]) -> Item:
  return Item(
    itemid=row['item'],
    name=row['name'],
    unit=row['unit'],
    categories=tuple(text for text in row['categories'].split('|') if text),
    low=float(row['low']) if row['low'] else None,
    high=float(row['high']) if row['high'] else None,
  )
