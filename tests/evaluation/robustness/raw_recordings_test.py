"""Exchanged and lost leads, and signals that are replaced by damaged ones."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipeline.ecg import rereading
from data_pipeline.ecg.conditioning import condition
from data_pipeline.ecg.raw_recording import RawRecording
from data_pipeline.ecg.rereading import Damage, Recording
from data_pipeline.format.modalities.waveform import (
  ECG_LEADS,
  ECG_SAMPLES,
  ECG_SAMPLING_RATE,
)
from medm2t_jax.evaluation.robustness.raw_recordings import RawRecordings
from medm2t_jax.modalities import ecg_damage
from tests.ecg.conditioning_test import in_millivolts
from tests.support.damaged_batches import assert_contract, assert_equal, two_devices


@pytest.fixture(scope='module')
def batch():
  return two_devices()


def twelve_leads(left, right, foot, chest):
  """Leads from the potentials of electrodes, (samples,) each; chest (samples, 6)."""
  center = (left + right + foot) / 3
  limbs = [
    left - right, foot - right, foot - left, right - (left + foot) / 2,
    left - (right + foot) / 2, foot - (left + right) / 2,
  ]  # fmt: skip
  return np.column_stack([*limbs, chest - center[:, None]])


def test_exchanged_arms_are_those_of_exchanged_electrodes():
  rng = np.random.default_rng(0)
  walk = lambda *shape: np.cumsum(rng.normal(0, 0.02, (5000, *shape)), axis=0)
  left, right, foot, chest = walk(), walk(), walk(), walk(6)
  units, gain = condition(twelve_leads(left, right, foot, chest), 500.0)
  expected = in_millivolts(condition(twelve_leads(right, left, foot, chest), 500.0))
  found = ecg_damage.arms_exchanged({'signal': units[None, None]})['signal']
  assert found.dtype == np.int16
  found = in_millivolts((found[0, 0], gain))
  np.testing.assert_allclose(found, expected, atol=2e-4)
  lead = dict(zip(ECG_LEADS, found.T, strict=True))
  np.testing.assert_allclose(lead['I'] + lead['III'], lead['II'], atol=2e-4)
  np.testing.assert_allclose(lead['aVR'] + lead['aVL'] + lead['aVF'], 0, atol=4e-4)


def test_exchanged_twice_is_as_before(batch):
  once = arms_exchanged(batch)
  assert_contract(once, batch)
  assert not np.array_equal(once['ecg']['signal'], batch['ecg']['signal'])
  assert_equal(arms_exchanged(once), batch)


def arms_exchanged(batch):
  return {**batch, 'ecg': ecg_damage.arms_exchanged(batch['ecg'])}


def leads_lost(batch, count):
  return {**batch, 'ecg': ecg_damage.leads_lost(batch['ecg'], batch['row'], count, 0)}


def flat_leads(batch):
  return [
    frozenset(np.flatnonzero(~signal.any(axis=0)))
    for signal in batch['ecg']['signal'][batch['ecg']['mask']]
  ]


def test_lost_leads_are_flat_and_contain_each_other(batch):
  assert_equal(leads_lost(batch, 0), batch)
  found = [leads_lost(batch, count) for count in (1, 3, 6)]
  for each, count in zip(found, (1, 3, 6), strict=True):
    assert_contract(each, batch)
    assert {len(leads) for leads in flat_leads(each)} == {count}
    kept = each['ecg']['signal'] != 0
    np.testing.assert_array_equal(each['ecg']['signal'][kept], batch['ecg']['signal'][kept])
  one, three, six = map(flat_leads, found)
  assert all(a < b < c for a, b, c in zip(one, three, six, strict=True))
  assert len(set(six)) > 1, 'recordings lose leads of their own'


def test_nothing_above_the_bandwidth_is_left(batch):
  steps = np.arange(ECG_SAMPLES)[:, np.newaxis] / ECG_SAMPLING_RATE
  wave = lambda hertz: 1000 * np.sin(2 * np.pi * hertz * steps)
  signal = np.zeros((*batch['ecg']['mask'].shape, ECG_SAMPLES, 12), np.int16)
  signal[batch['ecg']['mask']] = np.rint(wave(10) + wave(40))
  ecg = {**batch['ecg'], 'signal': signal}
  limited = lambda hertz: ecg_damage.band_limited(ecg, batch['row'], hertz)['signal']
  np.testing.assert_array_equal(limited(62.5), signal)
  found = limited(31.0)
  assert found.dtype == signal.dtype and not found[~ecg['mask']].any()
  left = np.broadcast_to(wave(10), found[ecg['mask']].shape)
  np.testing.assert_allclose(found[ecg['mask']], left, atol=1)
  assert not np.any(np.abs(limited(5.0)) > 1)


def test_raw_recordings_take_the_place_of_their_own_slots(batch, monkeypatch):
  """Signals hold their study's number; one study is refused at one level."""
  located, study = {}, 0
  for device in range(2):
    for row in range(6):
      held = batch['ecg']['mask'][device] & (batch['ecg']['owner'][device] == row)
      index = int(batch['row'][device, row])
      if index >= 0:
        numbers = range(study + 1, study + 1 + int(held.sum()))
        located[index] = tuple(
          Recording(number, RawRecording(str(number))) for number in numbers
        )
        study += int(held.sum())

  def read_damaged(recording, damage, seed):
    assert seed == 4
    if damage.level == 6 and recording.study_id == 2:
      return None
    return np.full((20, 12), recording.study_id, np.int16), damage.level

  monkeypatch.setattr(rereading, 'read_damaged', read_damaged)
  raw = RawRecordings('ecg', located, seed=4)
  damages = [Damage('white', level) for level in (24.0, 6.0)]
  mild, strong = raw.versions(batch, damages)
  for each in (mild, strong):
    assert_contract(each, batch)
  slots = np.argwhere(batch['ecg']['mask'])
  for number, place in enumerate(map(tuple, slots), start=1):
    assert (mild['ecg']['signal'][place] == number).all()
    assert mild['ecg']['gain'][place] == 24
  for key in ('time', 'owner', 'mask', 'measurements', 'terms'):
    np.testing.assert_array_equal(mild['ecg'][key], batch['ecg'][key])
  mask = strong['ecg']['mask']
  left = strong['ecg']['signal'][mask][:, 0, 0].tolist()
  assert left == [number for number in range(1, study + 1) if number != 2]
  assert raw.refused == {damages[1]: 1}
