"""Computes the best possible metrics on the simulated hospital, from the true risks.

    python -m data_pipeline.sources.simulated.best_possible --patients=20000 --seed=0

Draws patients without writing tables and prints one JSON object: the AUROC of the true
risks, and the loss when a planted effect cannot be seen. With few ECGs, the third effect
can only be seen in stays with an ECG in the first 24 hours; that metric is `observable`.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from data_pipeline.format.schema import DataError
from data_pipeline.sources.simulated import hospitals, latent
from data_pipeline.sources.simulated.outcomes import ceilings, truth

PLANTED = ('swing', 'drift', 'pairing')


def first_stays(seed: int, patients: int, hospital: str = 'a') -> dict[str, np.ndarray]:
  """Latent truth of the first ICU stay of at least 24 h of each patient that has one.

  Returns:
    Arrays (n,): `index`, `stay_id`, `swing`, `drift`, `pairing`, `potassium`, `t_wave`,
    `log_odds`, `log_days` (expected), `died`, `days`, `has_ecg`.

  Raises:
    DataError: there is no such stay, or no such hospital.
  """
  chosen = hospitals.find(hospital)
  rows = []
  for patient, admission, stay in truth.first_stays(seed, patients, chosen, 24):
    age = patient.age + latent.year_of(admission.admittime) - patient.anchor_year
    terms = {'swing': stay.swing, 'drift': stay.drift}
    pairing = float(stay.potassium * patient.t_wave)
    rows.append(
      {
        'index': patient.index,
        'stay_id': stay.stay_id,
        **terms,
        'pairing': pairing,
        'potassium': stay.potassium,
        't_wave': patient.t_wave,
        'log_odds': stay.log_odds,
        'log_days': latent.linear_score(
          latent.length_of_stay(chosen),
          severity=admission.state.severity,
          age=age,
          pairing=pairing,
          **terms,
        ),
        'died': admission.died,
        'days': (stay.outtime - stay.intime) / latent.DAY,
        'has_ecg': any(
          stay.intime <= recording.time <= stay.intime + latent.DAY
          for recording in patient.recordings
        ),
      }
    )
  if not rows:
    raise DataError(f'no ICU stay of 24 hours among {patients} patients: ask for more.')
  return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def index_recordings(
  seed: int, patients: int, hospital: str = 'a'
) -> dict[str, np.ndarray]:
  """Recordings followed by an admission within 90 days: its class and its true P.

  Returns:
    `subject` (n,), `label` (n,) and `probabilities` (n, 4).
  """
  chosen = hospitals.find(hospital)
  subject, label, probabilities = [], [], []
  for index in range(patients):
    patient = latent.simulate_patient(seed, index, chosen)
    for recording in patient.recordings:
      for admission in patient.admissions:
        wait = admission.admittime - recording.time
        if admission.dischtime - admission.admittime < latent.DAY:
          continue
        if 0 < wait <= 90 * latent.DAY:
          subject.append(index)
          label.append(admission.cvd_class)
          probabilities.append(admission.cvd_probabilities)
          break
  return {
    'subject': np.array(subject),
    'label': np.array(label),
    'probabilities': np.array(probabilities).reshape(-1, 4),
  }


def best_possible(seed: int, patients: int, hospital: str = 'a') -> dict[str, Any]:
  """Ceilings of all tasks; for mortality and los with and without each planted effect."""
  stays = first_stays(seed, patients, hospital)
  died, risk, days = stays['died'], stays['log_odds'], stays['days']
  mortality: dict[str, Any] = {
    'stays': len(died),
    'deaths': float(died.mean()),
    'auroc': ceilings.auroc(died, risk),
  }
  for effect in PLANTED:
    without = risk - latent.MORTALITY[effect] * stays[effect]
    mortality[f'auroc_without_{effect}'] = ceilings.auroc(died, without)
  unseen = latent.MORTALITY['pairing'] * stays['pairing'] * ~stays['has_ecg']
  mortality['auroc_observable'] = ceilings.auroc(died, risk - unseen)
  for marginal in ('potassium', 't_wave', 'pairing'):
    mortality[f'auroc_{marginal}_alone'] = ceilings.auroc(died, stays[marginal])

  length: dict[str, Any] = {
    'mean_days': float(days.mean()),
    'sd_days': float(days.std()),
    'share_with_ecg': float(stays['has_ecg'].mean()),
    'correlation_of_logs': _correlation(days, stays['log_days']),
  }
  for effect in PLANTED:
    without = stays['log_days'] - latent.LENGTH_OF_STAY[effect] * stays[effect]
    length[f'correlation_without_{effect}'] = _correlation(days, without)

  cvd = index_recordings(seed, patients, hospital)
  shares = np.bincount(cvd['label'], minlength=4) / len(cvd['label'])
  aurocs = [
    ceilings.auroc(cvd['label'] == k, cvd['probabilities'][:, k])
    for k in range(len(shares))
  ]
  return {
    'mortality': mortality,
    'length_of_stay': length,
    'cvd': {
      'recordings': len(cvd['label']),
      'shares': dict(zip(latent.CVD_CLASSES, shares.tolist(), strict=True)),
      'auroc': dict(zip(latent.CVD_CLASSES, aurocs, strict=True)),
      'auroc_macro': float(np.mean(aurocs)),
    },
    'readmission': ceilings.readmission(seed, patients, hospitals.find(hospital)),
    'aki': ceilings.aki(seed, patients, hospitals.find(hospital)),
    'phenotypes': ceilings.phenotypes(seed, patients, hospitals.find(hospital)),
    'decompensation': ceilings.decompensation(seed, patients, hospitals.find(hospital)),
  }


def _correlation(days: np.ndarray, log_days: np.ndarray) -> float:
  return float(np.corrcoef(np.log(days), log_days)[0, 1])


def main() -> None:
  """Prints the AUROC of the true risks, with and without each planted effect, as JSON."""
  parser = argparse.ArgumentParser(
    description='The best that any model can reach on the simulated hospital.'
  )
  parser.add_argument('--patients', type=int, default=20_000)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--hospital', choices=tuple(hospitals.HOSPITALS), default='a')
  flags = parser.parse_args()
  found = best_possible(flags.seed, flags.patients, flags.hospital)
  print(json.dumps(found, indent=1))


if __name__ == '__main__':
  main()
