"""The hospitals that can be simulated, and their differences.

Hospital a is the default. Hospital b tests models of a elsewhere: it reports results in
other units, samples less often, records ECGs at another rate, and has other people and
fewer deaths. Causes and effects are the same in both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from data_pipeline.format.schema import DataError


class Unit(NamedTuple):
  """How a hospital reports an item: `value * factor`, rounded to `decimals`, in `text`."""

  text: str
  factor: float
  decimals: int


@dataclasses.dataclass(frozen=True, eq=False)
class Hospital:
  """What distinguishes a hospital.

  Attributes:
    streams: suffix of the keys of its random streams, different in every hospital.
    first_subject: running number of its first subject among those of one seed.
    units: by itemid of labevents and of chartevents; factors are on the units of
      `lab_items.csv` and `chart_items.csv`, which hold for items that are not listed. Notes
      of the laboratory with a glucose or a creatinine use the units of these two items.
    celsius: share of the ICU stays whose temperature is charted in Celsius.
    density: factor on the sampling rates of vital signs and ICU laboratories in hospital
      a.
    ecg_sampling_rate: of the recordings, in Hz; a divisor of 500.
    age: mean and standard deviation of the age at the first admission, in years.
    women: share of the patients.
    insurances: shares of Medicare, Medicaid and Other.
    races: shares of `hosp.RACES`, in that order.
    death_shift: added to the log odds of death in hospital of all patients.
    stay_shift: added to the log of the days in the ICU of all patients.
    cvd_shift: added to the logit of each cardiovascular reason of an admission.
  """

  streams: tuple[int, ...]
  first_subject: int
  units: Mapping[int, Unit]
  celsius: float
  density: float
  ecg_sampling_rate: int
  age: tuple[float, float]
  women: float
  insurances: tuple[float, ...]
  races: tuple[float, ...]
  death_shift: float
  stay_shift: float
  cvd_shift: float


# SI units instead of those of the United States: unit, factor, decimals, itemids. Rounding
# merges no two values. Troponin T, CK-MB and urine are unchanged, because their texts
# contain limits.
_SI = (
  ('mmol/L', 0.0555, 2, (50931, 50809, 220621, 226537, 225664)),  # glucose
  ('umol/L', 88.4, 0, (50912, 52024, 220615, 229761)),  # creatinine
  ('umol/L', 17.1, 1, (50885, 225690)),  # bilirubin
  ('mmol/L', 0.357, 1, (51006, 225624)),  # urea nitrogen, as urea
  ('mmol/L', 0.2495, 2, (50893, 225625)),  # calcium
  ('mmol/L', 0.4114, 2, (50960, 220635)),  # magnesium
  ('mmol/L', 0.3229, 2, (50970, 225677)),  # phosphate
  ('mmol/L', 0.02586, 2, (50904, 50905, 50906, 50907)),  # cholesterol
  # mEq/L: anion gap, bicarbonate, chloride, potassium, sodium, base excess, total CO2
  ('mmol/L', 1.0, 1, (
    50868, 227073, 50882, 227443, 50902, 50806, 220602, 226536, 50971, 50822, 227442,
    227464, 50983, 50824, 220645, 226534, 50802, 224828, 223679, 225698)),
  # albumin, hemoglobin, MCHC
  ('g/L', 10.0, 0, (50862, 51222, 50811, 51249, 227456, 220228)),
  ('g/L', 0.01, 2, (51214, 227468)),  # fibrinogen
  ('L/L', 0.01, 3, (51221, 50810, 220545, 226540)),  # hematocrit
  ('10^9/L', 1.0, 1, (51265, 51301, 51300, 227457, 220546)),  # platelets, leukocytes
  ('10^12/L', 1.0, 2, (51279,)),  # erythrocytes
  # ALT, alkaline phosphatase, AST, LD, CK
  ('U/L', 1.0, 0, (
    50861, 50863, 50878, 50954, 50910, 220644, 225612, 220587, 220632, 225634)),
  ('kPa', 0.133322, 1, (220224, 220235, 226062, 226063)),  # blood gases
)  # fmt: skip

HOSPITALS: Mapping[str, Hospital] = {
  'a': Hospital(
    streams=(),
    first_subject=0,
    units={},
    celsius=0.2,
    density=1.0,
    ecg_sampling_rate=500,
    age=(64, 17),
    women=0.44,
    insurances=(0.45, 0.15, 0.4),
    races=(0.66, 0.14, 0.05, 0.04, 0.05, 0.06),
    death_shift=0.0,
    stay_shift=0.0,
    cvd_shift=0.0,
  ),
  'b': Hospital(
    # Not 0, because NumPy ignores zeros at the end of a key.
    streams=(1,),
    # Between those of hospital a of one seed and of the next, which are 100,003 apart.
    first_subject=50_000,
    units={
      itemid: Unit(text, factor, decimals)
      for text, factor, decimals, itemids in _SI
      for itemid in itemids
    },
    celsius=1.0,
    density=0.5,
    ecg_sampling_rate=250,
    age=(71, 13),
    women=0.54,
    insurances=(0.62, 0.08, 0.3),
    races=(0.4, 0.3, 0.14, 0.08, 0.05, 0.03),
    death_shift=-1.05,
    stay_shift=-0.2,
    cvd_shift=-0.6,
  ),
}


def find(name: str) -> Hospital:
  """The hospital of that name.

  Raises:
    DataError: there is none.
  """
  if name not in HOSPITALS:
    raise DataError(f'hospital={name}: choose one of {", ".join(HOSPITALS)}.')
  return HOSPITALS[name]


def unit_texts() -> tuple[str, ...]:
  """The text of every unit that some hospital uses and hospital a may not."""
  units = (unit for hospital in HOSPITALS.values() for unit in hospital.units.values())
  return tuple(dict.fromkeys(unit.text for unit in units))


def stated(hospital: Hospital, itemid: np.ndarray, value: np.ndarray) -> np.ndarray:
  """Values (n,) of items (n,) as the hospital reports them, in its own units."""
  result = value.copy()
  for item, unit in hospital.units.items():
    of_item = itemid == item
    result[of_item] = np.round(value[of_item] * unit.factor, unit.decimals)
  return result
