"""Simulates chartevents: vital signs and laboratory copies of a patient's ICU stays.

Most stays have an arterial line: heart rate and blood pressure about every 6 minutes
in the first 26 hours, then hourly. Other stays are charted every 15 to 60 minutes,
more often for sicker patients. The planted effects on vital signs:

1. `swing`: heart rate and pressure oscillate against each other with a period of 30
   minutes and an amplitude of exp(.6 swing); means over an hour do not change.
2. `drift`: pressure falls over the first 24 hours, the mean over them unchanged.
"""

from __future__ import annotations

import functools

import numpy as np

from data_pipeline.sources.simulated import hospitals, lab_dictionary
from data_pipeline.sources.simulated.labs import ChartCopies, Rows, drift_at
from data_pipeline.sources.simulated.latent import (
  HOUR,
  Admission,
  Components,
  Patient,
  Stay,
  generator,
  sigmoid,
)

SWING_PERIOD = 1800  # seconds
SWING_HEART_RATE = 5.0  # bpm at swing 0
SWING_PRESSURE = 6.0  # mmHg, systolic, at swing 0
SWING_LOG_SLOPE = 0.6
DRIFT_PRESSURE = 7.0  # mmHg, mean pressure, at drift 1 between 12 h and 24 h

RHYTHMS = (
  'SR (Sinus Rhythm)', 'ST (Sinus Tachycardia)', 'SB (Sinus Bradycardia)',
  'AF (Atrial Fibrillation)', 'A Flut (Atrial Flutter)', '1st AV (First degree AV Block)',
  'V Paced', 'SA (Sinus Arrhythmia)',
)  # fmt: skip
ECTOPY = ('PVCs', 'PACs', 'Vent. Bigeminy', 'Nod/Junc Escape', 'Fusion Beats', 'None')
FREQUENCY = ('Rare', 'Occasional', 'Frequent', 'Runs Vtach')
_DENSE_SECONDS = 26 * HOUR


@functools.cache
def vocabulary() -> tuple[str, ...]:
  """Every text of chartevents; a row refers to it by index."""
  units = [row['unit'] for row in lab_dictionary.read_table('chart_items.csv')]
  texts = (*RHYTHMS, *ECTOPY, *FREQUENCY, *units, *hospitals.unit_texts())
  return tuple(dict.fromkeys(text for text in texts if text))


@functools.cache
def _text_index() -> dict[str, int]:
  return {'': -1, **{text: i for i, text in enumerate(vocabulary())}}


@functools.cache
def _units(hospital: hospitals.Hospital) -> tuple[np.ndarray, np.ndarray]:
  """Item ids, sorted, and the vocabulary index of the unit of each."""
  rows = lab_dictionary.read_table('chart_items.csv')
  units = {int(row['itemid']): row['unit'] for row in rows}
  units |= {item: unit.text for item, unit in hospital.units.items() if item in units}
  pairs = sorted((item, _text_index()[unit]) for item, unit in units.items())
  return np.array([item for item, _ in pairs]), np.array([unit for _, unit in pairs])


def item_rows(hospital: hospitals.Hospital) -> dict[str, list]:
  """Rows of d_items; units are those of the hospital."""
  rows = lab_dictionary.read_table('chart_items.csv')
  texts = ('label', 'abbreviation', 'category', 'unitname', 'param_type')
  columns: dict[str, list] = {name: [row[name] or None for row in rows] for name in texts}
  itemids = [int(row['itemid']) for row in rows]
  columns['unitname'] = [
    hospital.units[item].text if item in hospital.units and name != 'None' else name
    for item, name in zip(itemids, columns['unitname'], strict=True)
  ]
  return {
    **columns,
    'itemid': itemids,
    'linksto': ['chartevents'] * len(rows),
    'lownormalvalue': [np.nan] * len(rows),
    'highnormalvalue': [np.nan] * len(rows),
  }


