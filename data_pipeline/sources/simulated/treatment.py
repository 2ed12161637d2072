"""Simulates drugs and ventilators: inputevents, emar, procedureevents, chartevents.

All follow from the components and cause nothing: they are a further view of severity (and
of heart failure), which no other modality shows in full. They have their own random streams
and rows, so that everything else is unchanged. `chart.py` decides who is ventilated.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from data_pipeline.sources.simulated import latent, tables
from data_pipeline.sources.simulated.lab_dictionary import read_table
from data_pipeline.sources.simulated.latent import (
  HOUR,
  Admission,
  Components,
  Patient,
  Stay,
  sigmoid,
)

Rows = dict[str, list]

# log-odds that the drug is given in a stay
CHANCES = {
  'norepinephrine': {'intercept': -1.6, 'severity': 1.8},
  'vasopressin': {'intercept': -3.2, 'severity': 1.8},
  'crystalloid': {'intercept': 0.2, 'severity': 0.8},
  'red_cells': {'intercept': -2.0, 'severity': 0.6},
  'antibiotic': {'intercept': -0.6, 'severity': 1.0},
  'furosemide': {'intercept': -1.0, 'failure': 1.4},
  'insulin': {'intercept': -0.8},
  'extubation': {'intercept': -1.0, 'severity': -1.0},
}
# log of the norepinephrine rate, mcg/kg/min, at its start
NOREPINEPHRINE = {'intercept': -2.6, 'severity': 0.5, 'noise': 0.3}
# per severity, of who is ventilated; PEEP in cmH2O, tidal volume in mL
PEEP, TIDAL_VOLUME = 2.0, -25.0

DEVICES = ('None', 'Nasal cannula', 'High flow nasal cannula', 'Endotracheal tube')
MODES = ('CMV/ASSIST/AutoFlow', 'CPAP/PSV')

_VENTILATED_SIGN = 223835  # FiO2, which chart.py only charts for ventilated patients


class _Drug(NamedTuple):
  """How inputevents records a drug: item, units and the amount of an hour at rate 1.

  If the rate is per weight, the amount is that of a patient of 80 kg.
  """

  itemid: int
  amount: str
  rate: str
  category: str
  hourly: float = 1.0


_DRUGS = {
  'norepinephrine': _Drug(221906, 'mg', 'mcg/kg/min', '01-Drips', 4.8),
  'vasopressin': _Drug(222315, 'units', 'units/hour', '01-Drips'),
  'propofol': _Drug(222168, 'mg', 'mcg/kg/min', '01-Drips', 4.8),
  'fentanyl': _Drug(221744, 'mcg', 'mcg/hour', '01-Drips'),
  'crystalloid': _Drug(225828, 'ml', 'mL/hour', '02-Fluids (Crystalloids)'),
  'red_cells': _Drug(225168, 'ml', 'mL/hour', '07-Blood Products'),
  'antibiotic': _Drug(225798, 'dose', '', '08-Antibiotics (IV)'),
  'furosemide': _Drug(221794, 'mg', '', '05-Med Bolus'),
  'insulin': _Drug(223258, 'units', '', '05-Med Bolus'),
}
_EMAR = (('Vancomycin', 'antibiotic'), ('Furosemide', 'furosemide'), ('Insulin', 'insulin'))


def planted() -> dict[str, Any]:
  """Coefficients, for the hospital's manifest."""
  return {
    **CHANCES,
    'norepinephrine_log_rate': NOREPINEPHRINE,
    'ventilated': {'peep_cmh2o': PEEP, 'tidal_volume_ml': TIDAL_VOLUME},
  }


def texts() -> tuple[str, ...]:
  """Texts and units of these chartevents."""
  units = [row['unit'] for row in read_table('treatment_items.csv')]
  return tuple(dict.fromkeys(filter(None, (*DEVICES, *MODES, *units))))


def item_rows() -> Rows:
  """Rows of d_items for these rows."""
  rows = read_table('treatment_items.csv')
  names = ('label', 'abbreviation', 'linksto', 'category', 'unitname', 'param_type')
  columns: Rows = {name: [row[name] or None for row in rows] for name in names}
  return {
    **columns,
    'itemid': [int(row['itemid']) for row in rows],
    'lownormalvalue': [np.nan] * len(rows),
    'highnormalvalue': [np.nan] * len(rows),
  }


