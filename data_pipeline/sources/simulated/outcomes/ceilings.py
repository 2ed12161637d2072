"""The best that any model can reach on the outcomes of this folder.

Computed from the true risks (truth.py), which no model knows; best_possible.py prints them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from data_pipeline.sources.simulated.hospitals import Hospital
from data_pipeline.sources.simulated.outcomes import truth

_AKI_PATIENTS = 4000  # the laboratory rows of more take minutes


def readmission(seed: int, patients: int, hospital: Hospital) -> dict[str, Any]:
  """Unplanned readmission within 30 days after admissions of at least 24 h."""
  known = truth.readmission(seed, patients, hospital)
  return {
    'admissions': len(known.label),
    'readmitted': float(known.label.mean()),
    'auroc': auroc(known.label, known.risk),
    'auroc_failure_alone': auroc(known.label, known.effects['failure']),
    'auroc_renal_alone': auroc(known.label, known.effects['renal']),
  }


def phenotypes(seed: int, patients: int, hospital: Hospital) -> dict[str, Any]:
  """Conditions coded for the admission of the first ICU stay, of at least 48 h."""
  known = truth.phenotypes(seed, patients, hospital)
  label, risk = known.label, known.risk
  found = {
    name: {
      'share': float(label[:, i].mean()), 'auroc': auroc(label[:, i], risk[:, i])
    }
    for i, name in enumerate(known.names) if 0 < label[:, i].sum() < len(label)
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
  known = truth.decompensation(seed, patients, hospital)
  _, stay, count = np.unique(known.patient, return_inverse=True, return_counts=True)
  weight = 1 / count[stay]
  return {
    'samples': len(known.label),
    'deaths': float(np.average(known.label, weights=weight)),
    'auroc': auroc(known.label, known.risk, weight),
    'auroc_of_the_risk_of_death_in_hospital': auroc(
      known.label, known.effects['death'], weight
    ),
  }


def aki(seed: int, patients: int, hospital: Hospital) -> dict[str, Any]:
  """AKI by creatinine and urine output, after 24 h of the first ICU stay."""
  found = truth.aki(seed, min(patients, _AKI_PATIENTS), hospital)
  label = found.label
  return {
    'stays': len(label),
    'excluded': found.excluded,
    'unknown': found.unknown,
    'injured': float(label.mean()),
    'auroc': auroc(label, found.risk),
    'auroc_without_decline': auroc(label, found.without_decline),
    'auroc_planted_alone': auroc(label, found.effects['oliguria']),
    'auroc_creatinine_alone': auroc(label, found.by_creatinine),
  }


def auroc(label: Any, score: Any, weight: Any = None) -> float:
  """Of scores (n), as of scikit-learn."""
  return float(roc_auc_score(np.asarray(label), np.asarray(score), sample_weight=weight))
