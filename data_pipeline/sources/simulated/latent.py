"""The causal latent state of the simulated hospital (docs/simulated_hospital.md).

All observations and outcomes of a patient follow from five organ components and three
planted effects, drawn here. The other modules make tables and signals from them without
feedback, so the true risks are known.

A patient depends only on (hospital, seed, index): any number of patients can be made, in
any order, in blocks of any size.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from data_pipeline.sources.simulated.hospitals import HOSPITALS, Hospital

HOUR = 3600
DAY = 24 * HOUR

MAX_PATIENTS = 150_000  # beyond, study ids would repeat

CVD_CLASSES = ('non_cvd', 'chd', 'stroke', 'hf')

# Intercepts are those of hospital a; others shift them (hospitals.py).
# log-odds of in-hospital death of an ICU stay
MORTALITY = {
  'intercept': -3.45,
  'severity': 1.0,
  'age': 0.35,  # per 17 years above 64
  'swing': 0.9,  # planted effect 1
  'drift': 0.9,  # planted effect 2
  'pairing': 0.9,  # planted effect 3: potassium sign times T-wave sign
}
# log of the ICU stay in days
LENGTH_OF_STAY = {
  'intercept': 0.6,
  'severity': 0.4,
  'age': 0.0,
  'swing': 0.30,
  'drift': 0.30,
  'pairing': 0.30,
  'noise': 0.8,
}
MAX_STAY_DAYS = 60.0
# logits of the class of an admission against 'non_cvd'; the slope is on the component
CVD = {'chd': (-4.2, 3.4), 'stroke': (-5.2, 3.4), 'hf': (-4.4, 3.4)}

STREAMS = {
  'latent': 0, 'hosp': 1, 'labs': 2, 'chart': 3, 'ecg': 4, 'returns': 5, 'return rows': 6,
  'conditions': 7, 'urine': 8, 'treatment': 9,
}  # fmt: skip


def generator(
  seed: int, index: int, stream: str, hospital: Hospital
) -> np.random.Generator:
  """The patient's random stream for one purpose, independent of all others."""
  return np.random.default_rng([seed, index, STREAMS[stream], *hospital.streams])


def mortality(hospital: Hospital) -> dict[str, float]:
  """`MORTALITY` with the hospital's intercept."""
  intercept = MORTALITY['intercept'] + hospital.death_shift
  return {**MORTALITY, 'intercept': intercept}


def length_of_stay(hospital: Hospital) -> dict[str, float]:
  """`LENGTH_OF_STAY` with the hospital's intercept."""
  intercept = LENGTH_OF_STAY['intercept'] + hospital.stay_shift
  return {**LENGTH_OF_STAY, 'intercept': intercept}


def cvd(hospital: Hospital) -> dict[str, tuple[float, float]]:
  """`CVD` with the hospital's intercepts."""
  return {
    name: (intercept + hospital.cvd_shift, slope)
    for name, (intercept, slope) in CVD.items()
  }


class Components(NamedTuple):
  """Organ components, each standard normal over the population."""

  severity: float
  renal: float
  failure: float
  ischemia: float
  rhythm: float


@dataclasses.dataclass(frozen=True)
class Stay:
  """One ICU stay. Times are seconds since 1970.

  Attributes:
    swing: planted effect 1, standard normal; log-amplitude of the fast oscillation.
    drift: planted effect 2, standard normal; how far perfusion falls over 24 h.
    potassium: +1 high, -1 low-normal; planted effect 3 with `Patient.t_wave`.
    log_odds: true log-odds of death in hospital.
    died: drawn from it.
  """

  stay_id: int
  intime: int
  outtime: int
  swing: float
  drift: float
  potassium: int
  log_odds: float
  died: bool


@dataclasses.dataclass(frozen=True)
class Admission:
  """One hospital admission.

  `cvd_class` indexes `CVD_CLASSES` and is drawn from `cvd_probabilities`; `state` holds the
  latent components of this admission.
  """

  hadm_id: int
  admittime: int
  dischtime: int
  state: Components
  cvd_class: int
  cvd_probabilities: tuple[float, ...]
  elective: bool
  died: bool
  stays: tuple[Stay, ...]


@dataclasses.dataclass(frozen=True)
class Recording:
  """One ECG: its time, and the state of the heart that it shows."""

  study_id: int
  time: int
  state: Components


