"""Events: numbers and categories of items, each with a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from data_pipeline.format.items import Item
from data_pipeline.format.modalities import base
from data_pipeline.format.modalities.base import Arrays, Cost, Feature, Table
from data_pipeline.format.modalities.staged import StagedRows


@dataclasses.dataclass(frozen=True)
class Events(base.Modality):
  """Irregular events.

  Staged as `events_{name}.parquet`: `sample_id`, `item` INTEGER (index into `items`),
  `value` FLOAT (NaN for a category), `category` INTEGER (index into the item's
  categories, -1 for a number), `time` FLOAT.

  Attributes:
    items: their variables.
  """

  items: tuple[Item, ...]

  kind = 'events'
  layout = 'padded'
  prefix = 'events/{name}'
  table = Table('events_{name}', order='time, item, category, value')
  counted = 'time'
  noun = 'events'
  time = 'time'

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> Self:
    return cls(tuple(map(Item.from_json, fields['items'])))

  @property
  def cost(self) -> Cost:
    return Cost('events', row_bytes=32, rows_per_second=500_000)

  @property
  def variables(self) -> tuple[Item, ...]:
    return self.items

  @property
  def arrays(self) -> dict[str, Feature]:
    return {
      'item': Feature(np.int32, (None,), meaning='index of the item'),
      # The value of a category is NaN here and 0 in a batch; `category` has the category.
      'value': Feature(
        np.float32, (None,), meaning='in the unit of the item; 0 for a category'
      ),
      'category': Feature(
        np.int32,
        (None,),
        absurd=-1,
        meaning='index into the categories of the item, -1 for a number',
      ),
      'time': Feature(np.float32, (None,), meaning=base.HOURS),
    }

  def examples(self, rows: StagedRows) -> Iterator[dict[str, np.ndarray]]:
    item = rows.column('item').astype(np.int32)
    value = rows.column('value', np.float32)
    category = rows.column('category').astype(np.int32)
    time = rows.column('time').astype(np.float32)
    categories = np.array([len(one.categories) for one in self.items])
    rows.check('item', (item >= 0) & (item < len(self.items)))
    rows.check('time', time <= 0)
    levels = categories[item]
    is_number = levels == 0
    rows.check('value', np.where(is_number, np.isfinite(value), np.isnan(value)))
    in_range = (category >= 0) & (category < levels)
    rows.check('category', np.where(is_number, category == -1, in_range))
    for of_sample in rows.slices():
      yield {
        'item': item[of_sample],
        'value': value[of_sample],
        'category': category[of_sample],
        'time': time[of_sample],
      }

  def aligned(self, data: Events, places: Sequence[int], arrays: Arrays) -> Arrays:
    known, offered = self.items, data.items
    to_model = np.full(len(offered) + 1, -1, np.int32)
    most = max((len(item.categories) for item in offered), default=0)
    category_of = np.full((len(offered) + 1, most + 1), -1, np.int32)
    for place, at in enumerate(places):
      if at >= 0:
        to_model[at] = place
        levels = known[place].categories
        for number, category in enumerate(offered[at].categories):
          category_of[at, number] = levels.index(category) if category in levels else -1
    mask = arrays['mask']
    item = np.where(mask, to_model[arrays['item']], np.int32(0))
    of_item = category_of[arrays['item'], arrays['category']]
    category = np.where(arrays['category'] >= 0, of_item, np.int32(-1))
    category = np.where(mask, category, np.int32(0))
    unknown = (arrays['category'] >= 0) & (category < 0)
    # In order of time without gaps and with zeros in padding, as if it had been read so.
    return base.kept({**arrays, 'item': item, 'category': category}, (item >= 0) & ~unknown)

  def last_values(self, arrays: Arrays) -> np.ndarray:
    category = arrays['category']
    last = np.full(len(self.items), np.nan)
    # Sorted by time, so the last value of an item overwrites the others.
    last[arrays['item']] = np.where(category >= 0, category, arrays['value'])
    return last

  def found(self, arrays: Arrays, rows: tuple[int, int]) -> np.ndarray:
    has = np.zeros((*rows, len(self.items)), bool)
    device, row, event = np.nonzero(arrays['mask'])
    has[device, row, arrays['item'][device, row, event]] = True
    return has

  def invented(self, padding: Arrays, generator: np.random.Generator) -> Arrays:
    shape = padding['mask'].shape
    count = min(shape[1], 4 * len(self.items))
    item = generator.integers(0, len(self.items), shape, np.int32)
    levels = np.array([len(each.categories) for each in self.items])[item]
    category = (generator.random(shape) * levels).astype(np.int32)
    mask = np.broadcast_to(np.arange(shape[1]) < count, shape)
    value = base.plausible(self.items, generator)[item]
    fields = {
      'item': item,
      'value': np.where(levels > 0, 0, value).astype(np.float32),
      'category': np.where(levels > 0, category, -1).astype(np.int32),
      'time': -np.sort(generator.exponential(10, shape))[:, ::-1].astype(np.float32),
    }
    fields = {
      key: np.where(mask, array, array.dtype.type(0)) for key, array in fields.items()
    }
    return {**fields, 'mask': mask.copy()}
