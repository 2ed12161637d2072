"""Batches of two devices, and a slow view of them as what each sample knows."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from tests.support import fake_batch, kinds

SCHEMA = fake_batch.schema('mortality')
MODALITIES = fake_batch.config('mortality').modalities
EVENTS = tuple(kinds.events(SCHEMA))
ARRAYS = ('item', 'value', 'category', 'time')


def two_devices(seed: int = 0) -> dict[str, Any]:
  """A random batch; rows of the index are 0, 1, ... and 100, 101, ..."""
  parts = [fake_batch.batch(samples=20, seed=seed + device) for device in range(2)]
  parts[1]['row'] = np.where(parts[1]['row'] >= 0, parts[1]['row'] + 100, -1)
  for part in parts:
    part['row'] = part['row'].astype(np.int32)
  return jax.tree.map(lambda *arrays: np.stack(arrays), *parts)


def events_of(batch: Any, name: str, device: int, row: int) -> list[tuple[float, ...]]:
  """The events of one sample, in order: (item, value, category, time)."""
  arrays = batch[name]
  return [
    tuple(float(arrays[key][device, row, n]) for key in ARRAYS)
    for n in range(arrays['mask'].shape[2])
    if arrays['mask'][device, row, n]
  ]


def recordings_of(batch: Any, device: int, row: int) -> list[tuple[Any, ...]]:
  """The recordings of one sample, in order."""
  ecg = batch['ecg']
  return [
    (
      float(ecg['time'][device, slot]),
      float(ecg['gain'][device, slot]),
      ecg['signal'][device, slot].tolist(),
      ecg['measurements'][device, slot].tolist(),
      ecg['measurements_mask'][device, slot].tolist(),
      ecg['terms'][device, slot].tolist(),
    )
    for slot in range(ecg['mask'].shape[1])
    if ecg['mask'][device, slot] and ecg['owner'][device, slot] == row
  ]


def assert_contract(batch: Any, like: Any) -> None:
  """Shapes and dtypes of `like`, zeros under false masks, and no gaps."""
  same = lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype)
  assert jax.tree.all(jax.tree.map(same, batch, like))
  for name in (*EVENTS, 'ecg'):
    mask = batch[name]['mask']
    assert (np.diff(mask.astype(int), axis=-1) <= 0).all(), f'{name} has gaps'
    for key, array in batch[name].items():
      assert not array[~mask].any(), (name, key)
  for name in kinds.grids(SCHEMA):
    assert not batch[name]['value'][~batch[name]['observed']].any()
  assert not batch['static']['numeric'][~batch['static']['numeric_mask']].any()
  for name in EVENTS:
    assert (batch[name]['time'] <= 0).all()
  assert (batch['ecg']['time'] <= 0).all()


def assert_equal(found: Any, expected: Any) -> None:
  """Equal bit for bit."""
  jax.tree.map(np.testing.assert_array_equal, found, expected)
