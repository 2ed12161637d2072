"""Static variables: one value per sample, without a time."""

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
class Static(base.Modality):
  """Columns with a value, and columns with a category.

  Staged as `static.parquet`: `sample_id`, then one column per variable, named by its
  `itemid`: DOUBLE (numeric) or VARCHAR (categorical); null = missing.

  Attributes:
    numeric: columns with a value.
    categorical: columns with a category.
  """

  numeric: tuple[Item, ...] = ()
  categorical: tuple[Item, ...] = ()

  kind = 'static'
  layout = 'fixed'
  prefix = '{name}'
  table = Table('{name}', order='')
  counted = None
  noun = 'values'

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> Self:
    columns = (fields[name] for name in ('numeric', 'categorical'))
    return cls(*(tuple(map(Item.from_json, rows)) for rows in columns))

  @property
  def cost(self) -> Cost:
    return Cost('', row_bytes=0, rows_per_second=500_000)

  @property
  def variables(self) -> tuple[Item, ...]:
    return (*self.numeric, *self.categorical)

  @property
  def arrays(self) -> dict[str, Feature]:
    numbers = (len(self.numeric),)
    return {
      'numeric': Feature(
        np.float32, numbers, meaning='value of each numeric column, in its unit'
      ),
      'numeric_mask': Feature(
        np.uint8, numbers, batch='flag', meaning='true if it is known'
      ),
      'categorical': Feature(
        np.int32,
        (len(self.categorical),),
        padding=-1,
        meaning='index into the categories of each categorical column, -1: unknown',
      ),
    }

  def examples(self, rows: StagedRows) -> Iterator[dict[str, np.ndarray]]:
    row = rows.sample()
    numeric = np.full((rows.samples, len(self.numeric)), np.nan, np.float32)
    for place, item in enumerate(self.numeric):
      numeric[row, place] = rows.column(item.itemid, np.float64)
    categorical = np.full((rows.samples, len(self.categorical)), -1, np.int32)
    for place, item in enumerate(self.categorical):
      categorical[row, place] = rows.codes(item)
    mask = np.isfinite(numeric)
    for i in range(rows.samples):
      yield {
        'numeric': np.where(mask[i], numeric[i], np.float32(0)),
        'numeric_mask': mask[i].astype(np.uint8),
        'categorical': categorical[i],
      }

  def aligned(self, data: Static, places: Sequence[int], arrays: Arrays) -> Arrays:
    numeric = np.array(places[: len(self.numeric)], np.int64)
    levels = np.array(places[len(self.numeric) :], np.int64)
    levels = np.where(levels >= 0, levels - len(data.numeric), -1)
    categorical = base.chosen(arrays['categorical'], levels, np.int32(-1))
    for place, at in enumerate(levels):
      if at >= 0:
        known = self.categorical[place].categories
        offered = data.categorical[at].categories
        to_model = [known.index(one) if one in known else -1 for one in offered]
        table = np.array([*to_model, -1], np.int32)  # the last entry maps -1
        categorical[..., place] = table[categorical[..., place]]
    return {
      'numeric': base.chosen(arrays['numeric'], numeric, np.float32(0)),
      'numeric_mask': base.chosen(arrays['numeric_mask'], numeric, np.False_),
      'categorical': categorical,
    }

  def known_at(self, arrays: Arrays, hours: float) -> dict[str, np.ndarray]:
    """All values unchanged; `hours` has no effect.

    A record does not say since when a column was known, and age hardly changes within days.
    """
    del hours
    return dict(arrays)

  def last_values(self, arrays: Arrays) -> np.ndarray:
    category = arrays['categorical']
    return np.concatenate(
      [
        np.where(arrays['numeric_mask'] > 0, arrays['numeric'], np.nan),
        np.where(category >= 0, category, np.nan),
      ]
    )

  def found(self, arrays: Arrays, rows: tuple[int, int]) -> np.ndarray:
    del rows
    parts = [arrays['numeric_mask'], arrays['categorical'] >= 0]
    return np.concatenate(parts, axis=-1)

  def invented(self, padding: Arrays, generator: np.random.Generator) -> Arrays:
    numeric = generator.normal(50, 10, padding['numeric'].shape)
    levels = np.array([len(each.categories) for each in self.categorical])
    picked = generator.random(padding['categorical'].shape) * levels
    return {
      'numeric': numeric.astype(np.float32),
      'numeric_mask': np.ones_like(numeric, bool),
      'categorical': picked.astype(np.int32),
    }

  @property
  def sizes(self) -> tuple[Any, ...]:
    return (len(self.numeric),)
