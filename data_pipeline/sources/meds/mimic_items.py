"""The item tables of the MIMIC-IV source as variables of a mapping."""

from __future__ import annotations

import dataclasses

from data_pipeline.sources.common.items import conversions, items, read_rows
from data_pipeline.sources.common.units import unit_key
from data_pipeline.sources.meds.variables import Codes, Repair, Variable


def mimic_variables(modality: str, codes: tuple[Codes, ...]) -> tuple[Variable, ...]:
  """The items of a modality, with the same merging, units, limits and repairs.

  Args:
    modality: 'labs', 'cvd_labs' or 'vitals'.
    codes: patterns with the group `itemid`.
  """
  merged: dict[str, list[Codes]] = {}
  for row in read_rows('item_map'):
    if row['modality'] == modality:
      merged.setdefault(row['item'], []).extend(
        dataclasses.replace(one, itemid=row['itemid'], unit=unit_key(row['unit']))
        for one in codes
      )
  numbers, repairs = read_rows('value_categories'), read_rows('repairs')
  return tuple(
    Variable(
      item,
      tuple(merged[item.itemid]),
      units=conversions(item),
      texts={name.upper(): name for name in item.categories},
      numbers=tuple(
        (float(row['low']), float(row['high'] or 'inf'), row['category'])
        for row in numbers
        if row['item'] == item.itemid
      ),
      repairs=tuple(
        Repair(float(row['low']), float(row['high']), float(row['scale']),
               float(row['offset']), row['reason'])
        for row in repairs
        if row['item'] == item.itemid
      ),
    )
    for item in items(modality)
  )  # fmt: skip
