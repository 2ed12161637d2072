"""Discharge diagnoses of conditions that the latent state causes, for task phenotypes.

They follow the codes of `hosp.py`. None is a code of the CVD classes or of a history flag,
so that the CVD tasks are unchanged.
"""

from __future__ import annotations

from typing import NamedTuple

from data_pipeline.sources.simulated import hosp, latent
from data_pipeline.sources.simulated.latent import CVD_CLASSES, Admission, Patient


class Condition(NamedTuple):
  """A phenotype, its code and title by ICD version, and its log odds in an admission.

  The log odds are `intercept` + `slope` x `component`.
  """

  phenotype: str
  codes: dict[int, tuple[str, str]]
  intercept: float
  component: str
  slope: float


CONDITIONS = (
  Condition(
    'Septicemia (except in labor)',
    {9: ('0389', 'Unspecified septicemia'), 10: ('A419', 'Sepsis, unspecified organism')},
    -2.6, 'severity', 1.6,
  ),
  Condition(
    'Shock',
    {9: ('78552', 'Septic shock'), 10: ('R6521', 'Severe sepsis with septic shock')},
    -3.2, 'severity', 1.8,
  ),
  Condition(
    'Respiratory failure; insufficiency; arrest (adult)',
    {9: ('51881', 'Acute respiratory failure'),
     10: ('J9600', 'Acute respiratory failure, unspecified')},
    -2.4, 'severity', 1.5,
  ),
  Condition(
    'Pneumonia (except that caused by tuberculosis or sexually transmitted disease)',
    {9: ('486', 'Pneumonia, organism unspecified'),
     10: ('J189', 'Pneumonia, unspecified organism')},
    -2.4, 'severity', 1.0,
  ),
  Condition(
    'Acute and unspecified renal failure',
    {9: ('5849', 'Acute kidney failure, unspecified'),
     10: ('N179', 'Acute kidney failure, unspecified')},
    -2.2, 'renal', 1.6,
  ),
  Condition(
    'Chronic kidney disease',
    {9: ('5853', 'Chronic kidney disease, Stage III (moderate)'),
     10: ('N189', 'Chronic kidney disease, unspecified')},
    -2.4, 'renal', 1.8,
  ),
  Condition(
    'Fluid and electrolyte disorders',
    {9: ('2761', 'Hyposmolality and/or hyponatremia'),
     10: ('E871', 'Hypo-osmolality and hyponatremia')},
    -1.4, 'failure', 1.4,
  ),
  Condition(
    'Pleurisy; pneumothorax; pulmonary collapse',
    {9: ('5119', 'Unspecified pleural effusion'), 10: ('J90', 'Pleural effusion')},
    -2.6, 'failure', 1.4,
  ),
  Condition(
    'Conduction disorders',
    {9: ('4263', 'Other left bundle branch block'),
     10: ('I447', 'Left bundle-branch block, unspecified')},
    -2.8, 'failure', 1.4,
  ),
  Condition(
    'Cardiac dysrhythmias',
    {9: ('42789', 'Other specified cardiac dysrhythmias'),
     10: ('I498', 'Other specified cardiac arrhythmias')},
    -2.2, 'rhythm', 1.6,
  ),
)  # fmt: skip


def log_odds(condition: Condition, admission: Admission) -> float:
  """True log odds that this condition is coded, in addition to the codes of `hosp.py`."""
  component = getattr(admission.state, condition.component)
  return condition.intercept + condition.slope * component


def simulate(
  patient: Patient, seed: int, people: dict[str, hosp.Rows]
) -> dict[str, hosp.Rows]:
  """Rows of diagnoses_icd, following those of `people` (from `hosp.simulate_hosp`)."""
  rng = latent.generator(seed, patient.index, 'conditions', patient.hospital)
  version = hosp.icd_version(patient)
  coded = people['hosp/diagnoses_icd']
  rows: dict[str, hosp.Rows] = {'hosp/diagnoses_icd': {name: [] for name in coded}}
  for admission in patient.admissions:
    known = [
      code
      for hadm_id, code in zip(coded['hadm_id'], coded['icd_code'], strict=True)
      if hadm_id == admission.hadm_id
    ]
    for condition in CONDITIONS:
      code = condition.codes[version][0]
      if rng.random() < latent.sigmoid(log_odds(condition, admission)):
        if code in known:
          continue
        known.append(code)
        cells = (patient.subject_id, admission.hadm_id, len(known), code, version)
        for column, cell in zip(rows['hosp/diagnoses_icd'].values(), cells, strict=True):
          column.append(cell)
  return rows


def probabilities(
  patient: Patient, admission: Admission, phenotypes: dict[tuple[int, str], str]
) -> dict[str, float]:
  """True probability of each phenotype in an admission, given its components.

  Args:
    patient: whose ICD version and traits count.
    admission: one of the patient's admissions.
    phenotypes: (ICD version, code) -> phenotype; codes without a phenotype are not in it.
  """
  version = hosp.icd_version(patient)
  absent: dict[str, float] = {}

  def may_have(chances: dict[str, float]) -> None:
    """Adds one draw: code -> chance, of which at most one is taken."""
    of: dict[str, float] = {}
    for code, chance in chances.items():
      name = phenotypes.get((version, code))
      if name is not None:
        of[name] = of.get(name, 0.0) + chance
    for name, chance in of.items():
      absent[name] = absent.get(name, 1.0) * (1 - chance)

  reasons = {name: [c for c, _ in hosp.PRIMARY[name][version]] for name in CVD_CLASSES}
  of_class: dict[str, float] = dict(
    zip(CVD_CLASSES, admission.cvd_probabilities, strict=True)
  )
  may_have(
    {code: of_class[n] / len(codes) for n, codes in reasons.items() for code in codes}
  )
  # A cardiovascular disease that is not the reason; up to two further codes.
  may_have({reasons[n][-1]: of_class['non_cvd'] / 30 for n in CVD_CLASSES[1:]})
  for code in reasons['non_cvd']:
    once = 1 / len(reasons['non_cvd'])
    may_have({code: (once + 1 - (1 - once) ** 2) / 3})
  for name, chance in hosp.history_chances(patient).items():
    may_have({hosp.HISTORY[name][version][0]: 0.85 * chance})
  for condition in CONDITIONS:
    chance = latent.sigmoid(log_odds(condition, admission))
    may_have({condition.codes[version][0]: chance})
  return {name: 1 - none for name, none in absent.items()}


def icd_rows() -> hosp.Rows:
  """Rows of d_icd_diagnoses for codes that `hosp.py` does not have."""
  known = hosp.icd_rows('diagnoses')
  before = set(zip(known['icd_code'], known['icd_version'], strict=True))
  rows = [
    (code, version, title)
    for condition in CONDITIONS
    for version, (code, title) in condition.codes.items()
    if (code, version) not in before
  ]
  names = ('icd_code', 'icd_version', 'long_title')
  return {name: [row[i] for row in rows] for i, name in enumerate(names)}
