"""Unplanned readmissions: short returns to hospital within 30 days after discharge.

They last less than 24 h and have no ICU stay, no code and no ECG. So they are not
admissions of the CVD tasks, and do not change the tasks of the paper.
"""

from __future__ import annotations

from data_pipeline.sources.simulated import hosp, latent
from data_pipeline.sources.simulated.latent import DAY, HOUR, Admission, Components, Patient

# Log odds of a return after an admission that the patient survives.
READMISSION = {'intercept': -2.0, 'failure': 1.0, 'renal': 0.8}

_MOST_ADMISSIONS = 16  # of a patient, before these


def log_odds(state: Components) -> float:
  """True log-odds of a return, if there is time for one."""
  return (
    READMISSION['intercept']
    + READMISSION['failure'] * state.failure
    + READMISSION['renal'] * state.renal
  )


def returns(patient: Patient, seed: int) -> list[Admission]:
  """The returns of a patient: between two admissions, and before death."""
  rng = latent.generator(seed, patient.index, 'returns', patient.hospital)
  found = []
  for number, admission in enumerate(patient.admissions):
    draw, wait, stay = rng.random(), rng.uniform(1, 29) * DAY, rng.uniform(4, 20) * HOUR
    if admission.died or draw >= latent.sigmoid(log_odds(admission.state)):
      continue
    start = admission.dischtime + int(wait)
    end = start + int(stay)
    ends = [a.admittime - DAY for a in patient.admissions[number + 1 :][:1]]
    if patient.death_time is not None:
      ends.append(patient.death_time)
    if any(end >= other for other in ends):
      continue
    running = (latent.MAX_PATIENTS + patient.index) * _MOST_ADMISSIONS + number
    found.append(
      Admission(
        hadm_id=latent.identifier(20_000_000, running),
        admittime=start,
        dischtime=end,
        state=admission.state,
        cvd_class=0,
        cvd_probabilities=admission.cvd_probabilities,
        elective=False,
        died=False,
        stays=(),
      )
    )
  return found


def simulate(
  patient: Patient, seed: int, people: dict[str, hosp.Rows]
) -> dict[str, hosp.Rows]:
  """Rows of admissions, services and transfers; `people` is from `hosp.simulate_hosp`."""
  rng = latent.generator(seed, patient.index, 'return rows', patient.hospital)
  person = {
    name: people['hosp/admissions'][name][0]
    for name in ('insurance', 'language', 'marital_status', 'race')
  }
  return hosp.admission_rows(rng, patient, returns(patient, seed), person)
