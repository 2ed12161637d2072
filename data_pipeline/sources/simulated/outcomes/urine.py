"""Urine output of ICU stays (outputevents), and the weight (inputevents), for task aki.

Planted: oliguria that begins 2 to 36 h after the first day of the stay. Its odds rise with
the renal component (visible in creatinine and urea), with severity, and with `decline`:
how far the output has fallen over the first day, which is only visible in these rows. A
few stays are already oliguric in the first day; the task excludes them.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from data_pipeline.sources.simulated import latent
from data_pipeline.sources.simulated.latent import DAY, HOUR, Admission, Patient, Stay
from data_pipeline.sources.simulated.tables import NULL

# log-odds that oliguria begins in the 34 h from 26 h after the start of the stay
OLIGURIA = {'intercept': -1.0, 'renal': 1.6, 'severity': 0.8, 'decline': 3.0}
EARLY = {'intercept': -2.6, 'renal': 1.0}  # in the first day
FIRST, LAST = 2, 36  # hours after the first day
DECLINE_RATE = 0.25  # of the log output per decline, over the first day
FOLEY = 226559
FLUID = 225158  # NaCl 0.9%

_ITEMS = (
  (FOLEY, 'Foley', 'Foley', 'outputevents', 'Output', 'mL'),
  (FLUID, 'NaCl 0.9%', 'NaCl 0.9%', 'inputevents', 'Fluids/Intake', 'mL'),
)


@dataclasses.dataclass(frozen=True)
class Kidneys:
  """The planted effects of one stay.

  Attributes:
    decline: standard normal.
    log_odds: of oliguria after the first day.
    onset: seconds since 1970, or None without oliguria (after the first day).
    early: the same, in the first day.
  """

  decline: float
  log_odds: float
  onset: int | None
  early: int | None


def kidneys(rng: np.random.Generator, admission: Admission, stay: Stay) -> Kidneys:
  """Draws the planted effects: the first draws of a stay's stream."""
  state, decline = admission.state, float(rng.normal())
  log_odds = (
    OLIGURIA['intercept']
    + OLIGURIA['renal'] * state.renal
    + OLIGURIA['severity'] * state.severity
    + OLIGURIA['decline'] * decline
  )
  late, onset = rng.random(), stay.intime + DAY + int(rng.uniform(FIRST, LAST) * HOUR)
  soon, early = rng.random(), stay.intime + int(rng.uniform(1, 12) * HOUR)
  odds = EARLY['intercept'] + EARLY['renal'] * state.renal
  return Kidneys(
    decline,
    log_odds,
    onset if late < latent.sigmoid(log_odds) else None,
    early if soon < latent.sigmoid(odds) else None,
  )


def streams(patient: Patient, seed: int):
  """(admission, stay, its random stream) of every ICU stay, and the weight in kg."""
  rng = latent.generator(seed, patient.index, 'urine', patient.hospital)
  weight = round(float(np.clip(rng.normal(76 if patient.female else 86, 16), 42, 170)), 1)
  seeds = iter(rng.integers(0, 2**62, 64).tolist())
  stays = [
    (admission, stay, np.random.default_rng(next(seeds)))
    for admission in patient.admissions
    for stay in admission.stays
  ]
  return stays, weight


def simulate(patient: Patient, seed: int) -> dict[str, dict[str, list]]:
  """Rows of outputevents and inputevents."""
  stays, weight = streams(patient, seed)
  outputs: dict[str, list] = {}
  inputs: dict[str, list] = {}
  for admission, stay, rng in stays:
    ids = {
      'subject_id': patient.subject_id,
      'hadm_id': admission.hadm_id,
      'stay_id': stay.stay_id,
    }
    planted = kidneys(rng, admission, stay)
    time, volume = _charted(rng, stay, planted, weight)
    stored = time + rng.integers(5, 60, len(time)) * 60
    caregiver = int(rng.integers(10_000, 10_060))
    _extend(
      outputs, len(time), **ids, caregiver_id=caregiver, charttime=time.tolist(),
      storetime=stored.tolist(), itemid=FOLEY, value=volume.tolist(), valueuom='mL',
    )  # fmt: skip
    start = stay.intime + int(rng.uniform(0.2, 3) * 60) * 60
    rate = float(rng.choice([75.0, 100.0, 125.0]))
    hours = int(rng.integers(2, 9))
    if rng.random() < 0.08 or start >= stay.outtime:  # no weight: urine is not judged
      continue
    shown = weight * 10 if rng.random() < 0.01 else weight  # a slip of the decimal point
    _extend(
      inputs, 1, **ids, caregiver_id=caregiver, starttime=start,
      endtime=start + hours * HOUR, storetime=start + 1800, itemid=FLUID,
      amount=rate * hours, amountuom='ml', rate=rate, rateuom='mL/hour',
      orderid=int(rng.integers(1, 10_000_000)), linkorderid=NULL,
      ordercategoryname='02-Fluids (Crystalloids)',
      secondaryordercategoryname='Additive (Crystalloid)',
      ordercomponenttypedescription='Main order parameter',
      ordercategorydescription='Continuous IV', patientweight=shown,
      totalamount=1000.0, totalamountuom='ml', isopenbag=0, continueinnextdept=0,
      statusdescription='FinishedRunning', originalamount=1000.0, originalrate=rate,
    )  # fmt: skip
  tables = {'icu/outputevents': outputs, 'icu/inputevents': inputs}
  return {name: rows for name, rows in tables.items() if rows}


def _extend(rows: dict[str, list], count: int, **cells) -> None:
  for name, cell in cells.items():
    rows.setdefault(name, []).extend(cell if isinstance(cell, list) else [cell] * count)


def _charted(
  rng: np.random.Generator, stay: Stay, planted: Kidneys, weight: float
) -> tuple[np.ndarray, np.ndarray]:
  """Times of chartings, seconds, and the volume since the previous one, mL."""
  steps = rng.choice([1, 1, 1, 2, 2, 3], int((stay.outtime - stay.intime) / HOUR) + 1)
  time = stay.intime + (np.cumsum(steps) - 1) * HOUR + int(rng.integers(0, 60)) * 60
  time = time[time <= stay.outtime].astype(np.int64)
  hours = (time - stay.intime) / HOUR
  usual = float(np.exp(rng.normal(np.log(1.2), 0.2)))
  fall = np.exp(-DECLINE_RATE * planted.decline * np.clip(hours / 12 - 1, -1, 1))
  rate = np.maximum(usual * fall, 0.75)
  low = rng.uniform(0.15, 0.35)
  lasts = rng.uniform(9, 20) * HOUR
  for onset in (planted.early, planted.onset):
    if onset is not None:
      rate = np.where((time > onset) & (time <= onset + lasts), low, rate)
  noise = np.exp(rng.normal(0, 0.12, len(time)))
  since = np.diff(hours, prepend=0.0)
  return time, np.round(np.maximum(rate * noise * since * weight, 0) / 5) * 5


def item_rows() -> dict[str, list]:
  """Rows of d_items for these two tables."""
  names = ('itemid', 'label', 'abbreviation', 'linksto', 'category', 'unitname')
  columns: dict[str, list] = {n: [row[i] for row in _ITEMS] for i, n in enumerate(names)}
  size = len(_ITEMS)
  return {
    **columns,
    'param_type': ['Numeric', 'Solution'],
    'lownormalvalue': [np.nan] * size,
    'highnormalvalue': [np.nan] * size,
  }
