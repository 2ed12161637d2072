"""What is true of each sample of the tasks of this folder, which no model knows.

Drawn again from the latent state, without tables. ceilings.py says how well these risks
tell the labels; benchmarks/planted_effects.py, which of the effects a model has found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from scipy.special import expit, logit, ndtri

from data_pipeline.sources.common.items import read_rows
from data_pipeline.sources.mimic_iv.tasks import phenotypes as phenotypes_task
from data_pipeline.sources.mimic_iv.tasks.decompensation import (
  EVERY_HOURS,
  SAMPLES_PER_STAY,
)
from data_pipeline.sources.simulated import hosp, labs, latent
from data_pipeline.sources.simulated.hospitals import Hospital
from data_pipeline.sources.simulated.latent import DAY, HOUR, Admission, Patient, Stay
from data_pipeline.sources.simulated.outcomes import conditions, returns, urine

_CREATININE = 50912
_QUANTILES = ndtri((np.arange(400) + 0.5) / 400)  # of a standard normal
_REDRAWN = 200  # creatinine of the horizon, for its chance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truth:
  """The samples of a task, in the order of patients.

  Attributes:
    sample_id: (n,), as the task counts them.
    patient: (n,) index of the patient.
    label: (n,) bool; of several labels (n, l).
    risk: the true probability of each label, of the shape of `label`.
    effects: name -> (n,): what the risk follows from.
    names: of several labels.
  """

  sample_id: np.ndarray
  patient: np.ndarray
  label: np.ndarray
  risk: np.ndarray
  effects: dict[str, np.ndarray]
  names: tuple[str, ...] = ()


class _Rows:
  """Collects samples one by one."""

  def __init__(self) -> None:
    self._rows: list[tuple] = []
    self._effects: list[dict[str, float]] = []

  def add(self, sample_id: int, patient: Patient, label, risk, **effects: float) -> None:
    self._rows.append((sample_id, patient.index, label, risk))
    self._effects.append(effects)

  def truth(self, names: tuple[str, ...] = ()) -> Truth:
    sample_id, patient, label, risk = zip(*self._rows, strict=True)
    effects = {
      name: np.array([each[name] for each in self._effects]) for name in self._effects[0]
    }
    return Truth(
      sample_id=np.array(sample_id),
      patient=np.array(patient),
      label=np.array(label, bool),
      risk=np.array(risk),
      effects=effects,
      names=names,
    )


def readmission(seed: int, patients: int, hospital: Hospital) -> Truth:
  """Unplanned readmission within 30 days after admissions of at least 24 h.

  The risk is that of a planted return, whether or not there is time for one.
  """
  rows = _Rows()
  for patient in _patients(seed, patients, hospital):
    unplanned = [a for a in patient.admissions if not a.elective]
    unplanned += returns.returns(patient, seed)
    for admission in patient.admissions:
      if admission.died or admission.dischtime - admission.admittime < DAY:
        continue
      waits = (a.admittime - admission.dischtime for a in unplanned)
      state = admission.state
      rows.add(
        admission.hadm_id, patient, any(0 < wait <= 30 * DAY for wait in waits),
        latent.sigmoid(returns.log_odds(state)), failure=state.failure, renal=state.renal,
      )  # fmt: skip
  return rows.truth()


def phenotypes(seed: int, patients: int, hospital: Hospital) -> Truth:
  """Conditions coded for the admission of the first ICU stay, of at least 48 h."""
  listed = {
    (int(row['icd_version']), row['icd_code']): row['phenotype']
    for row in read_rows('phenotypes')
  }
  names = phenotypes_task.names()
  found = _Rows()
  for patient, admission, stay in first_stays(seed, patients, hospital, 48):
    people = hosp.simulate_hosp(patient, seed)
    coded = set()
    for rows in (people, conditions.simulate(patient, seed, people)):
      of = rows['hosp/diagnoses_icd']
      for hadm_id, code in zip(of['hadm_id'], of['icd_code'], strict=True):
        if hadm_id == admission.hadm_id:
          coded.add(listed.get((hosp.icd_version(patient), code)))
    chances = conditions.probabilities(patient, admission, listed)
    found.add(
      stay.stay_id, patient, [name in coded for name in names],
      [chances.get(name, 0.0) for name in names], **admission.state._asdict(),
    )  # fmt: skip
  return found.truth(names)


def decompensation(seed: int, patients: int, hospital: Hospital) -> Truth:
  """Death within 24 h, every 6 h of the first ICU stay; `death` is its log odds at all."""
  rows = _Rows()
  for patient, admission, stay in first_stays(seed, patients, hospital, 0):
    hours = np.arange(EVERY_HOURS, (stay.outtime - stay.intime) / HOUR, EVERY_HOURS)
    risk = _dies_within_a_day(patient, admission, stay, hours / 24, hospital)
    for number, (hour, each) in enumerate(zip(hours.tolist(), risk.tolist(), strict=True)):
      time = stay.intime + hour * HOUR
      died = patient.death_time is not None and 0 < patient.death_time - time <= DAY
      rows.add(
        stay.stay_id * SAMPLES_PER_STAY + number + 1, patient, died, each,
        death=stay.log_odds, severity=admission.state.severity, swing=stay.swing,
        drift=stay.drift, pairing=stay.potassium * patient.t_wave,
      )  # fmt: skip
  return rows.truth()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Injury(Truth):
  """The truth of AKI, its parts, and the stays that are not samples.

  Attributes:
    by_creatinine: (n,) probability that scatter of creatinine alone fulfils the criteria.
    without_decline: (n,) the risk for one who does not see the urine output.
    excluded: stays with AKI, or without any creatinine, before the prediction time.
    unknown: stays of which nothing is known after it.
  """

  by_creatinine: np.ndarray
  without_decline: np.ndarray
  excluded: int
  unknown: int


def aki(seed: int, patients: int, hospital: Hospital) -> Injury:
  """AKI by creatinine and urine output, after 24 h of the first ICU stay.

  Scatter of creatinine alone often fulfils KDIGO's criteria: its part of the risk is the
  share of redrawn results that do, given those before the prediction time and the times of
  those after it. The part of urine output is the planted one, as long as the stay lasts.
  """
  rows = _Rows()
  by_creatinine, unseen = [], []
  excluded = unknown = 0
  for patient, admission, stay in first_stays(seed, patients, hospital, 24):
    drawn, _ = labs.simulate_labs(patient, seed, 1.0)
    predicted = stay.intime + DAY
    after = predicted + 48 * HOUR
    mine = (drawn['itemid'] == _CREATININE) & ~np.isnan(drawn['valuenum'])
    mine &= (drawn['charttime'] > predicted - 14 * DAY) & (drawn['charttime'] <= after)
    time, first = np.unique(drawn['charttime'][mine], return_index=True)
    value = np.asarray(drawn['valuenum'][mine])[first] / _in_own_unit(hospital)
    kidneys, weight_known = _kidneys(patient, seed, stay)
    is_later = time > predicted
    injured = _injured(time, value[None])[0]
    lately = ~is_later & (time > predicted - 7 * DAY)
    early = kidneys.early is not None and weight_known
    if early or not lately.any() or injured[lately].any():
      excluded += 1
      continue
    left = min(48.0, (stay.outtime - predicted) / HOUR) - 8.0
    onset = kidneys.onset
    oliguric = weight_known and onset is not None and onset <= predicted + left * HOUR
    if not (is_later.any() or oliguric):
      unknown += 1
      continue
    level, sd = labs.usual_level(patient, seed, 1.0, _CREATININE, admission.state)
    rng = np.random.default_rng([seed, patient.index])
    redrawn = np.repeat(value[None], _REDRAWN, 0)
    fresh = level * np.exp(sd * rng.normal(size=(_REDRAWN, int(is_later.sum()))))
    redrawn[:, is_later] = np.round(np.maximum(fresh, 0.1), 1)
    fulfilled = int(_injured(time, redrawn)[:, is_later].any(axis=1).sum())
    scatter = (fulfilled + 0.5) / (_REDRAWN + 1)  # never 0 or 1: it has log odds
    begins = np.clip((left - urine.FIRST) / (urine.LAST - urine.FIRST), 0, 1) * weight_known
    slope = urine.OLIGURIA['decline']
    any_decline = kidneys.log_odds + slope * (_QUANTILES - kidneys.decline)
    oliguria = [float(expit(each).mean()) for each in (kidneys.log_odds, any_decline)]
    risk, without = (1 - (1 - scatter) * (1 - each * begins) for each in oliguria)
    rows.add(
      stay.stay_id, patient, bool(injured[is_later].any() or oliguric), risk,
      oliguria=kidneys.log_odds, scatter=float(logit(scatter)),
      renal=admission.state.renal, severity=admission.state.severity,
      decline=kidneys.decline,
    )  # fmt: skip
    by_creatinine.append(scatter)
    unseen.append(without)
  return Injury(
    **vars(rows.truth()),
    by_creatinine=np.array(by_creatinine),
    without_decline=np.array(unseen),
    excluded=excluded,
    unknown=unknown,
  )


def _kidneys(patient: Patient, seed: int, stay: Stay) -> tuple[urine.Kidneys, bool]:
  """The planted effects of a stay, and whether its weight is known: else none is judged."""
  stays, weight = urine.streams(patient, seed)
  [(admission, rng)] = [(a, rng) for a, each, rng in stays if each is stay]
  charted = urine.simulate(patient, seed).get('icu/inputevents')
  rows = zip(charted['stay_id'], charted['patientweight'], strict=True) if charted else ()
  # A slip of the decimal point is beyond the limits of a weight.
  known = any(of == stay.stay_id and shown == weight for of, shown in rows)
  return urine.kidneys(rng, admission, stay), known


def _in_own_unit(hospital: Hospital) -> float:
  unit = hospital.units.get(_CREATININE)
  return 1.0 if unit is None else unit.factor


def _injured(time: np.ndarray, value: np.ndarray) -> np.ndarray:
  """KDIGO's creatinine criteria at times (t,), of values (n, t): bool (n, t)."""
  found = np.zeros(value.shape, bool)
  for i, now in enumerate(time.tolist()):
    before = value[:, :i]
    two, week = time[:i] >= now - 48 * HOUR, time[:i] >= now - 7 * DAY
    if two.any():
      found[:, i] |= np.round(value[:, i] - before[:, two].min(axis=1), 6) >= 0.3
    if week.any():
      found[:, i] |= np.round(value[:, i] - 1.5 * before[:, week].min(axis=1), 6) >= 0
  return found


