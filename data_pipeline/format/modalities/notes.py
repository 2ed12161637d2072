"""Notes: vectors from a text model, one per clinical note, each with a time."""

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
class Notes(base.Modality):
  """A bag of vectors.

  Staged as `notes_{name}.parquet`: `sample_id`, `vector` FLOAT[width], finite, `time`
  FLOAT. The text model is not recorded; it must be the same for all data that a model
  reads.

  Attributes:
    width: numbers of a vector.
  """

  width: int

  kind = 'notes'
  layout = 'padded'
  prefix = 'notes/{name}'
  table = Table('notes_{name}', order='time, vector')
  counted = 'time'
  noun = 'notes'
  time = 'time'

  @property
  def cost(self) -> Cost:
    return Cost('notes', row_bytes=8 * self.width, rows_per_second=50_000)

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> Self:
    return cls(fields['width'])

  @property
  def variables(self) -> tuple[Item, ...]:
    """A single variable: whether there are notes."""
    return (Item('notes', 'notes'),)

  @property
  def arrays(self) -> dict[str, Feature]:
    return {
      'vector': Feature(np.float32, (None, self.width), meaning='output of the text model'),
      'time': Feature(np.float32, (None,), meaning=base.HOURS),
    }

  def examples(self, rows: StagedRows) -> Iterator[dict[str, np.ndarray]]:
    vector = rows.vectors('vector', self.width)
    time = rows.column('time').astype(np.float32)
    rows.check('vector', np.asarray(np.isfinite(vector).all(axis=1)))
    rows.check('time', time <= 0)
    for of_sample in rows.slices():
      yield {'vector': vector[of_sample], 'time': time[of_sample]}

  def aligned(self, data: Notes, places: Sequence[int], arrays: Arrays) -> Arrays:
    del data
    known = np.bool_(places[0] >= 0)
    return base.kept(arrays, np.broadcast_to(known, arrays['mask'].shape))

  def last_values(self, arrays: Arrays) -> np.ndarray:
    """The number of notes."""
    return np.array([len(arrays['time']) or np.nan])

  def found(self, arrays: Arrays, rows: tuple[int, int]) -> np.ndarray:
    del rows
    return np.asarray(arrays['mask'].any(axis=2, keepdims=True))

  def invented(self, padding: Arrays, generator: np.random.Generator) -> Arrays:
    mask = np.ones(padding['mask'].shape, bool)
    time = -np.sort(generator.exponential(10, mask.shape))[:, ::-1]
    vector = generator.normal(0, 1, padding['vector'].shape)
    return {
      'vector': vector.astype(np.float32),
      'time': time.astype(np.float32),
      'mask': mask,
    }

  def difference(self, data: base.Modality) -> str:
    assert isinstance(data, Notes)
    if data.width == self.width:
      return ''
    return f'vectors of {data.width} numbers; the model has {self.width}'

  @property
  def sizes(self) -> tuple[Any, ...]:
    return (self.width,)
