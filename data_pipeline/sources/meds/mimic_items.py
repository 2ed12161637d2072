"""The item tables of the MIMIC-IV source as variables of a mapping."""

from __future__ import annotations

import dataclasses

from data_pipeline.format.schema import Item
from data_pipeline.sources.common.items import conversions, items, read_rows, static_items
from data_pipeline.sources.common.units import unit_key
from data_pipeline.sources.meds.variables import Codes, Repair, Variable

# Tables of static columns: `icu` (mortality, LOS) and `core` (CVD).
STATIC_TABLES = ('icu', 'core')
EVENT_TABLES = ('labs', 'cvd_labs', 'vitals')


def mimic_variables(modality: str, codes: tuple[Codes, ...]) -> tuple[Variable, ...]:
  """The items of a modality, with the same merging, units, limits and repairs.

  Args:
    modality: one of `EVENT_TABLES`.
    codes: patterns with the group `itemid`.
  """
  merged: dict[str, list[Codes]] = {}
  for row in read_rows('item_map'):
    if row['modality'] == modality:
      merged.setdefault(row['item'], []).extend(
        dataclasses.replace(one, itemid=row['itemid'], unit=unit_key(row['unit']))
        for one in codes
      )
  return tuple(_variable(item, tuple(merged[item.itemid])) for item in items(modality))


def mimic_variable(table: str, itemid: str) -> Variable | None:
  """An item with its unit, limits, conversions and repairs, but without codes.

  Args:
    table: one of `EVENT_TABLES` or `STATIC_TABLES`.
    itemid: of the item.

  Returns:
    None if the table has no such item.
  """
  found = static_items(table) if table in STATIC_TABLES else items(table)
  return next((_variable(item, ()) for item in found if item.itemid == itemid), None)


def _variable(item: Item, codes: tuple[Codes, ...]) -> Variable:
  return Variable(
    item,
    codes,
    units=conversions(item),
    texts={name.upper(): name for name in item.categories},
    numbers=tuple(
      (float(row['low']), float(row['high'] or 'inf'), row['category'])
      for row in read_rows('value_categories')
      if row['item'] == item.itemid
    ),
    repairs=tuple(
      Repair(float(row['low']), float(row['high']), float(row['scale']),
             float(row['offset']), row['reason'])
      for row in read_rows('repairs')
      if row['item'] == item.itemid
    ),
  )  # fmt: skip
