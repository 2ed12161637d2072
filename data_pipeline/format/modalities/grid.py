"""Grids: signals with one value per step, up to the prediction time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from data_pipeline.format.items import Item
from data_pipeline.format.modalities import base
from data_pipeline.format.modalities.base import Arrays, Cost, Feature, Table
from data_pipeline.format.modalities.staged import StagedRows


@dataclasses.dataclass(frozen=True)
class Grid(base.Modality):
  """Regularly sampled signals: `steps` cells of `step_hours`, one column an item.

  Staged as `grid_{name}.parquet`: `sample_id`, `step` INTEGER, `signal` INTEGER, `value`
  FLOAT: mean of the observations in the cell; absent cells have no row.

  Attributes:
    items: the signals.
    steps: cells of each; the last ends at the prediction time.
    step_hours: length of a cell.
  """

  items: tuple[Item, ...]
  steps: int
  step_hours: float

  kind = 'grid'
  layout = 'fixed'
  prefix = 'grid/{name}'
  table = Table('grid_{name}', order='step, signal, value')
  counted = 'observed'
  noun = 'observed cells'

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> Self:
    items = tuple(map(Item.from_json, fields['items']))
    return cls(items, fields['steps'], fields['step_hours'])

  @property
  def cost(self) -> Cost:
    return Cost('events', row_bytes=32, rows_per_second=500_000)

  @property
  def variables(self) -> tuple[Item, ...]:
    return self.items

  @property
  def arrays(self) -> dict[str, Feature]:
    shape = (self.steps, len(self.items))
    return {
      'value': Feature(
        np.float32, shape, meaning='mean of each item in a cell, in its unit'
      ),
      'observed': Feature(
        np.uint8, shape, batch='flag', meaning='true if the cell has a value'
      ),
    }

  def examples(self, rows: StagedRows) -> Iterator[dict[str, np.ndarray]]:
    shape = (self.steps, len(self.items))
    step, signal = rows.column('step'), rows.column('signal')
    value = rows.column('value', np.float32)
    rows.check('step', (step >= 0) & (step < self.steps))
    rows.check('signal', (signal >= 0) & (signal < len(self.items)))
    rows.check('value', np.isfinite(value))
    for of_sample in rows.slices():
      values = np.zeros(shape, np.float32)
      observed = np.zeros(shape, np.uint8)
      values[step[of_sample], signal[of_sample]] = value[of_sample]
      observed[step[of_sample], signal[of_sample]] = 1
      yield {'value': values, 'observed': observed}

  def aligned(self, data: Grid, places: Sequence[int], arrays: Arrays) -> Arrays:
    del data
    result = {}
    for key, array in arrays.items():
      # Both end at the prediction time.
      last = array[:, :, max(0, array.shape[2] - self.steps) :]
      earlier = ((0, 0), (0, 0), (self.steps - last.shape[2], 0), (0, 0))
      missing = np.zeros((), array.dtype)
      result[key] = base.chosen(np.pad(last, earlier), np.array(places, np.int64), missing)
    return result

  def known_at(self, arrays: Arrays, hours: float) -> dict[str, np.ndarray]:
    """Cells that were over at the moment, moved to the end; empty cells fill the beginning.

    The cell that contains the moment is not known, because part of it is later.
    """
    # Rounded: 0.3 h are 3 cells of 0.1 h, not 4.
    later = min(self.steps, math.ceil(round(-hours / self.step_hours, 6)))
    none = lambda array: np.zeros_like(array[:later])
    return {
      key: np.concatenate([none(array), array[: self.steps - later]])
      for key, array in arrays.items()
    }

  def last_values(self, arrays: Arrays) -> np.ndarray:
    return base.last_seen(arrays['value'], arrays['observed'])

  def found(self, arrays: Arrays, rows: tuple[int, int]) -> np.ndarray:
    del rows
    return np.asarray(arrays['observed'].any(axis=2))

  def invented(self, padding: Arrays, generator: np.random.Generator) -> Arrays:
    shape = padding['value'].shape
    observed = generator.random(shape) < 0.5
    near = base.plausible(self.items, generator)
    value = generator.normal(near, 1, shape).astype(np.float32)
    return {'value': np.where(observed, value, np.float32(0)), 'observed': observed}

  def difference(self, data: base.Modality) -> str:
    assert isinstance(data, Grid)
    if data.step_hours == self.step_hours:
      return ''
    return f'steps of {data.step_hours:g} h; the model has {self.step_hours:g} h'

  @property
  def extent_hours(self) -> float:
    return self.steps * self.step_hours

  @property
  def sizes(self) -> tuple[Any, ...]:
    return (self.steps, self.step_hours)
