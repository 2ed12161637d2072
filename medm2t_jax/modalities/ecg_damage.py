"""Damages conditioned ECG signals. Measurements and report terms stay unchanged.

Letters: d devices, b batch rows, m recordings.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from data_pipeline.format.modalities.waveform import ECG_LEADS, ECG_SAMPLING_RATE
from medm2t_jax.modalities import draws
from medm2t_jax.modalities.base import Arrays, Level

_EXCHANGED = {'II': 'III', 'III': 'II', 'aVR': 'aVL', 'aVL': 'aVR'}
_SOURCE = [ECG_LEADS.index(_EXCHANGED.get(lead, lead)) for lead in ECG_LEADS]
_SIGN = np.array([-1 if lead == 'I' else 1 for lead in ECG_LEADS], np.int16)


def arms_exchanged(ecg: Arrays) -> dict[str, Any]:
  """Exchanges the electrodes of the two arms.

  Lead I (left arm minus right arm) is inverted; II and III are exchanged, and so are aVR
  and aVL; aVF and the chest leads, measured against the mean of the limbs, are unchanged.

  The conditioned signals are changed, because exchanging and losing leads commutes with the
  conditioning, which treats every lead equally. Measurements and report terms are
  unchanged.
  """
  return {**ecg, 'signal': ecg['signal'][..., _SOURCE] * _SIGN}


def leads_lost(ecg: Arrays, rows: np.ndarray, count: Level, seed: int) -> dict[str, Any]:
  """Makes `count` random leads of each recording flat; a larger `count` includes the same.

  The conditioning refuses recordings with more flat leads than it allows; larger counts
  show what that rule is worth.

  Args:
    ecg: packed recordings (d m ...).
    rows: (d b) index rows.
    count: of leads, of all samples or of each (d b).
    seed: of the draws.
  """
  row = draws.owners(rows, ecg)
  counts = draws.owners(np.broadcast_to(np.asarray(count, np.int64), rows.shape), ecg)
  lost = np.zeros((*row.shape, len(ECG_LEADS)), bool)
  generators: dict[int, np.random.Generator] = {}
  for place in np.argwhere(ecg['mask'] & (counts > 0)):
    place = tuple(place)
    sample = int(row[place])
    if sample not in generators:
      generators[sample] = draws.generator(sample, seed, 'leads')
    lost[(*place, generators[sample].permutation(len(ECG_LEADS))[: counts[place]])] = True
  return {**ecg, 'signal': np.where(lost[:, :, None], np.int16(0), ecg['signal'])}


def band_limited(ecg: Arrays, rows: np.ndarray, bandwidth: Level) -> dict[str, Any]:
  """Removes everything above a bandwidth in Hz from the signals; 0 leaves them.

  The signals have 125 Hz, so that nothing is left to remove above 62.5.

  Args:
    ecg: packed recordings (d m ...).
    rows: (d b) index rows.
    bandwidth: of all samples or of each (d b).
  """
  limits = draws.owners(np.broadcast_to(np.asarray(bandwidth, np.float64), rows.shape), ecg)
  signal = np.array(ecg['signal'])
  frequencies = np.fft.rfftfreq(signal.shape[2], 1 / ECG_SAMPLING_RATE)
  for place in np.argwhere(ecg['mask'] & (limits > 0) & (limits < frequencies[-1])):
    place = tuple(place)
    spectrum = np.fft.rfft(signal[place], axis=0)
    spectrum[frequencies > limits[place]] = 0
    filtered = np.fft.irfft(spectrum, len(signal[place]), axis=0)
    most = np.iinfo(signal.dtype)
    signal[place] = np.clip(np.rint(filtered), most.min, most.max)
  return {**ecg, 'signal': signal}
