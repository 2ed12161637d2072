"""Writes the ECGs of the simulated hospital in the layout of MIMIC-IV-ECG 1.0.

`files/p1000/p10000032/s40689238/40689238.{hea,dat}` (WFDB format 16),
`record_list.csv` and `machine_measurements.csv` with report lines and sentinels.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np

from data_pipeline.sources.simulated import ecg_signal
from data_pipeline.sources.simulated.ecg_signal import Heart
from data_pipeline.sources.simulated.latent import Patient, Recording, generator

REPORT_LINES = 18
_LIST_HEADER = 'subject_id,study_id,file_name,ecg_time,path'
_MEASUREMENT_HEADER = ','.join([
  'subject_id', 'study_id', 'cart_id', 'ecg_time',
  *(f'report_{line}' for line in range(REPORT_LINES)), 'bandwidth', 'filtering',
  'rr_interval', 'p_onset', 'p_end', 'qrs_onset', 'qrs_end', 't_end', 'p_axis',
  'qrs_axis', 't_axis',
])  # fmt: skip
_FILTERING = '60 Hz notch Baseline filter'


class EcgWriter:
  """Appends patients' recordings to a folder that does not exist yet."""

  def __init__(self, root: Path):
    root.mkdir(parents=True)
    self.recordings = 0
    self._root = root
    self._list: IO[str] = (root / 'record_list.csv').open('w', newline='')
    self._measurements: IO[str] = (root / 'machine_measurements.csv').open('w', newline='')
    self._list.write(_LIST_HEADER + '\n')
    self._measurements.write(_MEASUREMENT_HEADER + '\n')

  def append(self, patient: Patient, seed: int) -> None:
    """Writes all recordings of a patient: signals, list and measurements."""
    rng = generator(seed, patient.index, 'ecg', patient.hospital)
    for recording in patient.recordings:
      self._write(rng, patient, recording)
      self.recordings += 1

  def close(self) -> None:
    """Closes the list and the measurements."""
    self._list.close()
    self._measurements.close()

  def _write(self, rng: np.random.Generator, patient: Patient, recording: Recording):
    heart = ecg_signal.draw_heart(rng, recording.state, patient.t_wave)
    signal, intervals = ecg_signal.synthesize(rng, heart)
    fault = _damage(rng, signal)
    rate = patient.hospital.ecg_sampling_rate
    subject, study = patient.subject_id, recording.study_id
    path = f'files/p{subject // 10_000}/p{subject}/s{study}/{study}'
    time = str(np.datetime64(recording.time, 's')).replace('T', ' ')
    write_record(
      self._root / path,
      signal[:: ecg_signal.SAMPLING_RATE // rate],
      sampling_rate=rate,
      cut=fault == 'short',
    )
    self._list.write(f'{subject},{study},{study},{time},{path}\n')
    lines = report(rng, heart, fault)
    cells = lines + [''] * (REPORT_LINES - len(lines))
    measured = [
      '' if value is None else str(value) for value in measurements(rng, heart, intervals)
    ]
    self._measurements.write(','.join([
      str(subject), str(study), str(int(rng.integers(6_840_000, 6_850_000))), time,
      *cells, '0.005-150 Hz', _FILTERING, *measured,
    ]) + '\n')  # fmt: skip


def write_record(
  stem: Path, signal: np.ndarray, *, sampling_rate: int, cut: bool = False
) -> None:
  """Writes an int16 (samples, 12) signal as `stem`.hea and `stem`.dat.

  Args:
    stem: path without extension.
    signal: digital units of 1/200 mV.
    sampling_rate: of the signal, in Hz.
    cut: the .dat ends in the middle, as after a broken transfer.
  """
  stem.parent.mkdir(parents=True)
  name = stem.name
  samples, leads = signal.shape
  checksums = signal.astype(np.int64).sum(axis=0)
  lines = [f'{name} {leads} {sampling_rate} {samples}']
  for lead, label in enumerate(ecg_signal.LEADS):
    checksum = (int(checksums[lead]) + 32768) % 65536 - 32768
    lines.append(
      f'{name}.dat 16 {ecg_signal.GAIN}(0)/mV 16 0 {signal[0, lead]} {checksum} 0 {label}'
    )
  stem.with_name(f'{name}.hea').write_text('\n'.join(lines) + '\n')
  data = np.ascontiguousarray(signal, '<i2').tobytes()
  stem.with_name(f'{name}.dat').write_bytes(data[: len(data) // 2] if cut else data)


def _damage(rng: np.random.Generator, signal: np.ndarray) -> str:
  """Damages a few recordings in place; returns a description, '' if undamaged."""
  chance = rng.random()
  lead = int(rng.integers(0, signal.shape[1]))
  if chance < 0.02:  # a gap of half a second to two seconds
    start, length = int(rng.integers(0, 4000)), int(rng.integers(250, 1000))
    signal[start : start + length, lead] = ecg_signal.MISSING
    return 'gap'
  if chance < 0.035:
    signal[:, lead] = 0
    return 'flat'
  if chance < 0.041:
    signal[:] = ecg_signal.MISSING
    return 'empty'
  if chance < 0.051:
    return 'short'
  return ''


def measurements(
  rng: np.random.Generator, heart: Heart, intervals: np.ndarray
) -> list[int | None]:
  """The nine machine measurements; 29999, 32767, 65535 mean not measurable.

  As in MIMIC-IV-ECG the times are ms within the median beat, whose QRS begins at about
  200 ms. About 2 % of the values are unmeasurable without cause, a few are empty.
  """
  onset = 200 + round(rng.normal(0, 4))
  jitter = lambda: round(rng.normal(0, 3))
  p_onset = onset - round(heart.pr * 1000) + jitter()
  values: list[int | None] = [
    round(float(intervals.mean()) * 1000),
    29999 if heart.fibrillation else p_onset,
    29999 if heart.fibrillation else p_onset + 108 + jitter(),
    onset,
    onset + round(heart.qrs * 1000) + jitter(),
    onset + round(heart.qt * 1000) + 2 * jitter(),
    32767 if heart.fibrillation else round(heart.p_axis) + jitter(),
    round(heart.qrs_axis) + jitter(),
    round(heart.t_axis) + jitter(),
  ]
  sentinels = (65535, 29999, 29999, 29999, 29999, 29999, 32767, 32767, 32767)
  for number, sentinel in enumerate(sentinels):
    chance = rng.random()
    if chance < 0.012:
      values[number] = sentinel
    elif chance < 0.015:
      values[number] = None
  return values


def report(rng: np.random.Generator, heart: Heart, fault: str) -> list[str]:
  """Report lines in the wording of MIMIC-IV-ECG; each finding is missed in 7 %."""
  if fault == 'empty':
    return ['--- Recording unsuitable for analysis - please repeat ---']
  lines = [_rhythm_line(heart)]
  findings = [
    (heart.ectopic, 'PVC(s)'),
    (not heart.fibrillation and heart.pr > 0.2, 'First degree A-V block'),
    (heart.left_bundle, 'Left bundle branch block'),
    (heart.right_bundle, 'Right bundle branch block'),
    (heart.qrs_axis < -30, 'Left axis deviation'),
    (heart.qrs_axis > 100, 'Right axis deviation'),
    (heart.q_inferior, str(rng.choice([
      'Inferior infarct - age undetermined',
      'Possible inferior infarct - age undetermined']))),
    (heart.q_anterior, str(rng.choice([
      'Possible anterior infarct - age undetermined',
      'Anteroseptal infarct - age undetermined']))),
    (heart.hypertrophy and not heart.left_bundle, 'Left ventricular hypertrophy'),
    (heart.st_lateral < -0.06, 'Lateral ST-T changes may be due to myocardial ischemia'),
    (heart.st_anterior > 0, 'Consider acute anterior infarct'),
    (heart.t_anterior < 0, 'Anterior T wave changes are nonspecific'),
    (heart.long_qt, 'Prolonged QT interval'),
  ]  # fmt: skip
  found = [line for present, line in findings if present and rng.random() < 0.93]
  lines += found
  if fault == 'flat':
    lines.append('Warning: Data quality may affect interpretation')
  return [*lines, _summary_line(heart, found)]


def _rhythm_line(heart: Heart) -> str:
  if heart.fibrillation:
    return 'Atrial fibrillation' + (
      ' with rapid ventricular response' if heart.rate > 110 else ''
    )
  if heart.rate > 100:
    return 'Sinus tachycardia'
  return 'Sinus bradycardia' if heart.rate < 60 else 'Sinus rhythm'


def _summary_line(heart: Heart, found: list[str]) -> str:
  if len(found) > 1 or heart.fibrillation or any('infarct' in line for line in found):
    return 'Abnormal ECG'
  if found:
    return 'Borderline ECG'
  return 'Normal ECG' if 60 <= heart.rate <= 100 else 'Normal ECG except for rate'
