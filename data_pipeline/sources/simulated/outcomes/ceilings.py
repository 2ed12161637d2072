"""The best that any model can reach on the outcomes of this folder.

Computed from the true risks, which no model knows (best_possible.py); also for death within
a day.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.special import ndtri
from sklearn.metrics import roc_auc_score

from data_pipeline.sources.common.items import read_rows
from data_pipeline.sources.simulated import hosp, labs, latent
from data_pipeline.sources.simulated.hospitals import Hospital
from data_pipeline.sources.simulated.latent import DAY, HOUR, Admission, Patient, Stay
from data_pipeline.sources.simulated.outcomes import conditions, returns, urine

_CREATININE = 50912
_AKI_PATIENTS = 4000  # the laboratory rows of more take minutes
_QUANTILES = ndtri((np.arange(400) + 0.5) / 400)  # of a standard normal
_REDRAWN = 200  # creatinine of the horizon, for its chance


def readmission(seed: int, patients: int, hospital: Hospital) -> dict[str, Any]:
  """Unplanned readmission within 30 days after admissions of at least 24 h."""
  labels, scores, renal, failure = [], [], [], []
  for patient in _patients(seed, patients, hospital):
    unplanned = [a for a in patient.admissions if not a.elective]
    unplanned += returns.returns(patient, seed)
    for admission in patient.admissions:
      if admission.died or admission.dischtime - admission.admittime < DAY:
        continue
      waits = (a.admittime - admission.dischtime for a in unplanned)
      labels.append(any(0 < wait <= 30 * DAY for wait in waits))
      scores.append(returns.log_odds(admission.state))
      renal.append(admission.state.renal)
      failure.append(admission.state.failure)
  return {
    'admissions': len(labels),
    'readmitted': float(np.mean(labels)),
    'auroc': auroc(labels, scores),
    'auroc_failure_alone': auroc(labels, failure),
    'auroc_renal_alone': auroc(labels, renal),
  }


def phenotypes(seed: int, patients: int, hospital: Hospital) -> dict[str, Any]:
  """Conditions coded for the admission of the first ICU stay, of at least 48 h."""
  listed = {
    (int(row['icd_version']), row['icd_code']): row['phenotype']
    for row in read_rows('phenotypes')
  }
  names = sorted(set(listed.values()))
  labels, risks = [], []
  for patient, admission, _ in _first_stays(seed, patients, hospital, 48):
    people = hosp.simulate_hosp(patient, seed)
    coded = set()
    for rows in (people, conditions.simulate(patient, seed, people)):
      of = rows['hosp/diagnoses_icd']
      for hadm_id, code in zip(of['hadm_id'], of['icd_code'], strict=True):
        if hadm_id == admission.hadm_id:
          coded.add(listed.get((hosp.icd_version(patient), code)))
    chances = conditions.probabilities(patient, admission, listed)
    labels.append([name in coded for name in names])
    risks.append([chances.get(name, 0.0) for name in names])
  label, risk = np.array(labels), np.array(risks)
  found = {
    name: {
      'share': float(label[:, i].mean()), 'auroc': auroc(label[:, i], risk[:, i])
    }
    for i, name in enumerate(names) if 0 < label[:, i].sum() < len(label)
  }  # fmt: skip
  return {
    'stays': len(label),
    'labels_that_occur': len(found),
    'auroc_macro': float(np.mean([each['auroc'] for each in found.values()])),
    'auroc_micro': auroc(label.ravel(), risk.ravel()),
    'labels': found,
  }


def decompensation(seed: int, patients: int, hospital: Hospital) -> dict[str, Any]:
  """Death within 24 h, every 6 h of the first ICU stay; each stay has weight 1."""
  labels, scores, weights, severity = [], [], [], []
  for patient, admission, stay in _first_stays(seed, patients, hospital, 0):
    hours = np.arange(6, (stay.outtime - stay.intime) / HOUR, 6)
    risk = _dies_within_a_day(patient, admission, stay, hours / 24, hospital)
    for hour, each in zip(hours.tolist(), risk.tolist(), strict=True):
      time = stay.intime + hour * HOUR
      died = patient.death_time is not None and 0 < patient.death_time - time <= DAY
      labels.append(died)
      scores.append(each)
      severity.append(stay.log_odds)
      weights.append(1 / len(hours))
  return {
    'samples': len(labels),
    'deaths': float(np.average(labels, weights=weights)),
    'auroc': auroc(labels, scores, weights),
    'auroc_of_the_risk_of_death_in_hospital': auroc(labels, severity, weights),
  }


def aki(seed: int, patients: int, hospital: Hospital) -> dict[str, Any]:
  """AKI by creatinine and urine output, after 24 h of the first ICU stay.

  Scatter of creatinine alone often fulfils KDIGO's criteria: its part of the risk is the
  share of redrawn results that do, given those before the prediction time and the times of
  those after it. The part of urine output is the planted one, as long as the stay lasts.
  """
  labels, risks, planted, creatinine = [], [], [], []
  excluded = unknown = 0
  for patient, admission, stay in _first_stays(
    seed, min(patients, _AKI_PATIENTS), hospital, 24
  ):
    rows, _ = labs.simulate_labs(patient, seed, 1.0)
    predicted = stay.intime + DAY
    after = predicted + 48 * HOUR
    mine = (rows['itemid'] == _CREATININE) & ~np.isnan(rows['valuenum'])
    mine &= (rows['charttime'] > predicted - 14 * DAY) & (rows['charttime'] <= after)
    time, first = np.unique(rows['charttime'][mine], return_index=True)
    value = np.asarray(rows['valuenum'][mine])[first] / _in_own_unit(hospital)
    kidneys, weight_known = _planted(patient, seed, stay)
    is_later = time > predicted
    injured = _injured(time, value[None])[0]
    early = kidneys.early is not None and weight_known
    if not (~is_later & (time > predicted - 7 * DAY)).any() or early or injured[
      ~is_later & (time > predicted - 7 * DAY)
    ].any():  # fmt: skip
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
    by_creatinine = float(_injured(time, redrawn)[:, is_later].any(axis=1).mean())
    begins = np.clip((left - urine.FIRST) / (urine.LAST - urine.FIRST), 0, 1)
    by_urine = latent.sigmoid(kidneys.log_odds) * float(begins) * weight_known
    labels.append(bool(injured[is_later].any() or oliguric))
    risks.append(1 - (1 - by_creatinine) * (1 - by_urine))
    creatinine.append(by_creatinine)
    planted.append(kidneys.log_odds)
  return {
    'stays': len(labels),
    'excluded': excluded,
    'unknown': unknown,
    'injured': float(np.mean(labels)),
    'auroc': auroc(labels, risks),
    'auroc_planted_alone': auroc(labels, planted),
    'auroc_creatinine_alone': auroc(labels, creatinine),
  }


def _planted(patient: Patient, seed: int, stay: Stay) -> tuple[urine.Kidneys, bool]:
  stays, _ = urine.streams(patient, seed)
  [(admission, rng)] = [(a, rng) for a, each, rng in stays if each is stay]
  known = any(
    each == stay.stay_id
    for each in urine.simulate(patient, seed)
    .get('icu/inputevents', {'stay_id': []})['stay_id']
  )  # fmt: skip
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
  weight = 1 / np.maximum(np.ceil(lengths * 24 / 6) - 1, 1)
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


def _first_stays(
  seed: int, count: int, hospital: Hospital, hours: int
) -> Iterator[tuple[Patient, Admission, Stay]]:
  for patient in _patients(seed, count, hospital):
    stays = [(a, stay) for a in patient.admissions for stay in a.stays]
    if stays and stays[0][1].outtime - stays[0][1].intime >= hours * HOUR:
      yield patient, *stays[0]


def auroc(label: Any, score: Any, weight: Any = None) -> float:
  """Of scores (n), as of scikit-learn."""
  return float(roc_auc_score(np.asarray(label), np.asarray(score), sample_weight=weight))