def simulate(
  patient: Patient, seed: int, chart: list[dict[str, Any]], vocabulary: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
  """Rows by table.

  Args:
    patient: whose stays are treated.
    seed: of the hospital.
    chart: from `chart.simulate_chart`, one per ICU stay.
    vocabulary: of chartevents, which includes `texts`.
  """
  rng = latent.generator(seed, patient.index, 'treatment', patient.hospital)
  seeds = iter(rng.integers(0, 2**62, 64).tolist())
  made = _Tables(patient, {text: i for i, text in enumerate(vocabulary)})
  charts = iter(chart)
  for admission in patient.admissions:
    for stay in admission.stays:
      ventilated = bool((next(charts)['itemid'] == _VENTILATED_SIGN).any())
      own = np.random.default_rng(next(seeds))
      _drugs(own, made, admission, stay, ventilated)
      _airway(own, made, admission, stay, ventilated)
  return made.rows


class _Tables:
  """Rows of a patient by table, collected cell by cell."""

  def __init__(self, patient: Patient, texts: dict[str, int]):
    self.rows: dict[str, dict[str, Any]] = {}
    self._subject = patient.subject_id
    self._texts = texts
    self._units = {
      int(row['itemid']): row['unit'] for row in read_table('treatment_items.csv')
    }

  def add(self, table: str, admission: Admission, **cells: Any) -> None:
    cells = {'subject_id': self._subject, 'hadm_id': admission.hadm_id, **cells}
    of = self.rows.setdefault(table, {})
    for name, _ in tables.LAYOUT[table]:
      of.setdefault(name, []).append(cells.pop(name))
    assert not cells, cells

  def give(
    self, rng: np.random.Generator, admission: Admission, stay: Stay, name: str, *,
    start: int, end: int, rate: float | None, amount: float,
    status: str = 'FinishedRunning',
  ) -> None:  # fmt: skip
    """Adds a row of inputevents; only rows of `outcomes.urine` have the weight."""
    drug = _DRUGS[name]
    order = int(rng.integers(1, 10_000_000))
    self.add(
      'icu/inputevents', admission, stay_id=stay.stay_id,
      caregiver_id=int(rng.integers(10_000, 10_060)), starttime=start, endtime=end,
      storetime=start + int(rng.integers(1, 40)) * 60, itemid=drug.itemid,
      amount=round(amount, 4), amountuom=drug.amount,
      rate=np.nan if rate is None else round(rate, 4),
      rateuom=None if rate is None else drug.rate, orderid=order, linkorderid=order,
      ordercategoryname=drug.category, secondaryordercategoryname=None,
      ordercomponenttypedescription='Main order parameter',
      ordercategorydescription='Drug Push' if rate is None else 'Continuous Med',
      patientweight=np.nan, totalamount=np.nan, totalamountuom=None, isopenbag=0,
      continueinnextdept=0, statusdescription=status, originalamount=round(amount, 4),
      originalrate=np.nan if rate is None else round(rate, 4),
    )  # fmt: skip

  def chart(
    self, rng: np.random.Generator, admission: Admission, stay: Stay, itemid: int,
    time: int, value: float | str,
  ) -> None:  # fmt: skip
    """Adds a row of chartevents."""
    is_text = isinstance(value, str)
    unit = self._units[itemid]
    self.add(
      'icu/chartevents', admission, stay_id=stay.stay_id,
      caregiver_id=int(rng.integers(10_000, 10_060)), charttime=time,
      storetime=time + int(rng.integers(1, 60)) * 60, itemid=itemid,
      value=self._texts[value] if isinstance(value, str) else -1,
      valuenum=np.nan if is_text else value, valueuom=self._texts[unit] if unit else -1,
      warning=0,
    )  # fmt: skip


def _given(rng: np.random.Generator, name: str, state: Components) -> bool:
  chance = CHANCES[name]
  odds = chance['intercept'] + sum(
    slope * getattr(state, component)
    for component, slope in chance.items()
    if component != 'intercept'
  )
  return bool(rng.random() < sigmoid(odds))


def _infuse(
  rng: np.random.Generator, made: _Tables, admission: Admission, stay: Stay, name: str,
  rate: float, hours: float,
) -> None:  # fmt: skip
  """An infusion whose rate is changed every few hours; some rows are rewritten."""
  time = stay.intime + int(rng.uniform(0.2, 8) * 60) * 60
  end = min(time + int(hours * 60) * 60, stay.outtime)
  while time < end:
    until = min(time + int(rng.integers(2, 9)) * HOUR, end)
    amount = rate * _DRUGS[name].hourly * (until - time) / HOUR
    if rng.random() < 0.03:  # a slip, written again
      made.give(rng, admission, stay, name, start=time, end=until, rate=rate * 10,
                amount=amount * 10, status='Rewritten')  # fmt: skip
    made.give(
      rng, admission, stay, name, start=time, end=until, rate=rate, amount=amount,
      status='ChangeDose/Rate' if until < end else 'Stopped',
    )  # fmt: skip
    time, rate = until, rate * float(np.exp(rng.normal(0, 0.2)))


def _drugs(
  rng: np.random.Generator, made: _Tables, admission: Admission, stay: Stay,
  ventilated: bool,
) -> None:  # fmt: skip
  state = admission.state
  if _given(rng, 'norepinephrine', state):
    log_rate = NOREPINEPHRINE['intercept'] + NOREPINEPHRINE['severity'] * state.severity
    rate = float(np.exp(log_rate + NOREPINEPHRINE['noise'] * rng.normal()))
    _infuse(rng, made, admission, stay, 'norepinephrine', rate, rng.uniform(6, 60))
  if _given(rng, 'vasopressin', state):
    _infuse(rng, made, admission, stay, 'vasopressin', 2.4, rng.uniform(6, 48))
  if ventilated:
    hours = rng.uniform(8, 72)
    rate = float(rng.uniform(15, 50))
    _infuse(rng, made, admission, stay, 'propofol', rate, hours)
    _infuse(rng, made, admission, stay, 'fentanyl', float(rng.uniform(25, 150)), hours)
  if _given(rng, 'crystalloid', state):
    for _ in range(1 + int(rng.poisson(np.exp(0.4 * state.severity)))):
      start = stay.intime + int(rng.uniform(0, 24) * 60) * 60
      made.give(rng, admission, stay, 'crystalloid', start=start, end=start + HOUR,
                rate=500.0, amount=500.0)  # fmt: skip
  if _given(rng, 'red_cells', state):
    start = stay.intime + int(rng.uniform(0, 24) * 60) * 60
    made.give(rng, admission, stay, 'red_cells', start=start, end=start + 2 * HOUR,
              rate=175.0, amount=350.0)  # fmt: skip
  doses = {'antibiotic': (1.0, 8), 'furosemide': (40.0, 12), 'insulin': (4.0, 6)}
  for name, (dose, every) in doses.items():
    if not _given(rng, name, state):
      continue
    drug = next(drug for drug, of in _EMAR if of == name)
    time = stay.intime + int(rng.uniform(0, every) * 60) * 60
    while time < min(stay.outtime, stay.intime + 96 * HOUR):
      administered = rng.random() < 0.93
      if administered:
        made.give(rng, admission, stay, name, start=time, end=time + 60, rate=None,
                  amount=dose)  # fmt: skip
      _record(rng, made, admission, time, drug, administered)
      time += every * HOUR


def _record(
  rng: np.random.Generator, made: _Tables, admission: Admission, time: int, drug: str,
  administered: bool,
) -> None:  # fmt: skip
  """Adds a row of emar: the scan at the bedside, some minutes apart from inputevents."""
  number = int(rng.integers(1, 10_000_000))
  made.add(
    'hosp/emar', admission, emar_id=f'{admission.hadm_id}-{number}', emar_seq=number,
    poe_id=None, pharmacy_id=tables.NULL, enter_provider_id=None,
    charttime=time + int(rng.integers(0, 10)) * 60, medication=drug,
    event_txt='Administered' if administered else 'Not Given', scheduletime=time,
    storetime=time + int(rng.integers(10, 30)) * 60,
  )  # fmt: skip


def _airway(
  rng: np.random.Generator, made: _Tables, admission: Admission, stay: Stay,
  ventilated: bool,
) -> None:  # fmt: skip
  state = admission.state
  start = stay.intime + int(rng.integers(5, 60)) * 60
  extubated = None
  if ventilated:
    _procedure(rng, made, admission, stay, 224385, start, start + 60)
    until = min(stay.outtime, start + int(rng.uniform(8, 96) * HOUR))
    if _given(rng, 'extubation', state):
      extubated = min(start + int(rng.uniform(6, 20) * HOUR) // 60 * 60, until)
      _procedure(rng, made, admission, stay, 227194, extubated, extubated + 60)
    _procedure(rng, made, admission, stay, 225792, start, extubated or until)
  needs = state.severity + rng.normal(0, 0.7)
  for time in range(start, min(stay.outtime, stay.intime + 72 * HOUR), 4 * HOUR):
    at = time + int(rng.integers(0, 30)) * 60
    intubated = ventilated and (extubated is None or at < extubated)
    if not intubated:
      device = DEVICES[int(np.searchsorted((-0.2, 1.2), needs + rng.normal(0, 0.3)))]
      made.chart(rng, admission, stay, 226732, at, device)
      continue
    made.chart(rng, admission, stay, 226732, at, DEVICES[-1])
    mode = MODES[int(rng.random() < sigmoid(-0.3 - 0.9 * state.severity))]
    made.chart(rng, admission, stay, 223849, at, mode)
    peep = np.clip(np.round(6 + PEEP * state.severity + rng.normal(0, 1.5)), 0, 20)
    made.chart(rng, admission, stay, 220339, at, float(peep))
    volume = 440 + TIDAL_VOLUME * state.severity + rng.normal(0, 40)
    made.chart(rng, admission, stay, 224685, at, float(np.round(np.maximum(volume, 150))))


def _procedure(
  rng: np.random.Generator, made: _Tables, admission: Admission, stay: Stay, itemid: int,
  start: int, end: int,
) -> None:  # fmt: skip
  order = int(rng.integers(1, 10_000_000))
  made.add(
    'icu/procedureevents', admission, stay_id=stay.stay_id,
    caregiver_id=int(rng.integers(10_000, 10_060)), starttime=start, endtime=end,
    storetime=start + int(rng.integers(1, 60)) * 60, itemid=itemid,
    value=round((end - start) / 60, 1), valueuom='min', location=None,
    locationcategory=None, orderid=order, linkorderid=order,
    ordercategoryname='Ventilation' if itemid == 225792 else 'Intubation/Extubation',
    ordercategorydescription='Task', patientweight=np.nan, isopenbag=0,
    continueinnextdept=0, statusdescription='FinishedRunning', originalamount=np.nan,
    originalrate=np.nan,
  )  # fmt: skip
