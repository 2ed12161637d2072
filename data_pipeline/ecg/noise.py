"""Adds noise of known strength to raw ECGs, as it occurs at the bedside.

The kinds are those of the MIT-BIH Noise Stress Test Database (Moody, Muldrow and Mark,
Computers in Cardiology 1984), computed instead of recorded, plus powerline hum and white
noise. The noise of every lead is a function of (seed, study, kind) only: at another
signal-to-noise ratio it is the same noise, louder.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

POWERLINE = 50.0  # Hz
_HARMONICS = (1.0, 0.2, 0.1)  # amplitudes of 50, 100 and 150 Hz
_WANDER = (0.05, 0.5)  # Hz, breathing and slow movement
_WANDER_WAVES = 8
_SHIFTS_PER_SECOND = 0.5  # of the electrodes
_RISE, _DECAY = 0.05, 0.4  # s, of a shift: as fast as a QRS complex


def add_noise(
  signal_mv: np.ndarray,
  sampling_rate: float,
  kind: str,
  snr: float,
  *,
  seed: int,
  study_id: int,
) -> np.ndarray:
  """Adds noise to a recording.

  The signal-to-noise ratio holds for each lead separately, over all its samples: power is
  the variance of the lead as recorded, and of the noise added to it. A flat lead gets no
  noise.

  Args:
    signal_mv: (samples, leads) in mV, NaN where missing; missing samples stay missing.
    sampling_rate: Hz.
    kind: one of `KINDS`.
    snr: signal-to-noise ratio in dB.
    seed: of the noise.
    study_id: of the recording.

  Returns:
    float64 (samples, leads) in mV.
  """
  generator = np.random.default_rng((seed, study_id % 2**64, KINDS.index(kind)))
  seconds = np.arange(len(signal_mv)) / sampling_rate
  noise = _WAVEFORMS[kind](generator, seconds, signal_mv.shape[1])
  seen = np.isfinite(signal_mv)
  _, signal_power = _centred(signal_mv, seen)
  noise, noise_power = _centred(noise, seen)
  highest = np.max(signal_mv, axis=0, where=seen, initial=-np.inf)
  lowest = np.min(signal_mv, axis=0, where=seen, initial=np.inf)
  # Not tested by power: rounding leaves a small power in a flat lead.
  moving = highest > lowest
  ratio = np.where(moving, signal_power, 0) / np.where(noise_power > 0, noise_power, 1)
  return signal_mv + noise * np.sqrt(ratio * 10 ** (-snr / 10))


def _centred(values: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Values minus their mean (samples, leads), and their variance (leads)."""
  count = np.maximum(seen.sum(axis=0), 1)
  values = np.where(seen, values, 0.0)
  values = np.where(seen, values - values.sum(axis=0) / count, 0.0)
  return values, (values**2).sum(axis=0) / count


def _baseline_wander(
  generator: np.random.Generator, seconds: np.ndarray, leads: int
) -> np.ndarray:
  frequency = generator.uniform(*_WANDER, _WANDER_WAVES)
  phase = 2 * np.pi * np.outer(seconds, frequency)
  sine, cosine = generator.normal(size=(2, _WANDER_WAVES, leads))
  return np.sin(phase) @ sine + np.cos(phase) @ cosine


def _powerline(
  generator: np.random.Generator, seconds: np.ndarray, leads: int
) -> np.ndarray:
  nyquist = 0.5 / (seconds[1] - seconds[0])
  noise = np.zeros((len(seconds), leads))
  for order, amplitude in enumerate(_HARMONICS, start=1):
    offset = generator.uniform(0, 2 * np.pi, leads)
    if order == 1 or order * POWERLINE < nyquist:
      phase = 2 * np.pi * order * POWERLINE * seconds[:, None] + offset[None]
      noise += amplitude * np.sin(phase)
  return noise


def _electrode_motion(
  generator: np.random.Generator, seconds: np.ndarray, leads: int
) -> np.ndarray:
  length = len(seconds) * (seconds[1] - seconds[0])
  count = 1 + generator.poisson(_SHIFTS_PER_SECOND * length)
  onset = generator.uniform(0, 0.9 * length, count)
  decay = _DECAY * generator.lognormal(0, 0.5, count)
  since = np.maximum(seconds[:, None] - onset[None], 0)
  shape = np.exp(-since / decay[None]) * -np.expm1(-since / _RISE)
  return shape @ generator.normal(size=(count, leads))


def _white(generator: np.random.Generator, seconds: np.ndarray, leads: int) -> np.ndarray:
  return generator.normal(size=(len(seconds), leads))


_WAVEFORMS: dict[str, Callable[[np.random.Generator, np.ndarray, int], np.ndarray]] = {
  'baseline_wander': _baseline_wander,
  'powerline': _powerline,
  'electrode_motion': _electrode_motion,
  'white': _white,
}
KINDS = tuple(_WAVEFORMS)
