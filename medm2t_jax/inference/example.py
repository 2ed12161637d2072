"""An invented request to a model: its self-test, with nobody's data in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from data_pipeline.format.schema import Schema
from data_pipeline.reading import input_pipeline

ROWS = 2


def invented(schema: Schema, config: Any) -> dict[str, Any]:
  """A batch of `ROWS` rows without a device axis, with something of every modality.

  Args:
    schema: of the model's data.
    config: with `data`, as of `input_pipeline.batches`.
  """
  generator = np.random.default_rng(0)
  batch = {
    **input_pipeline.padding(
      schema, modalities=schema.modalities, config=config, rows=ROWS
    ),
    'row': np.arange(ROWS, dtype=np.int32),
    'weight': np.ones(ROWS, np.float32),
  }
  for name, items in schema.events.items():
    length = batch[name]['mask'].shape[1]
    shape, count = (ROWS, length), min(length, 4 * len(items))
    item = generator.integers(0, len(items), shape, np.int32)
    levels = np.array([len(each.categories) for each in items])[item]
    category = (generator.random(shape) * levels).astype(np.int32)
    mask = np.broadcast_to(np.arange(length) < count, shape)
    fields = {
      'item': item,
      'value': np.where(levels > 0, 0, _near(items, generator)[item]).astype(np.float32),
      'category': np.where(levels > 0, category, -1).astype(np.int32),
      'time': -np.sort(generator.exponential(10, shape))[:, ::-1].astype(np.float32),
    }
    fields = {
      key: np.where(mask, array, array.dtype.type(0)) for key, array in fields.items()
    }
    batch[name] = {**fields, 'mask': mask.copy()}
  for name, grid in schema.grids.items():
    shape = batch[name]['value'].shape
    observed = generator.random(shape) < 0.5
    value = generator.normal(_near(grid.items, generator), 1, shape).astype(np.float32)
    batch[name] = {'value': np.where(observed, value, np.float32(0)), 'observed': observed}
  if 'static' in schema.modalities:
    numeric = generator.normal(50, 10, (ROWS, len(schema.static_numeric)))
    levels = np.array([len(each.categories) for each in schema.static_categorical])
    chosen = generator.random((ROWS, len(levels))) * levels
    batch['static'] = {
      'numeric': numeric.astype(np.float32),
      'numeric_mask': np.ones_like(numeric, bool),
      'categorical': chosen.astype(np.int32),
    }
  if 'ecg' in batch:
    ecg = batch['ecg']
    mask = np.arange(len(ecg['mask'])) < ROWS
    signal = generator.normal(0, 200, ecg['signal'].shape).astype(np.int16)
    measured = generator.normal(400, 100, ecg['measurements'].shape).astype(np.float32)
    terms = (generator.random(ecg['terms'].shape) < 0.2).astype(ecg['terms'].dtype)
    fields = {
      'signal': signal,
      'gain': np.full(len(mask), 200, np.float32),
      'time': np.zeros(len(mask), np.float32),
      'measurements': measured,
      'measurements_mask': np.ones_like(measured, bool),
      'terms': terms,
      'owner': np.arange(len(mask), dtype=np.int32),
    }
    wide = lambda array: mask.reshape(-1, *(1,) * (array.ndim - 1))
    kept = {key: np.where(wide(one), one, one.dtype.type(0)) for key, one in fields.items()}
    batch['ecg'] = {**kept, 'mask': mask}
  return batch


def padded(example: Mapping[str, Any], rows: int, capacity: int) -> dict[str, Any]:
  """The example as a batch of the usual shapes, so that no program is compiled for it.

  Args:
    example: of `invented`.
    rows: of a device's batch.
    capacity: recordings that a device's batch holds.
  """
  last = {'row': -1, 'categorical': -1}

  def longer(name: str, array: np.ndarray, count: int) -> np.ndarray:
    widths = [(0, count - len(array))] + [(0, 0)] * (array.ndim - 1)
    return np.pad(array, widths, constant_values=last.get(name, 0))

  return {
    key: {
      name: longer(name, array, capacity if key == 'ecg' else rows)
      for name, array in value.items()
    }
    if isinstance(value, Mapping)
    else longer(key, value, rows)
    for key, value in example.items()
  }


def _near(items: Any, generator: np.random.Generator) -> np.ndarray:
  """A plausible value of each item: inside its limits, where it has them."""
  low = np.array([0.0 if item.low is None else item.low for item in items])
  high = np.array([100.0 if item.high is None else item.high for item in items])
  return low + (high - low) * generator.uniform(0.1, 0.6, len(items))