@dataclasses.dataclass(frozen=True)
class Patient:
  """A patient's whole history; `t_wave` is +1 (inverted anteriorly) or -1 (upright)."""

  hospital: Hospital
  index: int
  subject_id: int
  female: bool
  age: float
  anchor_year: int
  year_group: int
  traits: Components
  t_wave: int
  death_time: int | None
  admissions: tuple[Admission, ...]
  recordings: tuple[Recording, ...]


def identifier(base: int, number: int) -> int:
  """Spreads running numbers over the eight-digit range without collisions."""
  return base + (number * 7919 + 32) % 10_000_000


def subject_id(seed: int, index: int, hospital: Hospital) -> int:
  """The subject number of patient `index`.

  Seeds below 99 give different people if a hospital has at most 100,000, and so do the
  hospitals of all these seeds if each has at most 50,000. Admissions, stays and recordings
  have the same numbers in every hospital.
  """
  return identifier(10_000_000, index + hospital.first_subject + seed * 100_003)


def year_start(year: int) -> int:
  """Seconds since 1970 at the start of `year`."""
  return int(np.datetime64(f'{year}-01-01', 's').astype(np.int64))


def year_of(seconds: int) -> int:
  """Calendar year of a time in seconds since 1970."""
  return int(np.datetime64(int(seconds), 's').astype('datetime64[Y]').astype(int)) + 1970


def linear_score(
  coefficients: dict[str, float],
  *,
  severity: float,
  age: float,
  swing: float,
  drift: float,
  pairing: float,
) -> float:
  """The outcome's linear predictor; `pairing` is potassium times T-wave sign."""
  return (
    coefficients['intercept']
    + coefficients['severity'] * severity
    + coefficients['age'] * (age - 64) / 17
    + coefficients['swing'] * swing
    + coefficients['drift'] * drift
    + coefficients['pairing'] * pairing
  )


def sigmoid(x: float) -> float:
  """Logistic function."""
  return float(1 / (1 + np.exp(-x)))


def class_probabilities(state: Components, hospital: Hospital) -> tuple[float, ...]:
  """P(class) of an admission with these components, in the order of CVD_CLASSES."""
  coefficients = cvd(hospital)
  logits = np.array(
    [
      0.0,
      coefficients['chd'][0] + coefficients['chd'][1] * state.ischemia,
      coefficients['stroke'][0] + coefficients['stroke'][1] * state.rhythm,
      coefficients['hf'][0] + coefficients['hf'][1] * state.failure,
    ]
  )
  weights = np.exp(logits - logits.max())
  return tuple((weights / weights.sum()).tolist())


def simulate_patient(seed: int, index: int, hospital: Hospital = HOSPITALS['a']) -> Patient:
  """Draws patient `index` of a hospital: a pure function of the three."""
  rng = generator(seed, index, 'latent', hospital)
  female = bool(rng.random() < hospital.women)
  age = float(np.clip(rng.normal(*hospital.age), 18.5, 99.0))
  anchor_year = int(rng.integers(2110, 2200))
  traits = Components(*rng.normal(size=5).tolist())
  t_wave = int(rng.choice((-1, 1)))
  heavy = rng.random() < 0.04
  planned = min(1 + int(rng.poisson(0.65)) + (int(rng.integers(4, 9)) if heavy else 0), 14)

  admissions = []
  time = year_start(anchor_year) + int(rng.uniform(5, 300) * DAY)
  for number in range(planned):
    admission = _simulate_admission(
      rng, hospital, index, number, time, traits, t_wave,
      age + year_of(time) - anchor_year,
    )  # fmt: skip
    admissions.append(admission)
    if admission.died:
      break
    gap = max(rng.lognormal(np.log(120), 1.2), 2.0)
    time = admission.dischtime + int(gap * DAY)

  last = admissions[-1]
  death_time = last.dischtime if last.died else None
  if death_time is None and rng.random() < 0.15:
    death_time = last.dischtime + int(rng.exponential(200) * DAY)
  recordings = _plan_recordings(rng, index, admissions, traits)
  return Patient(
    hospital=hospital,
    index=index,
    subject_id=subject_id(seed, index, hospital),
    female=female,
    age=age,
    anchor_year=anchor_year,
    year_group=int(rng.integers(0, 4)),
    traits=traits,
    t_wave=t_wave,
    death_time=death_time,
    admissions=tuple(admissions),
    recordings=recordings,
  )


