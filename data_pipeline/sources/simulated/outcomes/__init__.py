"""Outcomes beyond those of the paper, with their own rows.

Each is drawn from the latent state with its own random stream, so that rows of other tables
and tasks are unchanged. docs/simulated_hospital.md describes the planted effects.
"""

from __future__ import annotations

from data_pipeline.sources.simulated.hosp import Rows
from data_pipeline.sources.simulated.latent import Patient
from data_pipeline.sources.simulated.outcomes import conditions, returns, urine


def planted() -> dict[str, object]:
  """Coefficients of the log odds, by outcome."""
  return {
    'readmission': returns.READMISSION,
    'oliguria': urine.OLIGURIA,
    'conditions': {
      each.phenotype: {'intercept': each.intercept, each.component: each.slope}
      for each in conditions.CONDITIONS
    },
  }


def simulate(patient: Patient, seed: int, people: dict[str, Rows]) -> list[dict[str, Rows]]:
  """Rows of these outcomes for one patient; `people` is from `hosp.simulate_hosp`."""
  return [
    conditions.simulate(patient, seed, people),
    returns.simulate(patient, seed, people),
    urine.simulate(patient, seed),
  ]
