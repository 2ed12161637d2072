"""Simulates labevents: panels at irregular times, driven by the latent state.

Sicker patients are sampled more often, lactate is only measured in severe cases, and
results have the errors of real laboratory tables.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data_pipeline.sources.simulated import hospitals
from data_pipeline.sources.simulated import lab_dictionary as dictionary
from data_pipeline.sources.simulated.latent import (
  DAY,
  HOUR,
  Admission,
  Components,
  Patient,
  Stay,
  generator,
  sigmoid,
)
from data_pipeline.sources.simulated.tables import NULL

# how much potassium (mEq/L) and log lactate move with the planted effects
POTASSIUM_SHIFT = 0.6
LACTATE_DRIFT = 0.3
# Scatter between two results of a person, as a share of `spread`.
NOISE = 0.5

Rows = dict[str, np.ndarray]


class _Draw(NamedTuple):
  """One blood or urine sample."""

  panel: str
  time: int
  hadm_id: int
  state: Components
  stay: Stay | None


class ChartCopies(NamedTuple):
  """Laboratory results that nurses charted again: stay, item, time, value."""

  stay_id: np.ndarray
  itemid: np.ndarray
  time: np.ndarray
  value: np.ndarray


def drift_at(stay: Stay, seconds: np.ndarray) -> np.ndarray:
  """Planted effect 2: from -drift at admission to +drift at 24 h, mean 0, then flat."""
  return stay.drift * np.clip((seconds - stay.intime) / (12 * HOUR) - 1, -1, 1)


def simulate_labs(patient: Patient, seed: int, density: float) -> tuple[Rows, ChartCopies]:
  """Rows of labevents of one patient, without the running numbers.

  Returns:
    The rows, in order of time within each panel and in the hospital's units, and the
    copies for chartevents, in the units of `lab_items.csv`.
  """
  rng, draws, offset = _begin(patient, seed, density)
  items = dictionary.numeric_items()
  parts: list[Rows] = []
  copies: list[ChartCopies] = []
  for panel in dict.fromkeys(draw.panel for draw in draws):
    chosen = [draw for draw in draws if draw.panel == panel]
    columns = np.flatnonzero(items.panel == panel)
    if columns.size:
      rows, copy = _numeric_rows(rng, chosen, columns, offset[columns])
      parts.append(rows)
      copies.append(copy)
    for item in dictionary.TEXT_ITEMS:
      if item.panel == panel:
        parts.append(_text_rows(rng, chosen, item))
  rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  rows = _stated(_spoil(rng, rows), patient.hospital)
  rows['subject_id'] = np.full(len(rows['itemid']), patient.subject_id)
  return rows, ChartCopies(
    *(np.concatenate(columns) for columns in zip(*copies, strict=True))
  )


def usual_level(
  patient: Patient, seed: int, density: float, itemid: int, state: Components
) -> tuple[float, float]:
  """Location and scatter of the results of an item in a state.

  Returns:
    The median in the unit of `lab_items.csv`, and the standard deviation, which is that of
    the log if the item's scale is log.
  """
  items = dictionary.numeric_items()
  [column] = np.flatnonzero(items.itemid == itemid)
  _, _, offset = _begin(patient, seed, density)
  move = float(np.array(state[:4]) @ items.effects[column] + offset[column])
  center = float(items.center[column])
  level = center * np.exp(move) if items.is_log[column] else center + move
  return float(level), float(items.spread[column]) * NOISE


def _begin(
  patient: Patient, seed: int, density: float
) -> tuple[np.random.Generator, list[_Draw], np.ndarray]:
  """The random stream of a patient, its samples, and the usual level of each item (n,)."""
  rng = generator(seed, patient.index, 'labs', patient.hospital)
  draws = _plan(rng, patient, density * patient.hospital.density)
  items = dictionary.numeric_items()
  return rng, draws, rng.normal(size=len(items.itemid)) * items.spread * 0.7


def _plan(rng: np.random.Generator, patient: Patient, density: float) -> list[_Draw]:
  draws: list[_Draw] = []

  def draw(panels, time, hadm_id, state, stay=None):
    draws.extend(_Draw(panel, int(time), hadm_id, state, stay) for panel in panels)

  first = patient.admissions[0]
  for _ in range(int(rng.poisson(0.8))):
    time = first.admittime - int(rng.uniform(0.2, 5) * 365 * DAY)
    draw(('chemistry', 'count', 'lipid'), time, NULL, patient.traits)
  for admission in patient.admissions:
    state = admission.state
    if rng.random() < 0.4:  # outpatient visit before the admission, often with ECG later
      time = admission.admittime - rng.uniform(20, 120) * DAY
      draw(('chemistry', 'count', 'lipid'), time, NULL, state)
      if rng.random() < sigmoid(-0.5 + state.ischemia):
        draw(('cardiac',), time, NULL, state)
    time = admission.admittime - rng.uniform(1, 10) * HOUR  # emergency department
    hadm_id = NULL if rng.random() < 0.35 else admission.hadm_id
    draw(('chemistry', 'count'), time, hadm_id, state)
    if rng.random() < sigmoid(0.3 + 0.8 * state.ischemia + 0.4 * state.failure):
      draw(('cardiac',), time + rng.uniform(-30, 30) * 60, hadm_id, state)
    _ward(rng, draw, admission)
    for stay in admission.stays:
      _intensive(rng, draw, admission, stay, density)
  if patient.death_time is not None and rng.random() < 0.05:
    # results that come after death: real tables have them
    last = patient.admissions[-1]
    draw(('count',), patient.death_time + 5 * HOUR, last.hadm_id, last.state)
  return draws


def _ward(rng: np.random.Generator, draw, admission: Admission) -> None:
  days = min((admission.dischtime - admission.admittime) / DAY, 60)
  for day in range(int(days)):
    if rng.random() < 0.6:
      time = admission.admittime + day * DAY + rng.uniform(4, 9) * HOUR
      draw(('chemistry', 'count'), time, admission.hadm_id, admission.state)
  if rng.random() < 0.25:
    time = admission.admittime + rng.uniform(0, 12) * HOUR
    draw(('urine', 'rare'), time, admission.hadm_id, admission.state)


def _intensive(
  rng: np.random.Generator, draw, admission: Admission, stay: Stay, density: float
) -> None:
  state, hadm_id = admission.state, admission.hadm_id
  worry = state.severity

  def series(panels, hours, end=stay.outtime):
    time = stay.intime + rng.uniform(0.2, 2) * HOUR
    while time < end:
      draw(panels, time, hadm_id, state, stay)
      time += hours / density * rng.uniform(0.6, 1.4) * HOUR

  series(('chemistry', 'count'), float(np.clip(9 * np.exp(-0.3 * worry), 4, 14)))
  if rng.random() < sigmoid(-0.2 + 1.2 * worry):
    series(('lactate',), 4, min(stay.outtime, stay.intime + 36 * HOUR))
  if rng.random() < sigmoid(0.8 * worry):
    series(('gas',), 6, min(stay.outtime, stay.intime + 3 * DAY))
  if rng.random() < sigmoid(0.3 + 0.5 * worry):
    series(('liver',), 22)
  if rng.random() < 0.75:
    series(('coagulation',), 16)
  if rng.random() < 0.35:
    series(('differential',), 24)
  if rng.random() < sigmoid(-0.6 + 0.9 * state.ischemia):
    series(('cardiac',), 8, min(stay.outtime, stay.intime + 30 * HOUR))
  if rng.random() < 0.3:
    draw(('urine', 'rare'), stay.intime + rng.uniform(0, 20) * HOUR, hadm_id, state, stay)


def _base(rng: np.random.Generator, draws: list[_Draw], width: int) -> Rows:
  """The columns that every result of a sample shares, repeated `width` times."""
  size = len(draws)
  index = dictionary.text_index()
  charttime = np.array([draw.time for draw in draws]) // 60 * 60
  providers = np.where(
    rng.random(size) < 0.3,
    rng.integers(index['P00XYZ'], index['P19XYZ'] + 1, size),
    -1,
  )
  priority = np.where(rng.random(size) < 0.5, index['STAT'], index['ROUTINE'])
  return {
    'hadm_id': np.repeat([draw.hadm_id for draw in draws], width),
    'order_provider_id': np.repeat(providers, width),
    'charttime': np.repeat(charttime, width),
    'storetime': np.repeat(
      charttime + (rng.lognormal(np.log(55), 0.5, size) * 60).astype(np.int64), width
    ),
    'priority': np.repeat(priority, width),
  }


def _numeric_rows(
  rng: np.random.Generator,
  draws: list[_Draw],
  columns: np.ndarray,
  offset: np.ndarray,
) -> tuple[Rows, ChartCopies]:
  items, index = dictionary.numeric_items(), dictionary.text_index()
  itemid = items.itemid[columns]
  shape = (len(draws), len(columns))
  state = np.array([draw.state[:4] for draw in draws])
  move = state @ items.effects[columns].T + offset
  move = move + rng.normal(size=shape) * items.spread[columns] * NOISE
  signs = np.array([draw.stay.potassium if draw.stay else 0 for draw in draws])
  move = move + POTASSIUM_SHIFT * signs[:, None] * np.isin(itemid, (50971, 50822))
  if 50813 in itemid:  # lactate is measured in ICU stays only
    drift = [float(drift_at(d.stay, np.array(d.time))) if d.stay else 0.0 for d in draws]
    move = move + LACTATE_DRIFT * np.array(drift)[:, None] * (itemid == 50813)
  center = items.center[columns]
  value = np.where(items.is_log[columns], center * np.exp(move), center + move)
  base_excess = itemid == 50802
  value = np.where(base_excess, value, np.maximum(value, 10.0 ** -items.decimals[columns]))
  for column, decimals in enumerate(items.decimals[columns]):
    value[:, column] = np.round(value[:, column], decimals)
  # not every item of a panel is measured every time
  measured = rng.random(shape) < np.where(items.panel[columns] == 'rare', 0.2, 0.95)
  keep = np.flatnonzero(measured.ravel())

  flat = value.ravel()
  ids = np.tile(itemid, len(draws))
  low, high = (
    np.tile(items.low[columns], len(draws)),
    np.tile(items.high[columns], len(draws)),
  )
  units = np.array([index[items.unit[column]] for column in columns])
  rows = {
    **_base(rng, draws, len(columns)),
    'itemid': ids,
    'value': np.full(flat.shape, -1),
    'valuenum': flat.copy(),
    'valueuom': np.tile(units, len(draws)),
    'ref_range_lower': low,
    'ref_range_upper': high,
    'flag': np.where((flat < low) | (flat > high), index['abnormal'], -1),
    'comments': np.full(flat.shape, -1),
  }
  rows = {name: column[keep] for name, column in rows.items()}
  _word(rng, rows)
  copies = _chart_copies(
    rng, rows, draws, np.repeat(items.chart[columns][None], len(draws), 0), keep
  )
  if 50912 in itemid:
    rows = _add_egfr(rng, rows)
  return rows, copies


def _word(rng: np.random.Generator, rows: Rows) -> None:
  """Turns results outside the measuring range into texts; moves some to valuenum only."""
  index = dictionary.text_index()
  item, value = rows['itemid'], rows['valuenum']

  def replace(where, comment):
    rows['comments'][where] = index[comment]
    rows['value'][where] = -1
    rows['valuenum'][where] = np.nan

  troponin = item == 51003
  rows['comments'][troponin] = index[dictionary.TROPONIN_NOTE]
  rows['value'][troponin] = index[dictionary.MASKED_TEXT]
  low = troponin & (value <= 0.01)
  high = troponin & ((value > 25) | (rng.random(len(item)) < 0.004))
  replace(low, dictionary.TROPONIN_LOW)
  replace(high, dictionary.TROPONIN_HIGH)
  some = low & (rng.random(len(item)) < 0.1)
  rows['value'][some] = index[dictionary.BELOW_TEXT]
  replace((item == 50911) & (value <= 1), dictionary.CKMB_LOW)
  replace((item == 50911) & (value > 500), dictionary.CKMB_HIGH)
  glucose = (item == 50931) & (rng.random(len(item)) < 0.6)
  rows['value'][glucose] = index[dictionary.MASKED_TEXT]
  rows['comments'][glucose] = index[dictionary.GLUCOSE_NOTE]
  grams = (item == 51249) & (rng.random(len(item)) < 0.3)
  rows['valueuom'][grams] = index['g/dL']


def _chart_copies(
  rng: np.random.Generator,
  rows: Rows,
  draws: list[_Draw],
  chart: np.ndarray,
  keep: np.ndarray,
) -> ChartCopies:
  itemid = chart.ravel()[keep]
  stays = np.repeat(
    [draw.stay.stay_id if draw.stay else -1 for draw in draws], chart.shape[1]
  )[keep]
  copied = (stays >= 0) & (itemid >= 0) & ~np.isnan(rows['valuenum'])
  copied &= rng.random(len(itemid)) < 0.85
  return ChartCopies(
    stays[copied], itemid[copied], rows['charttime'][copied], rows['valuenum'][copied]
  )


def _add_egfr(rng: np.random.Generator, rows: Rows) -> Rows:
  codes = dictionary.egfr_codes()
  where = np.flatnonzero(
    (rows['itemid'] == 50912) & (rng.random(len(rows['itemid'])) < 0.4)
  )
  if not where.size:
    return rows
  step = np.clip(np.round(rows['valuenum'][where] * 10).astype(int), 1, codes.shape[1]) - 1
  extra = {name: column[where].copy() for name, column in rows.items()}
  extra['itemid'][:] = dictionary.EGFR
  extra['valuenum'][:] = np.nan
  for name in ('ref_range_lower', 'ref_range_upper'):
    extra[name][:] = np.nan
  for name in ('value', 'valueuom', 'flag'):
    extra[name][:] = -1
  extra['comments'] = codes[rng.integers(0, 2, len(where)), step]
  return {name: np.concatenate([column, extra[name]]) for name, column in rows.items()}


def _text_rows(
  rng: np.random.Generator, draws: list[_Draw], item: dictionary.TextItem
) -> Rows:
  index = dictionary.text_index()
  weights = np.array(item.weights)
  results = np.array([index[text] for text in item.results])
  drawn = rng.choice(results, size=len(draws), p=weights / weights.sum())
  empty, nan = np.full(len(draws), -1), np.full(len(draws), np.nan)
  in_value = item.place == 'value'
  return {
    **_base(rng, draws, 1),
    'itemid': np.full(len(draws), item.itemid),
    'value': drawn if in_value else empty,
    'valuenum': nan,
    'valueuom': np.full(len(draws), index[item.unit]),
    'ref_range_lower': nan,
    'ref_range_upper': nan,
    'flag': np.where(drawn == results[0], -1, index['abnormal']),
    'comments': empty if in_value else drawn,
  }


def _spoil(rng: np.random.Generator, rows: Rows) -> Rows:
  """Voided samples, hemolysis, typing errors, lost hadm_id, duplicates, bad times."""
  index = dictionary.text_index()
  size = len(rows['itemid'])
  chance = rng.random((5, size))
  numeric = ~np.isnan(rows['valuenum'])
  void = numeric & (chance[0] < 0.003)
  rows['valuenum'][void] = np.nan
  rows['value'][void] = -1
  rows['comments'][void] = index[dictionary.UNABLE]
  hemolysed = numeric & ~void & np.isin(rows['itemid'], (50861, 50878, 50954, 50971))
  hemolysed &= chance[1] < 0.008
  rows['valuenum'][hemolysed] = np.round(rows['valuenum'][hemolysed] * 1.4, 1)
  rows['comments'][hemolysed] = index[dictionary.HEMOLYSIS]
  mistyped = numeric & ~void & (chance[2] < 0.0003)
  rows['valuenum'][mistyped] *= 100
  rows['hadm_id'][chance[3] < 0.04] = NULL
  early = chance[4] < 0.001  # stored before it was drawn
  rows['storetime'][early] = rows['charttime'][early] - 600
  again = np.flatnonzero(chance[4] > 0.998)
  order = np.concatenate([np.arange(size), again])
  return {name: column[order] for name, column in rows.items()}


def _stated(rows: Rows, hospital: hospitals.Hospital) -> Rows:
  """The same results as the hospital reports them: values, ranges, units and notes."""
  if not hospital.units:
    return rows
  index, itemid = dictionary.text_index(), rows['itemid']
  numbers = {
    name: hospitals.stated(hospital, itemid, rows[name])
    for name in ('valuenum', 'ref_range_lower', 'ref_range_upper')
  }
  units = rows['valueuom'].copy()
  for item, unit in hospital.units.items():
    units[itemid == item] = index[unit.text]
  notes = rows['comments']
  notes = np.where(notes < 0, notes, dictionary.molar_codes()[notes])
  return {**rows, **numbers, 'valueuom': units, 'comments': notes}
