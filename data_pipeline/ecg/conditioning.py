"""Conditioning of one 12-lead ECG: gaps, band-pass, 125 Hz, 10 s, int16.

Missing samples are interpolated, the signal is resampled to 125 Hz behind an
anti-aliasing filter, band-passed 0.5 to 40 Hz (3rd-order Butterworth, zero
phase), and stored as int16 with one gain per recording. Except at the edges, the two
linear steps commute; resampling first makes the band-pass the same filter for every
source rate, and four times cheaper at 500 Hz.
"""

from __future__ import annotations

import fractions
import functools
from pathlib import Path

import numpy as np
from scipy import signal as scipy_signal

from data_pipeline.ecg import raw_recording
from data_pipeline.ecg.raw_recording import RawRecording
from data_pipeline.ecg.reading import EcgError, costing_one_file
from data_pipeline.format.modalities.waveform import ECG_SAMPLES, ECG_SAMPLING_RATE

_BAND = (0.5, 40.0)  # Hz
_ORDER = 3
_PADDING = 2 * ECG_SAMPLING_RATE  # the 0.5 Hz edge rings for about 2 s
_SECONDS = ECG_SAMPLES / ECG_SAMPLING_RATE
_LOWEST_RATE = 2.0 * _BAND[1]  # Nyquist of the pass band, Hz

MAX_MISSING = 0.5  # a lead with a larger share of missing samples is unusable
FLAT_RANGE = 0.001  # mV; a lead with a smaller range of values is unusable
MAX_UNUSABLE_LEADS = 3  # a recording with more is dropped
MAX_AMPLITUDE = 10.0  # mV after the band-pass; no cardiac signal is larger


def load(recording: RawRecording) -> tuple[np.ndarray, float]:
  """Reads and conditions a recording; see `raw_recording.read` and `condition`."""
  signal_mv, sampling_rate = raw_recording.read(recording)
  with costing_one_file(Path(recording.path)):
    return condition(signal_mv, sampling_rate)


def condition(signal_mv: np.ndarray, sampling_rate: float) -> tuple[np.ndarray, float]:
  """Conditions one recording.

  Up to `MAX_UNUSABLE_LEADS` unusable leads (flat, or mostly missing) become 0. The middle
  10 s of a longer recording are kept.

  Args:
    signal_mv: (samples, leads) in mV, NaN where missing.
    sampling_rate: Hz.

  Returns:
    int16 (1250, leads) and the gain in units per mV.

  Raises:
    EcgError: 'low_sampling_rate', 'too_short', 'missing_samples', 'flat' or 'amplitude'.
  """
  if sampling_rate <= _LOWEST_RATE:
    raise EcgError('low_sampling_rate', f'{sampling_rate} Hz cannot carry 40 Hz')
  wanted = round(_SECONDS * sampling_rate)
  if len(signal_mv) < wanted:
    raise EcgError('too_short', f'{len(signal_mv) / sampling_rate:.2f} s, not 10 s')
  start = (len(signal_mv) - wanted) // 2
  # (leads, samples): time is contiguous from here on, which is faster.
  signal = np.array(signal_mv[start : start + wanted].T, np.float64, order='C')
  _fill_gaps(signal)

  signal -= np.median(signal, axis=1, keepdims=True)
  ratio = fractions.Fraction(ECG_SAMPLING_RATE / sampling_rate).limit_denominator(2000)
  if ratio != 1:
    signal = np.asarray(
      scipy_signal.resample_poly(
        signal, ratio.numerator, ratio.denominator, axis=1, padtype='line'
      )
    )
  signal = signal[:, :ECG_SAMPLES]
  short = ECG_SAMPLES - signal.shape[1]
  if short > 0:  # rounding of an odd source rate: under one sample
    signal = np.pad(signal, ((0, 0), (0, short)), mode='edge')
  signal = np.asarray(
    scipy_signal.sosfiltfilt(_band_pass(), signal, axis=1, padlen=_PADDING)
  )

  peak = float(np.abs(signal).max())
  if peak > MAX_AMPLITUDE:
    raise EcgError('amplitude', f'{peak:.1f} mV after the band-pass')
  gain = float(np.float32(32767 / peak))
  if gain * peak > 32767:  # float32 may have rounded up
    gain = float(np.nextafter(np.float32(gain), np.float32(0)))
  units: np.ndarray = np.rint(signal.T * gain).astype(np.int16, order='C')
  return units, gain


@functools.cache
def _band_pass() -> np.ndarray:
  rate = ECG_SAMPLING_RATE
  return np.asarray(scipy_signal.butter(_ORDER, _BAND, 'bandpass', fs=rate, output='sos'))


def _fill_gaps(signal: np.ndarray) -> None:
  """Interpolates missing samples of (leads, samples) in place; unusable leads: 0."""
  finite = np.isfinite(signal)
  mostly_missing = finite.mean(axis=1) < 1 - MAX_MISSING
  steps = np.arange(signal.shape[1])
  for lead in np.flatnonzero(~finite.all(axis=1)):
    if mostly_missing[lead]:
      signal[lead] = 0
      continue
    seen = finite[lead]
    signal[lead, ~seen] = np.interp(steps[~seen], steps[seen], signal[lead, seen])
  flat = ~mostly_missing & (np.ptp(signal, axis=1) < FLAT_RANGE)
  if (mostly_missing | flat).sum() > MAX_UNUSABLE_LEADS:
    if mostly_missing.sum() >= flat.sum():
      raise EcgError('missing_samples', f'{mostly_missing.sum()} leads without samples')
    raise EcgError('flat', f'{flat.sum()} flat leads')
  signal[flat] = 0
