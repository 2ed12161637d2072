"""The variables of a model's modality, with the codes of a mapping."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from data_pipeline.format.schema import Item
from data_pipeline.sources.common.items import conversions
from data_pipeline.sources.common.units import unit_key
from data_pipeline.sources.meds.codes import RECORDED, match
from data_pipeline.sources.meds.variables import Automatic, Codes, Variable


def own_code(modality: str, item: Item) -> str:
  """The code with which a model's variable can always be given."""
  return f'{modality}//{item.itemid}'


def variables_of(
  modality: str, items: Sequence[Item], mapped: Sequence[Variable], found: Automatic | None
) -> tuple[Variable, ...]:
  """One variable for each item, with the model's limits and categories.

  Args:
    modality: of the items.
    items: of the model.
    mapped: of the mapping's modality of that name; matched by code, kind and unit.
    found: of the mapping, if it finds items in the data: the code is then that of the item.
  """
  by_id = {(one.item.itemid, one.item.kind): one for one in mapped}
  result = []
  for item in items:
    own = Codes(re.compile(rf'{re.escape(own_code(modality, item))}(?://(?P<unit>.+))?'))
    one = by_id.get((item.itemid, item.kind))
    if one is not None and unit_key(one.item.unit) == unit_key(item.unit):
      result.append(_limited(one, item, own))
      continue
    codes: tuple[Codes, ...] = (own,)
    if found and match(found.codes, item.itemid):
      recorded = RECORDED if item.categories == (RECORDED,) else ''
      codes = (own, Codes(re.compile(re.escape(item.itemid)), category=recorded))
    texts = {name.strip().upper(): name for name in item.categories}
    result.append(Variable(item, codes, units=conversions(item), texts=texts))
  return tuple(result)


def _limited(one: Variable, item: Item, own: Codes) -> Variable:
  """A variable of the mapping, restricted to the model's limits and categories."""
  known = item.categories
  return dataclasses.replace(
    one,
    item=item,
    codes=(*one.codes, own),
    texts={said: name for said, name in one.texts.items() if name in known},
    numbers=tuple(entry for entry in one.numbers if entry[2] in known),
  )