def _dies_within_a_day(
  patient: Patient, admission: Admission, stay: Stay, days: np.ndarray, hospital: Hospital
) -> np.ndarray:
  """True risk at `days` of the stay, given that it lasts until then: (n,).

  Averaged over samples as the task weights them, by 1 / samples of the stay.
  """
  mean = latent.linear_score(
    latent.length_of_stay(hospital),
    severity=admission.state.severity,
    age=patient.age + latent.year_of(admission.admittime) - patient.anchor_year,
    swing=stay.swing,
    drift=stay.drift,
    pairing=float(stay.potassium * patient.t_wave),
  )
  lengths = np.exp(mean + latent.LENGTH_OF_STAY['noise'] * _QUANTILES)
  # Each stay has weight 1, so longer possible lengths count less.
  weight = 1 / np.maximum(np.ceil(lengths * 24 / EVERY_HOURS) - 1, 1)
  later = lengths - days[:, None]
  goes_on = (weight * (later > 0)).sum(axis=1)
  # For three of four deaths the stay ends with death, for the others some days before it.
  waits = [(0.75, 0.0)] + [(0.025, 0.3 + 0.57 * (k + 0.5)) for k in range(10)]
  within = np.zeros(len(days))
  for share, wait in waits:
    within += share * (weight * ((later > 0) & (later <= 1 - wait))).sum(axis=1)
  dies = np.where(goes_on > 0, within / np.maximum(goes_on, 1e-12), 1.0)
  return latent.sigmoid(stay.log_odds) * dies


def _patients(seed: int, count: int, hospital: Hospital) -> Iterator[Patient]:
  for index in range(count):
    yield latent.simulate_patient(seed, index, hospital)


def first_stays(
  seed: int, count: int, hospital: Hospital, hours: int
) -> Iterator[tuple[Patient, Admission, Stay]]:
  """The first ICU stay of each patient, if it lasts at least so many hours."""
  for patient in _patients(seed, count, hospital):
    stays = [(a, stay) for a in patient.admissions for stay in a.stays]
    if stays and stays[0][1].outtime - stays[0][1].intime >= hours * HOUR:
      yield patient, *stays[0]
