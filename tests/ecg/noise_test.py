"""Noise: its strength, its frequencies, and that it is the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipeline.ecg import noise
from tests.ecg.conditioning_test import heartbeat

every_kind = pytest.mark.parametrize('kind', noise.KINDS)


def added(kind, snr, signal=None, rate=500.0, **key):
  signal = heartbeat(rate) if signal is None else signal
  key = {'seed': 0, 'study_id': 7, **key}
  return noise.add_noise(signal, rate, kind, snr, **key) - signal


@every_kind
@pytest.mark.parametrize('snr', [24.0, 0.0, -6.0])
@pytest.mark.parametrize('rate', [250.0, 500.0])
def test_every_lead_has_the_ratio_that_was_asked_for(kind, snr, rate):
  signal = heartbeat(rate)
  found = added(kind, snr, signal, rate)
  ratio = 10 * np.log10(signal.var(axis=0) / found.var(axis=0))
  np.testing.assert_allclose(ratio, snr, atol=1e-6)
  np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)


@every_kind
def test_missing_samples_stay_missing_and_do_not_count(kind):
  signal = heartbeat(500)
  signal[1000:2000, 3] = np.nan
  signal[:, 4] = np.nan
  signal[:, 5] = 0.2
  found = added(kind, 6.0, signal)
  assert np.isnan(found[1000:2000, 3]).all() and np.isnan(found[:, 4]).all()
  seen = np.isfinite(signal[:, 3])
  ratio = signal[seen, 3].var() / found[seen, 3].var()
  assert 10 * np.log10(ratio) == pytest.approx(6.0, abs=1e-6)
  assert (found[:, 5] == 0).all(), 'a flat lead has no power to relate to'


@every_kind
def test_noise_follows_seed_and_study_and_only_grows(kind):
  loud, quiet = added(kind, 0.0), added(kind, 20.0)
  np.testing.assert_array_equal(loud, added(kind, 0.0))
  np.testing.assert_allclose(loud, 10 * quiet, atol=1e-9)
  for key in ({'seed': 1}, {'study_id': 8}, {'study_id': -7}):
    assert not np.allclose(loud, added(kind, 0.0, **key))
  assert not np.allclose(loud[:, 0], loud[:, 1] * loud[:, 0].std() / loud[:, 1].std())


def share_below(found, hertz):
  power = np.abs(np.fft.rfft(found, axis=0)) ** 2
  frequency = np.fft.rfftfreq(len(found), 1 / 500)
  return power[frequency <= hertz].sum() / power.sum()


def test_each_kind_has_its_frequencies():
  assert share_below(added('baseline_wander', 0.0), 0.7) > 0.95
  hum = added('powerline', 0.0)
  assert share_below(hum, 49) < 0.01 and share_below(hum, 51) > 0.9
  assert share_below(added('white', 0.0), 125) == pytest.approx(0.5, abs=0.03)
  motion = added('electrode_motion', 0.0)
  # In the band of the ECG itself, where no filter can take it out.
  assert 0.02 < share_below(motion, 40) - share_below(motion, 0.6) < 0.98
