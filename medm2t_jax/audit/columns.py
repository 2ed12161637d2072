"""The inputs as columns, one number per sample: the last value of every item.

Letters: c columns, n events, g grid steps, v signals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from data_pipeline.format.modalities.base import arrays_of
from data_pipeline.format.schema import Schema


@dataclasses.dataclass(frozen=True)
class Column:
  """One input.

  Attributes:
    modality: of the item.
    itemid: the source's own code.
    name: readable.
    categorical: whether the number is the index of a category.
  """

  modality: str
  itemid: str
  name: str
  categorical: bool

  def __str__(self) -> str:
    code = '' if self.itemid == self.name else f' ({self.itemid})'
    return f'{self.modality}: {self.name}{code}'


def columns(schema: Schema) -> tuple[Column, ...]:
  """All inputs of a data set except signals, in model order."""
  return tuple(
    Column(modality, item.itemid, name, categorical)
    for modality, each in schema.modalities.items()
    for item, (name, categorical) in zip(each.variables, each.labels(), strict=True)
  )


def last_values(example: Mapping[str, np.ndarray], schema: Schema) -> np.ndarray:
  """The last value of every column of `columns` in one sample: float64 (c,), NaN = absent.

  Args:
    example: features of a record.
    schema: of the data set.
  """
  parts = [
    each.last_values(arrays_of(name, each, example))
    for name, each in schema.modalities.items()
  ]
  return np.concatenate(parts).astype(np.float64)
