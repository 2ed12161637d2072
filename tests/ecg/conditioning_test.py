"""Conditioning against a plain scipy computation, and its rejection rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import signal as scipy_signal

from data_pipeline.ecg.conditioning import condition
from data_pipeline.ecg.reading import EcgError


def heartbeat(rate, seconds=10.0, leads=12):
  """12 leads of narrow and slow bumps, the same function of time at any rate."""
  time = np.arange(round(seconds * rate)) / rate
  phase = time % 0.8
  wave = np.exp(-(((phase - 0.3) / 0.02) ** 2)) + 0.2 * np.exp(
    -(((phase - 0.55) / 0.06) ** 2)
  )
  return np.outer(wave, np.linspace(0.5, 1.5, leads))


def in_millivolts(conditioned):
  units, gain = conditioned
  assert units.shape == (1250, 12)
  assert units.dtype == np.int16
  return units / gain


def reason_of(signal, rate=500.0):
  with pytest.raises(EcgError) as caught:
    condition(signal, rate)
  return caught.value.reason


def test_equals_filtfilt_and_resample():
  source = heartbeat(500) + 0.5
  centred = source - np.median(source, axis=0)
  expected = scipy_signal.resample_poly(centred, 1, 4, axis=0, padtype='line')
  ratio: Any = scipy_signal.butter(3, [0.5 / 62.5, 40 / 62.5], 'bandpass')
  expected = scipy_signal.filtfilt(*ratio, expected, axis=0, padlen=250)
  found = in_millivolts(condition(source, 500.0))
  np.testing.assert_allclose(found, expected, atol=1e-4)


def test_filtering_before_resampling_would_give_the_same():
  source = heartbeat(500)
  sos = scipy_signal.butter(3, (0.5, 40), 'bandpass', fs=500, output='sos')
  expected = scipy_signal.sosfiltfilt(sos, source, axis=0, padlen=1000)
  expected = scipy_signal.resample_poly(expected, 1, 4, axis=0)
  found = in_millivolts(condition(source, 500.0))
  np.testing.assert_allclose(found[125:-125], expected[125:-125], atol=0.05)


@pytest.mark.parametrize('rate', [250, 1000, 257, 360])
def test_any_source_rate_gives_the_same_recording(rate):
  reference = in_millivolts(condition(heartbeat(500), 500.0))
  found = in_millivolts(condition(heartbeat(rate), float(rate)))
  np.testing.assert_allclose(found[125:-125], reference[125:-125], atol=0.05)


def test_pass_band():
  time = np.arange(5000) / 500

  def gain_at(hertz):
    wave = np.sin(2 * np.pi * hertz * time)
    found = in_millivolts(condition(np.outer(wave, np.ones(12)) + 1e-3, 500.0))
    return np.abs(found[250:-250]).max()

  assert gain_at(10) == pytest.approx(1, abs=0.02)
  assert gain_at(0.1) < 0.05
  # 115 Hz would alias to 10 Hz at 125 Hz.
  assert gain_at(115) < 0.01


def test_zero_phase():
  found = in_millivolts(condition(heartbeat(500), 500.0))[:, 0]
  peaks, _ = scipy_signal.find_peaks(found, height=0.25)
  np.testing.assert_allclose(peaks % 100, 0.3 * 125, atol=1)


def test_int16_uses_the_range_without_overflow():
  units, gain = condition(heartbeat(500), 500.0)
  assert np.abs(units.astype(int)).max() in (32766, 32767)
  assert np.float32(gain) == gain


def test_gaps_are_interpolated():
  clean = heartbeat(500)
  gappy = clean.copy()
  gappy[1000:1005, 3] = np.nan
  np.testing.assert_allclose(
    in_millivolts(condition(gappy, 500.0)), in_millivolts(condition(clean, 500.0)),
    atol=0.05,
  )  # fmt: skip
  assert np.isnan(gappy[1000, 3])  # the argument is not changed


def test_middle_of_a_longer_recording():
  source = np.concatenate([np.full((500, 12), 0.0), heartbeat(500), np.full((500, 12), 0)])
  found = in_millivolts(condition(source, 500.0))
  expected = in_millivolts(condition(heartbeat(500), 500.0))
  np.testing.assert_allclose(found[125:-125], expected[125:-125], atol=1e-6)


def test_few_unusable_leads_become_zero_and_many_reject():
  flat = heartbeat(500)
  flat[:, :3] = 0.7
  units, _ = condition(flat, 500.0)
  assert (units[:, :3] == 0).all()
  assert (units[:, 3:] != 0).any(axis=0).all()
  flat[:, 3] = 0.7
  assert reason_of(flat) == 'flat'
  missing = heartbeat(500)
  missing[:2600, :4] = np.nan
  assert reason_of(missing) == 'missing_samples'
  assert reason_of(np.full((5000, 12), np.nan)) == 'missing_samples'


def test_other_rejections():
  assert reason_of(heartbeat(500)[:-1]) == 'too_short'
  assert reason_of(heartbeat(500) * 20) == 'amplitude'
  assert reason_of(heartbeat(80), 80.0) == 'low_sampling_rate'
