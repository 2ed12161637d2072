"""Lost and shifted events against a slow computation, event by event."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from medm2t_jax.damage import batches as damaged
from medm2t_jax.modalities import draws, ecg_damage
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
# The spread of variable k is k + 1.
SPREADS = np.arange(1.0, 9.0)
STATISTICS = {
  name: {
    'knots': 3.29 * SPREADS[:, np.newaxis] * (np.arange(12) - 1) / 9,
    'scale': 1.349 * SPREADS,
  }
  for name in SCHEMA.names
}


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
    lambda batch: damaged.charted_every(batch, MODALITIES, 0.0),
    lambda batch: damaged.charted_late(batch, MODALITIES, 0.0),
    lambda batch: damaged.noisy_values(batch, MODALITIES, 0.0, 0, STATISTICS),
    lambda batch: damaged.tenfold_values(batch, MODALITIES, 0.0, 0),
    lambda batch: damaged.variables_swapped(batch, MODALITIES, 0.0, 0),
    lambda batch: damaged.units_changed(batch, MODALITIES, 0.0, 0),
    lambda batch: {
      **batch,
      'ecg': ecg_damage.band_limited(batch['ecg'], batch['row'], 0.0),
    },
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


def spans_of(times, minutes):
  """The interval of each time, before the prediction time."""
  return [int(np.floor(np.float64(np.float32(time)) * 60.0 / minutes)) for time in times]


@pytest.mark.parametrize('minutes', [15.0, 60.0, 240.0])
def test_charted_every(batch, minutes):
  found = damaged.charted_every(batch, MODALITIES, minutes)
  assert_contract(found, batch)
  lost = 0
  for place in PLACES:
    for name in EVENTS:
      before = events_of(batch, name, *place)
      keys = list(
        zip(
          [each[0] for each in before],
          spans_of([each[3] for each in before], minutes),
          strict=True,
        )
      )
      expected = [each for n, each in enumerate(before) if keys[n] not in keys[n + 1 :]]
      assert events_of(found, name, *place) == expected
      lost += len(before) - len(expected)
    steps = round(minutes / 60 / STEP_HOURS)
    span = lambda step, steps=steps: (STEPS - 1 - step) // steps
    before = cells_of(batch, *place)
    last = {}
    for step, signal in sorted(before):
      last[signal, span(step)] = step, signal
    assert cells_of(found, *place) == {cell: before[cell] for cell in last.values()}
  assert lost
  assert_equal(found['ecg'], batch['ecg'])


@pytest.mark.parametrize('hours', [1.0, 4.0])
def test_charted_late(batch, hours):
  found = damaged.charted_late(batch, MODALITIES, hours)
  assert_contract(found, batch)
  for place in PLACES:
    for name in EVENTS:
      before = events_of(batch, name, *place)
      assert events_of(found, name, *place) == [
        each for each in before if each[3] <= -hours
      ]
    expected = [each for each in recordings_of(batch, *place) if each[0] <= -hours]
    assert recordings_of(found, *place) == expected
    assert cells_of(found, *place) == {
      cell: value
      for cell, value in cells_of(batch, *place).items()
      # A cell ends this long before the prediction time.
      if (STEPS - cell[0] - 1) * STEP_HOURS >= hours - 1e-9
    }


def numbers_of(batch, name, device, row):
  """(variable, value) of every number of a sample, in order."""
  if name == 'vitals':
    return [(signal, value) for (_, signal), value in cells_of(batch, device, row).items()]
  events = events_of(batch, name, device, row)
  return [(int(item), value) for item, value, category, _ in events if category < 0]


def test_noise_has_the_spread_of_its_variable(batch):
  weak, strong = (
    damaged.noisy_values(batch, MODALITIES, strength, 0, STATISTICS)
    for strength in (0.5, 1.0)
  )
  assert_contract(weak, batch)
  added = {name: ([], []) for name in ('labs', 'vitals')}
  for place in PLACES:
    for name, (one, half) in added.items():
      before = numbers_of(batch, name, *place)
      for (item, value), (_, more), (_, less) in zip(
        before,
        numbers_of(strong, name, *place),
        numbers_of(weak, name, *place),
        strict=True,
      ):
        one.append((more - value) / (item + 1))
        half.append((less - value) / (item + 1))
    categories = [each for each in events_of(batch, 'labs', *place) if each[2] >= 0]
    assert categories == [
      each for each in events_of(strong, 'labs', *place) if each[2] >= 0
    ]
  for one, half in added.values():
    assert np.std(one) == pytest.approx(1, abs=3 / len(one) ** 0.5)
    assert np.mean(one) == pytest.approx(0, abs=4 / len(one) ** 0.5)
    np.testing.assert_allclose(half, np.array(one) / 2, atol=1e-4)


def test_one_in_a_hundred_is_ten_times_as_large(batch):
  found = damaged.tenfold_values(batch, MODALITIES, 5.0, 0)
  assert_contract(found, batch)
  slipped = [
    after == pytest.approx(10 * before)
    for place in PLACES
    for (_, before), (_, after) in zip(
      numbers_of(batch, 'vitals', *place), numbers_of(found, 'vitals', *place), strict=True
    )
    if after != before
  ]
  count = batch['vitals']['observed'].sum()
  assert all(slipped) and len(slipped) / count == pytest.approx(0.05, abs=0.01)


def test_pairs_of_variables_exchange_their_numbers(batch):
  found = damaged.variables_swapped(batch, MODALITIES, 2.0, 0)
  assert_contract(found, batch)
  for name, pairs in (('labs', 1), ('vitals', 2)):
    partner = {}
    for place in PLACES:
      before = sorted(numbers_of(batch, name, *place))
      after = sorted(numbers_of(found, name, *place))
      values = lambda numbers, item: [value for each, value in numbers if each == item]
      for item in {each for each, _ in before}:
        (now,) = {
          other for other, _ in after if values(after, other) == values(before, item)
        }
        assert partner.setdefault(item, now) == now
    swapped = {item: now for item, now in partner.items() if now != item}
    assert len(swapped) == 2 * pairs and all(
      swapped[swapped[item]] == item for item in swapped
    )


def test_variables_in_another_unit(batch):
  one, three = (damaged.units_changed(batch, MODALITIES, count, 0) for count in (1.0, 3.0))
  assert_contract(three, batch)
  changed = []
  for found in (one, three):
    ratios = {}
    for place in PLACES:
      for (item, before), (_, after) in zip(
        numbers_of(batch, 'vitals', *place),
        numbers_of(found, 'vitals', *place),
        strict=True,
      ):
        ratios.setdefault(item, set()).add(round(after / before, 4))
    assert all(len(each) == 1 for each in ratios.values())
    changed.append({item for item, each in ratios.items() if each == {0.1}})
  assert changed[0] < changed[1] and [*map(len, changed)] == [1, 3]


def test_values_beyond_the_limits_of_a_variable_are_dropped_as_in_preparation(batch):
  (labs,) = [each for each in MODALITIES if each.name == 'labs']
  items = tuple(dataclasses.replace(each, low=-5, high=5) for each in labs.spec.items)
  limited = dataclasses.replace(labs, spec=dataclasses.replace(labs.spec, items=items))
  found = damaged.tenfold_values(batch, [limited], 100.0, 0)
  assert_contract(found, batch)
  for place in PLACES:
    assert events_of(found, 'labs', *place) == [
      each if each[2] >= 0 else (each[0], float(np.float32(10 * each[1])), *each[2:])
      for each in events_of(batch, 'labs', *place)
      if each[2] >= 0 or abs(10 * each[1]) <= 5
    ]


@pytest.mark.parametrize(
  'damage',
  [
    lambda batch, level: damaged.charted_every(batch, MODALITIES, level),
    lambda batch, level: damaged.charted_late(batch, MODALITIES, level),
    lambda batch, level: damaged.noisy_values(batch, MODALITIES, level, 0, STATISTICS),
    lambda batch, level: damaged.tenfold_values(batch, MODALITIES, level, 0),
    lambda batch, level: damaged.variables_swapped(batch, MODALITIES, level, 0),
    lambda batch, level: damaged.units_changed(batch, MODALITIES, level, 0),
    lambda batch, level: {
      **batch,
      'ecg': ecg_damage.leads_lost(batch['ecg'], batch['row'], level, 0),
    },
    lambda batch, level: {
      **batch,
      'ecg': ecg_damage.band_limited(batch['ecg'], batch['row'], level),
    },
  ],
)
def test_every_sample_may_have_a_level_of_its_own(batch, damage):
  levels = np.tile([0.0, 1.0, 4.0], 4).reshape(2, 6)
  found = damage(batch, levels)
  assert_contract(found, batch)
  for device, row in PLACES:
    alone = damage(batch, float(levels[device, row]))
    for name in EVENTS:
      assert events_of(found, name, device, row) == events_of(alone, name, device, row)
    assert cells_of(found, device, row) == cells_of(alone, device, row)
    assert recordings_of(found, device, row) == recordings_of(alone, device, row)
