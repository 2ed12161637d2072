"""The inputs as columns, one number a sample: the last value of every item.

Letters: c columns, n events, g grid steps, v signals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from data_pipeline.format.schema import ECG_MEASUREMENTS, Schema


@dataclasses.dataclass(frozen=True)
class Column:
  """One input.

  Attributes:
    modality: whose item it is.
    itemid: the source's own code.
    name: readable.
    categorical: the number is the index of a category.
  """

  modality: str
  itemid: str
  name: str
  categorical: bool

  def __str__(self) -> str:
    code = '' if self.itemid == self.name else f' ({self.itemid})'
    return f'{self.modality}: {self.name}{code}'


def columns(schema: Schema) -> tuple[Column, ...]:
  """All inputs of a data set but the ECG signal: static, events, grids, ECG."""
  named = [
    ('static', item) for item in (*schema.static_numeric, *schema.static_categorical)
  ]
  named += [(name, item) for name, items in schema.events.items() for item in items]
  named += [(name, item) for name, grid in schema.grids.items() for item in grid.items]
  found = [
    Column(modality, item.itemid, item.name, item.kind == 'categorical')
    for modality, item in named
  ]
  if schema.ecg_terms:
    found += [Column('ecg', name, name, False) for name in ECG_MEASUREMENTS]
    found += [Column('ecg', term, f'term {term}', True) for term in schema.ecg_terms]
  return tuple(found)


def last_values(example: Mapping[str, np.ndarray], schema: Schema) -> np.ndarray:
  """The last value of every column of `columns` in one sample: float64 (c,), NaN = absent.

  Args:
    example: features of a record.
    schema: of the data set.
  """
  parts = []
  if 'static' in schema.modalities:
    observed = example['static/numeric_mask'] > 0
    parts.append(np.where(observed, example['static/numeric'], np.nan))
    category = example['static/categorical']
    parts.append(np.where(category >= 0, category, np.nan))
  for name, items in schema.events.items():
    category = example[f'events/{name}/category']
    last = np.full(len(items), np.nan)
    # Sorted by time: of an item's values the last one stays.
    last[example[f'events/{name}/item']] = np.where(
      category >= 0, category, example[f'events/{name}/value']
    )
    parts.append(last)
  for name in schema.grids:
    parts.append(
      _last_seen(example[f'grid/{name}/value'], example[f'grid/{name}/observed'])
    )
  if schema.ecg_terms:
    values, mask = example['ecg/measurements'], example['ecg/measurements_mask']
    parts.append(_last_seen(values[-1:], mask[-1:]))
    terms = example['ecg/terms'][-1:]
    parts.append(_last_seen(terms, np.ones_like(terms)))
  return np.concatenate(parts).astype(np.float64)


def _last_seen(value: np.ndarray, observed: np.ndarray) -> np.ndarray:
  """The last observed value (v,) of each column of values (g v); NaN without any."""
  if not len(value):
    return np.full(value.shape[1], np.nan)
  observed = observed > 0
  last = len(value) - 1 - observed[::-1].argmax(axis=0)
  return np.where(observed.any(axis=0), value[last, np.arange(value.shape[1])], np.nan)