def _simulate_admission(
  rng: np.random.Generator,
  hospital: Hospital,
  index: int,
  number: int,
  admittime: int,
  traits: Components,
  t_wave: int,
  age: float,
) -> Admission:
  # slowly varying: correlation .7 between the admissions of one patient
  fresh = rng.normal(size=5)
  state = Components(*(0.7**0.5 * np.array(traits) + 0.3**0.5 * fresh).tolist())
  probabilities = class_probabilities(state, hospital)
  cvd_class = int(rng.choice(4, p=probabilities))
  elective = bool(rng.random() < 0.2)
  time = admittime
  stays = []
  count = int(rng.random() < sigmoid(1.0 + 0.5 * state.severity))
  count += int(count and rng.random() < 0.1)
  for k in range(count):
    wait = 0.0 if rng.random() < 0.5 else min(rng.exponential(1.0), 5.0)
    stay = _simulate_stay(
      rng, hospital, index * 32 + number * 2 + k, time + int(wait * DAY), state, t_wave,
      age,
    )  # fmt: skip
    stays.append(stay)
    time = stay.outtime
    if stay.died:
      break
  if stays and stays[-1].died:
    ward = 0.0 if rng.random() < 0.75 else rng.uniform(0.3, 6)
    died = True
  elif stays:
    ward, died = 0.2 + rng.exponential(2.5), False
  else:
    ward, died = rng.lognormal(1.0, 0.8), bool(rng.random() < 0.01)
  return Admission(
    hadm_id=identifier(20_000_000, index * 16 + number),
    admittime=admittime,
    dischtime=time + int(ward * DAY),
    state=state,
    cvd_class=cvd_class,
    cvd_probabilities=probabilities,
    elective=elective,
    died=died,
    stays=tuple(stays),
  )


def _simulate_stay(
  rng: np.random.Generator,
  hospital: Hospital,
  number: int,
  intime: int,
  state: Components,
  t_wave: int,
  age: float,
) -> Stay:
  swing, drift = rng.normal(size=2).tolist()
  potassium = int(rng.choice((-1, 1)))
  terms = {
    'severity': state.severity,
    'age': age,
    'swing': swing,
    'drift': drift,
    'pairing': float(potassium * t_wave),
  }
  log_odds = linear_score(mortality(hospital), **terms)
  log_days = linear_score(length_of_stay(hospital), **terms)
  log_days += LENGTH_OF_STAY['noise'] * rng.normal()
  days = float(np.clip(np.exp(log_days), 0.1, MAX_STAY_DAYS))
  return Stay(
    stay_id=identifier(30_000_000, number),
    intime=intime,
    outtime=intime + int(days * DAY),
    swing=swing,
    drift=drift,
    potassium=potassium,
    log_odds=log_odds,
    died=bool(rng.random() < sigmoid(log_odds)),
  )


def _plan_recordings(
  rng: np.random.Generator,
  index: int,
  admissions: list[Admission],
  traits: Components,
) -> tuple[Recording, ...]:
  """ECGs before admissions, in about half of the ICU stays, and years earlier."""
  planned: list[tuple[int, Components]] = []
  if rng.random() < 0.1:
    earlier = admissions[0].admittime - int(rng.uniform(1, 6) * 365 * DAY)
    planned.append((earlier, traits))
  discharged = None
  for admission in admissions:
    if rng.random() < 0.5:
      before = rng.uniform(0.3, 8) / 24 if rng.random() < 0.6 else rng.uniform(2, 80)
      time = admission.admittime - int(before * DAY)
      if discharged is None or time > discharged:
        planned.append((time, admission.state))
    for stay in admission.stays:
      if rng.random() >= 0.48:
        continue
      end = min(stay.outtime, stay.intime + DAY)
      for _ in range(min(1 + int(rng.poisson(0.35)), 4)):
        planned.append((int(rng.uniform(stay.intime, end)), admission.state))
      if rng.random() < 0.1:
        planned.append((int(rng.uniform(end, stay.outtime + 1)), admission.state))
    discharged = admission.dischtime
  planned.sort(key=lambda item: item[0])
  return tuple(
    Recording(identifier(40_000_000, index * 64 + number), time, state)
    for number, (time, state) in enumerate(planned[:64])
  )
