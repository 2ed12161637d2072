"""Synthesises a 12-lead ECG from the state of the heart: Gaussian waves, lead by lead.

Every wave has an electrical axis in the frontal plane, so that the six limb leads
obey Einthoven's law, and six amplitudes for the chest leads. 500 Hz, 10 s.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from data_pipeline.sources.simulated.latent import Components

SAMPLING_RATE = 500
SAMPLES = 5000
GAIN = 200.0  # digital units per mV
MISSING = -32768  # WFDB format 16: no sample
# the order of the headers of MIMIC-IV-ECG: aVF before aVL
LEADS = ('I', 'II', 'III', 'aVR', 'aVF', 'aVL', 'V1', 'V2', 'V3', 'V4', 'V5', 'V6')

_LIMB_ANGLE = np.radians([0, 60, 120, -150, 90, -30])
_LIMB_GAIN = np.array([1, 1, 1, 3**0.5 / 2, 3**0.5 / 2, 3**0.5 / 2])
_R_CHEST = np.array([0.2, 0.4, 0.8, 1.2, 1.2, 0.9])
_S_CHEST = np.array([-0.8, -1.2, -0.9, -0.5, -0.2, -0.1])


@dataclasses.dataclass(frozen=True)
class Heart:
  """The findings of one recording. Times in seconds, axes in degrees, amplitudes in mV."""

  rate: float
  fibrillation: bool
  pr: float
  qrs: float
  qt: float
  p_axis: float
  qrs_axis: float
  t_axis: float
  left_bundle: bool
  right_bundle: bool
  hypertrophy: bool
  q_inferior: bool
  q_anterior: bool
  st_lateral: float
  st_anterior: float
  t_anterior: float
  ectopic: bool

  @property
  def long_qt(self) -> bool:
    """Whether QT corrected for the rate (Bazett) is above 470 ms."""
    return self.qt * (self.rate / 60) ** 0.5 > 0.47


def draw_heart(rng: np.random.Generator, state: Components, t_wave: int) -> Heart:
  """The findings of a recording, given the components and the sign of the T wave.

  Planted effect 3: `t_wave` +1 inverts the T wave in V1 to V4, -1 leaves it upright.
  """
  noise = rng.normal(size=8)
  fibrillation = bool(state.rhythm + 0.35 * noise[0] > 1.1)
  left_bundle = bool(state.failure + 0.5 * noise[1] > 1.6)
  right_bundle = bool(not left_bundle and rng.random() < 0.08)
  rate = 76 + 7 * state.severity + 5 * state.failure + 9 * noise[2]
  rate = float(np.clip(rate + (20 if fibrillation else 0), 38, 165))
  wide = 0.05 if left_bundle else 0.035 if right_bundle else 0.0
  ischemia = state.ischemia + 0.4 * noise[3]
  return Heart(
    rate=rate,
    fibrillation=fibrillation,
    pr=float(np.clip(0.155 + 0.018 * state.rhythm + 0.012 * noise[4], 0.1, 0.32)),
    qrs=float(np.clip(0.09 + wide + 0.006 * noise[5], 0.07, 0.19)),
    qt=float(0.41 * (60 / rate) ** 0.5 + wide + 0.018 * abs(noise[6])),
    p_axis=float(rng.normal(50, 15)),
    qrs_axis=float(np.clip(rng.normal(30, 30) - (35 if left_bundle else 0), -90, 120)),
    t_axis=float(rng.normal(45, 20)),
    left_bundle=left_bundle,
    right_bundle=right_bundle,
    hypertrophy=bool(state.failure + 0.6 * noise[7] > 0.9),
    q_inferior=bool(ischemia > 1.0 and rng.random() < 0.6),
    q_anterior=bool(ischemia > 1.2 and rng.random() < 0.5),
    st_lateral=float(-0.12 * max(ischemia - 0.4, 0)),
    st_anterior=float(0.2 if ischemia > 1.7 and rng.random() < 0.5 else 0.0),
    t_anterior=float(-0.28 if t_wave > 0 else 0.38) * float(rng.uniform(0.8, 1.2)),
    ectopic=bool(rng.random() < 0.06 + (0.12 if state.rhythm > 1 else 0)),
  )


def synthesize(rng: np.random.Generator, heart: Heart) -> tuple[np.ndarray, np.ndarray]:
  """The recording.

  Returns:
    int16 (5000, 12) in the order of `LEADS`, and the RR intervals in seconds (beats-1).
  """
  beats = _beat_times(rng, heart)
  # QRS onset is at sample 150 of the beat's 0.3 s before and 0.7 s after it
  template = _beat(heart)
  width = template.shape[0]
  signal = np.zeros((SAMPLES + 2 * width, len(LEADS)))
  premature = int(rng.integers(2, max(len(beats) - 2, 3))) if heart.ectopic else -1
  for number, time in enumerate(beats):
    start = round(time * SAMPLING_RATE) - 150 + width
    if start < 0 or start + width > len(signal):
      continue
    beat = template if number != premature else _premature(heart)
    signal[start : start + width] += beat
  signal = signal[width : width + SAMPLES]
  signal += _artefacts(rng, heart)
  digital = np.round(signal * GAIN)
  return np.clip(digital, -32767, 32767).astype(np.int16), np.diff(beats)


def _beat_times(rng: np.random.Generator, heart: Heart) -> np.ndarray:
  mean = 60 / heart.rate
  count = int(12 / mean) + 4
  if heart.fibrillation:
    intervals = mean * np.clip(rng.normal(1, 0.22, count), 0.5, 1.8)
  else:
    intervals = mean * (1 + 0.025 * rng.normal(size=count))
  times = np.cumsum(intervals) - 0.7 - mean * rng.random()
  return times[times < 10.2]


def _limb_and_chest(axis: float, limb: float, chest: np.ndarray) -> np.ndarray:
  """Amplitudes in the twelve leads of a wave with this axis and size."""
  frontal = limb * np.cos(np.radians(axis) - _LIMB_ANGLE) * _LIMB_GAIN
  return np.concatenate([frontal, chest])


def _gauss(time: np.ndarray, center: float, width: float) -> np.ndarray:
  return np.exp(-0.5 * ((time - center) / width) ** 2)


def _beat(heart: Heart) -> np.ndarray:
  """(500, 12) one beat in mV; QRS onset at 0.3 s."""
  time = np.arange(500) / SAMPLING_RATE - 0.3
  qrs = heart.qrs
  waves: list[tuple[float, float, np.ndarray]] = []
  if not heart.fibrillation:
    p = _limb_and_chest(heart.p_axis, 0.13, np.array([0.05, 0.07, 0.08, 0.08, 0.08, 0.07]))
    waves.append((-heart.pr + 0.05, 0.018, p))
  size = 1.7 if heart.hypertrophy else 1.0
  r_chest, s_chest = _R_CHEST * size, _S_CHEST * size
  if heart.q_anterior:
    r_chest = r_chest * np.array([0.05, 0.05, 0.15, 0.4, 1, 1])
    s_chest = s_chest * np.array([1.2, 1.1, 1.2, 1, 1, 1])
  if heart.left_bundle:
    r_chest = np.array([0.05, 0.1, 0.2, 0.6, 1.2, 1.3]) * size
    s_chest = np.array([-1.3, -1.7, -1.3, -0.5, 0.0, 0.0]) * size
  spread = qrs * (0.17 if heart.left_bundle else 0.12)
  waves.append((qrs * 0.45, spread, _limb_and_chest(heart.qrs_axis, 0.9 * size, r_chest)))
  waves.append((qrs * 0.7, spread, _limb_and_chest(heart.qrs_axis + 170, 0.2, s_chest)))
  waves.append(
    (
      qrs * 0.2,
      qrs * 0.07,
      _limb_and_chest(heart.qrs_axis + 180, 0.06, np.array([0, 0, 0, -0.03, -0.06, -0.06])),
    )
  )
  if heart.q_inferior:
    waves.append((qrs * 0.2, 0.011, _limb_and_chest(-90, 0.4, np.zeros(6))))
  if heart.left_bundle:
    late = _limb_and_chest(heart.qrs_axis, 0.5, np.array([-0.4, -0.5, -0.3, 0.2, 0.6, 0.6]))
    waves.append((qrs * 0.75, spread, late))
  if heart.right_bundle:
    late = _limb_and_chest(150, 0.25, np.array([0.8, 0.5, 0.0, -0.1, -0.25, -0.3]))
    waves.append((qrs * 0.85, 0.014, late))
  t_chest = np.array([0.6, 1.0, 1.0, 0.8, 0, 0]) * heart.t_anterior
  t_chest[4:] = (0.25, 0.2)
  lateral = heart.st_lateral
  t_chest[4:] += 1.5 * lateral
  t_size = -0.15 if heart.left_bundle else 0.28
  t_limb = _limb_and_chest(heart.t_axis, t_size, t_chest)
  t_width = 0.25 * (heart.qt - qrs) / 1.6
  waves.append((heart.qt - 2.2 * t_width, t_width, t_limb))
  beat = sum(_gauss(time, center, width)[:, None] * lead for center, width, lead in waves)
  rise = 1 / (1 + np.exp(-(time - qrs) / 0.006))
  fall = 1 / (1 + np.exp((time - heart.qt + 2.5 * t_width) / 0.02))
  st_chest = np.array([0.6, 1, 1, 0.7, 0, 0]) * heart.st_anterior
  st_chest[4:] += lateral
  segment = _limb_and_chest(-10, lateral * 0.8, st_chest)
  return np.asarray(beat + (rise * fall)[:, None] * segment)


def _premature(heart: Heart) -> np.ndarray:
  """A wide ectopic beat without P wave."""
  wide = dataclasses.replace(
    heart, fibrillation=True, left_bundle=True, qrs=0.16, qt=0.44, qrs_axis=-60.0
  )
  return 1.3 * _beat(wide)


def _artefacts(rng: np.random.Generator, heart: Heart) -> np.ndarray:
  """Baseline wander, powerline hum, muscle noise and fibrillation waves, in mV."""
  time = np.arange(SAMPLES)[:, None] / SAMPLING_RATE
  leads = len(LEADS)
  noise = 0.012 * rng.standard_normal((SAMPLES, leads), dtype=np.float32)
  breath = rng.uniform(0.15, 0.35)
  noise += (
    0.06 * rng.random(leads) * np.sin(2 * np.pi * (breath * time + rng.random(leads)))
  )
  noise += 0.008 * rng.random() * np.sin(2 * np.pi * 60 * time)
  if heart.fibrillation:
    wave = np.sin(2 * np.pi * (rng.uniform(5, 7) * time + 0.3 * np.sin(3 * time)))
    size = np.array(
      [0.02, 0.05, 0.04, 0.03, 0.05, 0.02, 0.08, 0.05, 0.03, 0.02, 0.02, 0.02]
    )
    noise += wave * size
  return noise