class _Rows:
  """Collects observations of one stay."""

  def __init__(self):
    self._parts: list[tuple[np.ndarray, ...]] = []

  def numbers(self, itemid: int | np.ndarray, time: np.ndarray, value: np.ndarray):
    self._add(itemid, time, value, -1)

  def texts(self, itemid: int, time: np.ndarray, code: np.ndarray):
    self._add(itemid, time, np.nan, code)

  def _add(self, itemid, time, value, code):
    size = len(time)
    self._parts.append(
      (
        np.broadcast_to(itemid, size),
        time,
        np.broadcast_to(value, size),
        np.broadcast_to(code, size),
      )
    )

  def arrays(self) -> Rows:
    names = ('itemid', 'charttime', 'valuenum', 'value')
    columns = zip(*self._parts, strict=True)
    return {n: np.concatenate(c) for n, c in zip(names, columns, strict=True)}


def simulate_chart(
  patient: Patient, copies: ChartCopies, seed: int, density: float
) -> list[Rows]:
  """Rows of chartevents, one dict of columns per ICU stay."""
  rng = generator(seed, patient.index, 'chart', patient.hospital)
  density = density * patient.hospital.density
  result = []
  for admission in patient.admissions:
    for stay in admission.stays:
      rows = _simulate_stay(rng, admission, stay, copies, density, patient.hospital.celsius)
      result.append(_complete(rng, rows, patient, admission, stay))
  return result


def _times(
  rng: np.random.Generator, start: float, end: float, interval: float
) -> np.ndarray:
  """Irregular times in seconds, on whole minutes, `interval` apart on average."""
  count = max(int((end - start) / interval), 0)
  steps = (np.arange(count) + rng.uniform(-0.3, 0.3, count) + 0.5) * interval
  return (start + steps).astype(np.int64) // 60 * 60


def _simulate_stay(
  rng: np.random.Generator,
  admission: Admission,
  stay: Stay,
  copies: ChartCopies,
  density: float,
  in_celsius: float,
) -> Rows:
  state = admission.state
  rows = _Rows()
  line = rng.random() < sigmoid(1.6 + 0.5 * state.severity)
  sparse = float(np.clip(35 * np.exp(-0.4 * state.severity), 15, 60)) * 60 / density
  start, end = stay.intime + 300, stay.outtime
  ventilated = rng.random() < sigmoid(-0.6 + 0.9 * state.severity)
  wave = _Hemodynamics(rng, state, stay)
  if line:
    dense_end = min(stay.intime + _DENSE_SECONDS, end)
    time = np.concatenate(
      [
        _times(rng, start, dense_end, 360 / density),
        _times(rng, dense_end, end, HOUR / density),
      ]
    )
    rows.numbers(220045, time, np.round(wave.heart_rate(rng, time)))
    systolic, diastolic = wave.pressure(rng, time)
    _pressure_rows(rows, (220050, 220051, 220052), time, systolic, diastolic)
    cuff = _times(rng, start, end, 4 * HOUR / density)
  else:
    time = _times(rng, start, end, sparse)
    rows.numbers(220045, time, np.round(wave.heart_rate(rng, time)))
    cuff = time + rng.integers(0, 3, len(time)) * 60
  systolic, diastolic = wave.pressure(rng, cuff)
  _pressure_rows(rows, (220179, 220180, 220181), cuff, systolic, diastolic)
  if rng.random() < 0.05:
    manual = _times(rng, start, end, 12 * HOUR / density)
    systolic, diastolic = wave.pressure(rng, manual)
    left = rng.random() < 0.5
    rows.numbers(224167 if left else 227243, manual, np.round(systolic))
    rows.numbers(224643 if left else 227242, manual, np.round(diastolic))
  _respiration(rng, rows, state, start, end, ventilated, density)
  _temperature(rng, rows, state, start, end, density, in_celsius)
  _rhythm(rng, rows, state, start, end, density)
  _charted_labs(rng, rows, state, start, end, ventilated, density)
  mine = copies.stay_id == stay.stay_id
  rows.numbers(copies.itemid[mine], copies.time[mine], copies.value[mine])
  if rng.random() < 0.02:  # charted after the stay had ended
    late = np.array([end + 2 * HOUR, end + 5 * HOUR]) // 60 * 60
    rows.numbers(220045, late, np.array([80.0, 82.0]))
  return rows.arrays()


