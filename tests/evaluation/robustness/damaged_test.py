"""Lost and shifted events against a slow computation, event by event."""

from __future__ import annotations

import numpy as np
import pytest

from medm2t_jax.evaluation.robustness import damaged
from medm2t_jax.modalities import draws
from tests.support.damaged_batches import (
  EVENTS,
  MODALITIES,
  SCHEMA,
  assert_contract,
  assert_equal,
  events_of,
  recordings_of,
  two_devices,
)

PLACES = [(device, row) for device in range(2) for row in range(6)]
STEPS, STEP_HOURS = (
  SCHEMA.modalities['vitals'].steps,
  SCHEMA.modalities['vitals'].step_hours,
)


@pytest.fixture(scope='module')
def batch():
  return two_devices()


def cells_of(batch, device, row):
  observed = batch['vitals']['observed'][device, row]
  return {
    (int(step), int(signal)): float(batch['vitals']['value'][device, row, step, signal])
    for step, signal in np.argwhere(observed)
  }


@pytest.mark.parametrize(
  'same',
  [
    lambda batch: damaged.earlier(batch, MODALITIES, 0.0),
    lambda batch: damaged.thinned(batch, MODALITIES, 0.0, 0),
    lambda batch: damaged.modalities_lost(batch, MODALITIES, 0.0, 0),
    lambda batch: damaged.known_since(batch, MODALITIES, np.inf),
  ],
)
def test_no_damage_changes_no_bit(batch, same):
  assert_equal(same(batch), batch)


@pytest.mark.parametrize('hours', [1.0, 3.0, 12.0, 30.0])
def test_earlier(batch, hours):
  found = damaged.earlier(batch, MODALITIES, hours)
  assert_contract(found, batch)
  steps = round(hours / STEP_HOURS)
  moved = lambda time: float(np.float32(time) - np.float32(hours))
  for place in PLACES:
    for name in EVENTS:
      expected = [(*each[:3], moved(each[3])) for each in events_of(batch, name, *place)]
      assert events_of(found, name, *place) == expected
    expected = [(moved(time), *rest) for time, *rest in recordings_of(batch, *place)]
    assert recordings_of(found, *place) == expected
    assert cells_of(found, *place) == {
      (step - steps, signal): value
      for (step, signal), value in cells_of(batch, *place).items()
      if step >= steps
    }
  assert_equal(found['static'], batch['static'])


@pytest.mark.parametrize('hours', [18.0, 3.0, 1.0])
def test_known_since(batch, hours):
  found = damaged.known_since(batch, MODALITIES, hours)
  assert_contract(found, batch)
  lost = 0
  for place in PLACES:
    for name in EVENTS:
      before = events_of(batch, name, *place)
      expected = [each for each in before if each[3] >= -hours]
      assert events_of(found, name, *place) == expected
      lost += len(before) - len(expected)
    expected = [each for each in recordings_of(batch, *place) if each[0] >= -hours]
    assert recordings_of(found, *place) == expected
    assert cells_of(found, *place) == {
      cell: value
      for cell, value in cells_of(batch, *place).items()
      # A cell begins this long before the prediction time.
      if (STEPS - cell[0]) * STEP_HOURS <= hours + 1e-9
    }
  assert lost
  assert_equal(found['static'], batch['static'])


@pytest.mark.parametrize('percent', [10.0, 50.0, 90.0])
def test_thinned(batch, percent):
  found = damaged.thinned(batch, MODALITIES, percent, 3)
  assert_contract(found, batch)
  for device, row in PLACES:
    index = int(batch['row'][device, row])
    for name in EVENTS:
      before = events_of(batch, name, device, row)
      drawn = draws.generator(max(index, 0), 3, f'thin {name}')
      # One number an event.
      expected = [each for each in before if drawn.random() >= percent / 100]
      assert events_of(found, name, device, row) == expected
  before, after = batch['vitals']['observed'].sum(), found['vitals']['observed'].sum()
  assert after / before == pytest.approx(1 - percent / 100, abs=0.03)
  assert_equal(found['ecg'], batch['ecg'])
  assert_equal(found['static'], batch['static'])


def test_a_higher_share_removes_what_a_lower_one_does(batch):
  for damage in (damaged.thinned, damaged.modalities_lost):
    less, more = (damage(batch, MODALITIES, percent, 0) for percent in (30.0, 70.0))
    for place in PLACES:
      for name in EVENTS:
        kept = events_of(less, name, *place)
        assert set(events_of(more, name, *place)) <= set(kept)
    assert not (more['vitals']['observed'] & ~less['vitals']['observed']).any()


def test_modalities_are_lost_whole_and_each_on_its_own(batch):
  found = damaged.modalities_lost(batch, MODALITIES, 50.0, 1)
  assert_contract(found, batch)
  fates = set()
  for device, row in PLACES:
    if batch['row'][device, row] < 0:
      continue
    place = device, row
    parts = [
      (
        *(events_of(each, name, *place) for name in EVENTS),
        cells_of(each, *place),
        recordings_of(each, *place),
      )
      for each in (found, batch)
    ]
    for after, before in zip(*parts, strict=True):
      assert not after or after == before
    fates.add(tuple(bool(after) for after in parts[0]))
    static = {key: array[place] for key, array in found['static'].items()}
    if (static['categorical'] == -1).all() and not static['numeric_mask'].any():
      assert not static['numeric'].any()
    else:
      assert_equal(static, {key: array[place] for key, array in batch['static'].items()})
  assert len(fates) > 3
  everything = damaged.modalities_lost(batch, MODALITIES, 100.0, 1)
  assert not any(everything[name]['mask'].any() for name in (*EVENTS, 'ecg'))
  assert not everything['vitals']['observed'].any()
  assert not everything['static']['numeric_mask'].any()


def test_draws_follow_the_sample_and_not_its_batch_or_padding(batch):
  other = two_devices(seed=5)
  mixed = {key: value for key, value in other.items()}
  mixed['row'] = np.array(other['row'])
  mixed['row'][1, 2] = batch['row'][0, 0]
  mixed['labs'] = {
    key: np.pad(np.array(array), ((0, 0), (0, 0), (0, 4)))
    for key, array in other['labs'].items()
  }
  for key, array in mixed['labs'].items():
    array[1, 2, :12] = batch['labs'][key][0, 0]
  alone = damaged.thinned(batch, MODALITIES, 50.0, 0)
  among = damaged.thinned(mixed, MODALITIES, 50.0, 0)
  expected = events_of(alone, 'labs', 0, 0)
  assert 0 < len(expected) < 12
  assert events_of(among, 'labs', 1, 2) == expected