class _Hemodynamics:
  """Heart rate and blood pressure of a stay as functions of time."""

  def __init__(self, rng: np.random.Generator, state: Components, stay: Stay):
    self._stay = stay
    self._rate = 84 + 6 * state.severity + 4 * state.failure + rng.normal(0, 9)
    self._mean = 80 - 4 * state.severity + rng.normal(0, 7)
    self._pulse = 52 + rng.normal(0, 8)
    self._gain = np.exp(SWING_LOG_SLOPE * stay.swing)
    self._phase = rng.uniform(0, 2 * np.pi)
    self._slow_phase = rng.uniform(0, 2 * np.pi, 2)
    self._slow_period = rng.uniform(5, 11, 2) * HOUR
    self._irregular = 6.0 if state.rhythm > 1.1 else 1.5

  def _fast(self, time: np.ndarray) -> np.ndarray:
    return self._gain * np.sin(2 * np.pi * time / SWING_PERIOD + self._phase)

  def _slow(self, time: np.ndarray, which: int) -> np.ndarray:
    angle = 2 * np.pi * time / self._slow_period[which] + self._slow_phase[which]
    return np.sin(angle)

  def heart_rate(self, rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    fast = SWING_HEART_RATE * self._fast(time)
    noise = rng.normal(0, self._irregular, len(time))
    return np.maximum(self._rate + 4 * self._slow(time, 0) + fast + noise, 25)

  def pressure(
    self, rng: np.random.Generator, time: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Systolic and diastolic pressure; the mean falls with the stay's drift."""
    mean = self._mean + 3 * self._slow(time, 1) + rng.normal(0, 2, len(time))
    mean = mean - DRIFT_PRESSURE * drift_at(self._stay, time)
    systolic = mean + 2 / 3 * self._pulse - SWING_PRESSURE * self._fast(time)
    diastolic = mean - 1 / 3 * self._pulse + SWING_PRESSURE / 2 * self._fast(time)
    diastolic = np.maximum(diastolic, 12)
    return np.maximum(systolic, diastolic + 5), diastolic


def _pressure_rows(rows: _Rows, itemids, time, systolic, diastolic) -> None:
  mean = (systolic + 2 * diastolic) / 3
  for itemid, value in zip(itemids, (systolic, diastolic, mean), strict=True):
    rows.numbers(itemid, time, np.round(value))


def _respiration(rng, rows: _Rows, state, start, end, ventilated, density) -> None:
  time = _times(rng, start, end, HOUR / density)
  size = len(time)
  rate = 18 + 2.5 * state.severity + rng.normal(0, 2) + rng.normal(0, 2, size)
  rows.numbers(220210, time, np.round(np.maximum(rate, 4)))
  saturation = 97 - 0.9 * state.severity - 0.4 * state.failure + rng.normal(0, 1.2, size)
  rows.numbers(220277, time, np.round(np.clip(saturation, 60, 100)))
  if not ventilated:
    return
  time = _times(rng, start, end, 4 * HOUR / density)
  size = len(time)
  for itemid in (224688, 224689, 224690):
    rows.numbers(itemid, time, np.round(16 + rng.normal(0, 2, size)))
  oxygen = np.clip(50 + 9 * state.severity + rng.normal(0, 6, size), 21, 100)
  oxygen = np.round(oxygen / 5) * 5
  as_fraction = rng.random(size) < 0.06  # mixed units: 0.4 instead of 40
  rows.numbers(223835, time, np.where(as_fraction, oxygen / 100, oxygen))


def _temperature(rng, rows: _Rows, state, start, end, density, in_celsius) -> None:
  time = _times(rng, start, end, 4 * HOUR / density)
  celsius = 36.9 + 0.25 * state.severity + rng.normal(0, 0.3, len(time))
  if rng.random() < in_celsius:
    rows.numbers(223762, time, np.round(celsius, 1))
    return
  fahrenheit = celsius * 1.8 + 32
  wrong_field = rng.random(len(time)) < 0.003  # Celsius typed into the Fahrenheit field
  rows.numbers(223761, time, np.round(np.where(wrong_field, celsius, fahrenheit), 1))


def _rhythm(rng, rows: _Rows, state, start, end, density) -> None:
  index = _text_index()
  time = _times(rng, start, end, 3 * HOUR / density)
  size = len(time)
  chance = rng.random(size)
  usual = RHYTHMS[3] if state.rhythm > 1.1 else RHYTHMS[1 if state.severity > 1 else 0]
  other = rng.choice([index[text] for text in RHYTHMS], size)
  rows.texts(220048, time, np.where(chance < 0.92, index[usual], other))
  if rng.random() >= sigmoid(-0.8 + 0.8 * state.rhythm):
    return
  frequency = [index[text] for text in FREQUENCY]
  for type_item, frequency_item, kinds in (
    (224650, 224651, ECTOPY[:1] * 8 + ECTOPY),
    (226479, 226480, ECTOPY[1:2] * 8 + ECTOPY),
  ):
    if type_item == 226479 and rng.random() < 0.5:
      continue
    charted = time[rng.random(size) < 0.5]
    kind = rng.choice([index[text] for text in kinds], len(charted))
    rows.texts(type_item, charted, kind)
    often = rng.choice(frequency, len(charted), p=(0.4, 0.4, 0.17, 0.03))
    known = rng.random(len(charted)) < 0.9
    rows.texts(frequency_item, charted[known], often[known])


def _charted_labs(rng, rows: _Rows, state, start, end, ventilated, density) -> None:
  """Bedside results that exist in chartevents only."""
  time = _times(rng, start, end, 5 * HOUR / density)
  glucose = np.round(130 * np.exp(rng.normal(0, 0.25, len(time))))
  rows.numbers(225664, time, glucose)
  if not ventilated:
    return
  time = _times(rng, start, min(end, start + 72 * HOUR), 6 * HOUR / density)
  size = len(time)
  ph = 7.38 - 0.03 * state.severity + rng.normal(0, 0.03, size)
  carbon = 41 + 2 * state.failure + rng.normal(0, 4, size)
  rows.numbers(223830, time, np.round(ph, 2))
  rows.numbers(220235, time, np.round(carbon))
  rows.numbers(225698, time, np.round(24 - 1.5 * state.severity + rng.normal(0, 2, size)))
  rows.numbers(220224, time, np.round(np.clip(rng.normal(140, 35, size), 40, 500)))
  if rng.random() < 0.45:
    rows.numbers(220227, time, np.round(np.clip(rng.normal(96, 2, size), 60, 100)))
  if rng.random() < 0.35:
    rows.numbers(220274, time, np.round(ph - 0.04, 2))
    rows.numbers(226062, time, np.round(carbon + 6))
    rows.numbers(223679, time, np.round(rng.normal(25, 3, size)))
    rows.numbers(226063, time, np.round(np.clip(rng.normal(48, 10, size), 15, 120)))


def _complete(
  rng: np.random.Generator, rows: Rows, patient: Patient, admission: Admission, stay: Stay
) -> Rows:
  """Typing errors, units and duplicates, order of time, and the remaining columns."""
  _mistype(rng, rows)
  size = len(rows['itemid'])
  items, units = _units(patient.hospital)
  delay = (rng.lognormal(np.log(20), 0.9, size) * 60).astype(np.int64)
  full = lambda value: np.full(size, value)
  rows = {
    **rows,
    'valuenum': hospitals.stated(patient.hospital, rows['itemid'], rows['valuenum']),
    'subject_id': full(patient.subject_id),
    'hadm_id': full(admission.hadm_id),
    'stay_id': full(stay.stay_id),
    'caregiver_id': rng.integers(10_000, 10_060, size),
    'storetime': rows['charttime'] + delay,
    'valueuom': units[np.searchsorted(items, rows['itemid'])],
    'warning': (rng.random(size) < 0.01).astype(np.int64),
  }
  order = np.argsort(rows['charttime'], kind='stable')
  again = np.flatnonzero(rng.random(size) < 0.001)
  order = np.concatenate([order, again])  # duplicates come late, out of order
  return {name: column[order] for name, column in rows.items()}


def _mistype(rng: np.random.Generator, rows: Rows) -> None:
  """The typing errors of the real tables: HR 6262, SpO2 981023, negative pressure."""
  item, value = rows['itemid'], rows['valuenum']
  chance = rng.random(len(item))
  errors = (
    (item == 220045, 6262.0),
    (item == 220277, 981023.0),
    (np.isin(item, (220050, 220179)), -94.0),
    (np.isin(item, (220052, 220181)), 140119.0),
    (item == 223761, 9834.0),
  )
  for where, wrong in errors:
    value[where & (chance < 0.0003)] = wrong
