"""Simulates rows of the hospital's tables: persons, admissions, transfers, codes, drugs.

Diagnosis codes are those of the classes and history flags of the CVD task. About one
admission in eight names a cardiovascular disease that was not its reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipeline.sources.simulated.latent import (
  CVD_CLASSES,
  DAY,
  HOUR,
  Admission,
  Patient,
  generator,
  sigmoid,
)
from data_pipeline.sources.simulated.tables import NULL

Rows = dict[str, list[Any]]

YEAR_GROUPS = ('2008 - 2010', '2011 - 2013', '2014 - 2016', '2017 - 2019')
ADMISSION_TYPES = (
  'EW EMER.', 'URGENT', 'OBSERVATION ADMIT', 'DIRECT EMER.', 'EU OBSERVATION',
)  # fmt: skip
LOCATIONS = (
  'EMERGENCY ROOM', 'PHYSICIAN REFERRAL', 'TRANSFER FROM HOSPITAL',
  'WALK-IN/SELF REFERRAL', 'CLINIC REFERRAL', 'PROCEDURE SITE',
)  # fmt: skip
UNITS = (
  'Medical Intensive Care Unit (MICU)', 'Surgical Intensive Care Unit (SICU)',
  'Coronary Care Unit (CCU)', 'Cardiac Vascular Intensive Care Unit (CVICU)',
  'Medical/Surgical Intensive Care Unit (MICU/SICU)', 'Trauma SICU (TSICU)',
  'Neuro Surgical Intensive Care Unit (Neuro SICU)',
)  # fmt: skip
RACES = (
  'WHITE', 'BLACK/AFRICAN AMERICAN', 'HISPANIC/LATINO - PUERTO RICAN', 'ASIAN - CHINESE',
  'OTHER', 'UNKNOWN',
)  # fmt: skip
INSURANCES = ('Medicare', 'Medicaid', 'Other')

# (code, title) by ICD version
PRIMARY: dict[str, dict[int, tuple[tuple[str, str], ...]]] = {
  'non_cvd': {
    9: (('0389', 'Unspecified septicemia'), ('486', 'Pneumonia, organism unspecified'),
        ('5849', 'Acute kidney failure, unspecified'),
        ('5789', 'Hemorrhage of gastrointestinal tract, unspecified'),
        ('51881', 'Acute respiratory failure'), ('5770', 'Acute pancreatitis')),
    10: (('A419', 'Sepsis, unspecified organism'),
         ('J189', 'Pneumonia, unspecified organism'),
         ('N179', 'Acute kidney failure, unspecified'),
         ('K922', 'Gastrointestinal hemorrhage, unspecified'),
         ('J9601', 'Acute respiratory failure with hypoxia'),
         ('K8590', 'Acute pancreatitis without necrosis or infection, unspecified')),
  },
  'chd': {
    9: (('41071', 'Subendocardial infarction, initial episode of care'),
        ('41401', 'Coronary atherosclerosis of native coronary artery'),
        ('41041', 'Acute myocardial infarction of other inferior wall, initial episode'),
        ('4111', 'Intermediate coronary syndrome')),
    10: (('I214', 'Non-ST elevation (NSTEMI) myocardial infarction'),
         ('I2510', 'Atherosclerotic heart disease of native coronary artery'),
         ('I2119', 'STEMI involving other coronary artery of inferior wall'),
         ('I25700', 'Atherosclerosis of coronary artery bypass graft(s), unstable angina')),
  },
  'stroke': {
    9: (('43491', 'Cerebral artery occlusion, unspecified with cerebral infarction'),
        ('43411', 'Cerebral embolism with cerebral infarction'),
        ('43310', 'Occlusion and stenosis of carotid artery without infarction')),
    10: (('I639', 'Cerebral infarction, unspecified'),
         ('I6340', 'Cerebral infarction due to embolism of unspecified cerebral artery'),
         ('I6529', 'Occlusion and stenosis of unspecified carotid artery')),
  },
  'hf': {
    9: (('42823', 'Acute on chronic systolic heart failure'),
        ('42833', 'Acute on chronic diastolic heart failure'),
        ('4280', 'Congestive heart failure, unspecified')),
    10: (('I5023', 'Acute on chronic systolic (congestive) heart failure'),
         ('I5033', 'Acute on chronic diastolic (congestive) heart failure'),
         ('I130', 'Hypertensive heart and chronic kidney disease with heart failure')),
  },
}  # fmt: skip
HISTORY = {
  'hyperlipidemia': {9: ('2724', 'Other and unspecified hyperlipidemia'),
                     10: ('E785', 'Hyperlipidemia, unspecified')},
  'diabetes': {9: ('25000', 'Diabetes mellitus without mention of complication, type II'),
               10: ('E119', 'Type 2 diabetes mellitus without complications')},
  'atrial_fibrillation': {9: ('42731', 'Atrial fibrillation'),
                          10: ('I4820', 'Chronic atrial fibrillation, unspecified')},
  'hypertension': {9: ('4019', 'Unspecified essential hypertension'),
                   10: ('I10', 'Essential (primary) hypertension')},
  'peripheral_artery_disease': {9: ('4439', 'Peripheral vascular disease, unspecified'),
                                10: ('I739', 'Peripheral vascular disease, unspecified')},
  'smoking': {9: ('3051', 'Tobacco use disorder'), 10: ('Z87891', 'History of nicotine')},
  'reflux': {9: ('53081', 'Esophageal reflux'),
             10: ('K219', 'Gastro-esophageal reflux disease without esophagitis')},
}  # fmt: skip
PROCEDURES = {
  'cabg': {9: ('3612', '(Aorto)coronary bypass of two coronary arteries'),
           10: ('021109W', 'Bypass coronary artery, two arteries from aorta')},
  'pci': {9: ('3606', 'Insertion of non-drug-eluting coronary artery stent(s)'),
          10: ('0270346', 'Dilation of coronary artery, one artery, drug-eluting device')},
  'other': {9: ('3893', 'Venous catheterization, not elsewhere classified'),
            10: ('02HV33Z', 'Insertion of infusion device into superior vena cava')},
}  # fmt: skip
HEART_DRUGS = {
  'failure': ('Furosemide', 'Carvedilol', 'Lisinopril', 'Spironolactone', 'Digoxin',
              'Losartan Potassium', 'HydrALAZINE'),
  'ischemia': ('Aspirin', 'Atorvastatin', 'Metoprolol Tartrate', 'Nitroglycerin SL',
               'Isosorbide Mononitrate', 'Simvastatin', 'Clopidogrel'),
  'rhythm': ('Amiodarone', 'Diltiazem', 'Warfarin', 'Metoprolol Succinate XL'),
  'pressure': ('Amlodipine', 'Hydrochlorothiazide', 'Valsartan', 'Labetalol',
               'Clonidine Patch 0.1 mg/24 hr', 'NIFEdipine (Extended Release)'),
  'severity': ('NORepinephrine', 'Phenylephrine', 'Vasopressin', 'DOBUTamine'),
}  # fmt: skip
OTHER_DRUGS = (
  'Insulin', 'Acetaminophen', 'Docusate Sodium', 'Vancomycin', 'Pantoprazole', 'Heparin',
  'Potassium Chloride', '0.9% Sodium Chloride', 'Senna', 'Ondansetron', 'Bag',
)  # fmt: skip


def icd_rows(kind: str) -> Rows:
  """Rows of d_icd_diagnoses or d_icd_procedures: every code that the hospital uses."""
  if kind == 'procedures':
    tables = [list(versions.items()) for versions in PROCEDURES.values()]
    pairs = {(code, version, title) for rows in tables for version, (code, title) in rows}
  else:
    pairs = {
      (code, version, title)
      for versions in PRIMARY.values()
      for version, codes in versions.items()
      for code, title in codes
    }
    pairs |= {
      (code, version, title)
      for versions in HISTORY.values()
      for version, (code, title) in versions.items()
    }
  rows = sorted(pairs, key=lambda row: (row[1], row[0]))
  names = ('icd_code', 'icd_version', 'long_title')
  return {name: [row[i] for row in rows] for i, name in enumerate(names)}


class _Tables:
  """Rows by table, collected column by column."""

  def __init__(self):
    self.rows: dict[str, Rows] = defaultdict(lambda: defaultdict(list))

  def add(self, table: str, **cells: Any) -> None:
    for column, cell in cells.items():
      self.rows[table][column].append(cell)


def simulate_hosp(patient: Patient, seed: int) -> dict[str, Rows]:
  """Rows of all small tables of one patient, by table name."""
  hospital = patient.hospital
  rng = generator(seed, patient.index, 'hosp', hospital)
  tables = _Tables()
  age = int(patient.age)
  tables.add(
    'hosp/patients',
    subject_id=patient.subject_id,
    gender='F' if patient.female else 'M',
    anchor_age=91 if age > 89 else age,
    anchor_year=patient.anchor_year,
    anchor_year_group=YEAR_GROUPS[patient.year_group],
    dod=NULL if patient.death_time is None else patient.death_time,
  )
  person: dict[str, str | None] = {
    'insurance': str(rng.choice(INSURANCES, p=hospital.insurances)),
    'language': 'ENGLISH' if rng.random() < 0.9 else '?',
    'marital_status': str(rng.choice(['SINGLE', 'MARRIED', 'WIDOWED', 'DIVORCED'])),
    'race': str(rng.choice(RACES, p=hospital.races)),
  }
  if rng.random() < 0.06:
    person['marital_status'] = None
  _outpatient(rng, tables, patient)
  histories = _histories(rng, patient)
  for admission in patient.admissions:
    _admission(rng, tables, patient, admission, person)
    _codes(rng, tables, patient, admission, histories)
    _prescriptions(rng, tables, patient, admission, histories)
  return tables.rows


def admission_rows(
  rng: np.random.Generator,
  patient: Patient,
  admissions: Sequence[Admission],
  person: dict[str, str | None],
) -> dict[str, Rows]:
  """Rows of further admissions of a patient: admissions, services, transfers.

  Args:
    rng: draws them.
    patient: whose admissions they are.
    admissions: the further admissions.
    person: the columns of admissions that never change for a person.
  """
  tables = _Tables()
  for admission in admissions:
    _admission(rng, tables, patient, admission, person)
  return tables.rows


def _outpatient(rng: np.random.Generator, tables: _Tables, patient: Patient) -> None:
  """Rows of omr: pressure, weight and height at visits, with gaps and absurd entries."""
  if rng.random() < 0.2:
    return
  subject, first = patient.subject_id, patient.admissions[0].admittime
  height = rng.normal(64 if patient.female else 69, 3)
  weight = rng.normal(26 + 1.5 * patient.traits.failure, 4) * height**2 / 703
  for _ in range(1 + int(rng.poisson(1.2))):
    day = first - int(rng.uniform(3, 900) * DAY)
    systolic = rng.normal(128 + 3 * patient.traits.failure, 14)
    diastolic = systolic * 0.57 + rng.normal(0, 6)
    shown_weight = weight * (100 if rng.random() < 0.005 else rng.normal(1, 0.02))
    entries = [
      ('Blood Pressure', f'{systolic:.0f}/{diastolic:.0f}', 0.95),
      ('Weight (Lbs)', f'{shown_weight:.1f}', 0.9),
      ('Height (Inches)', f'{height:.1f}', 0.5),
      ('BMI (kg/m2)', f'{703 * shown_weight / height**2:.1f}', 0.5),
    ]
    for name, value, share in entries:
      if rng.random() < share:
        tables.add('hosp/omr', subject_id=subject, chartdate=day, seq_num=1,
                   result_name=name, result_value=value)  # fmt: skip


def history_chances(patient: Patient) -> dict[str, float]:
  """Chance of each of `HISTORY`, given the traits."""
  traits = patient.traits
  return {
    'hyperlipidemia': sigmoid(-0.5 + 0.7 * traits.ischemia),
    'diabetes': 0.25,
    'atrial_fibrillation': sigmoid(-1.9 + 1.4 * traits.rhythm),
    'hypertension': sigmoid(-0.1 + 0.4 * traits.failure),
    'peripheral_artery_disease': sigmoid(-3 + 0.6 * traits.ischemia),
    'smoking': 0.2,
    'reflux': 0.25,
  }


def _histories(rng: np.random.Generator, patient: Patient) -> list[str]:
  chances = history_chances(patient)
  return [name for name, chance in chances.items() if rng.random() < chance]


def _admission(
  rng: np.random.Generator,
  tables: _Tables,
  patient: Patient,
  admission: Admission,
  person: dict[str, str | None],
) -> None:
  ids = {'subject_id': patient.subject_id, 'hadm_id': admission.hadm_id}
  start, end = admission.admittime, admission.dischtime
  emergency = not admission.elective and rng.random() < 0.8
  home = ('HOME', 'HOME HEALTH CARE', 'SKILLED NURSING FACILITY', 'REHAB', None)
  arrived = start - int(rng.uniform(2, 10) * HOUR)
  tables.add(
    'hosp/admissions',
    **ids,
    admittime=start,
    dischtime=end,
    deathtime=end if admission.died else NULL,
    admission_type=str(rng.choice(['ELECTIVE', 'SURGICAL SAME DAY ADMISSION']))
    if admission.elective
    else str(rng.choice(ADMISSION_TYPES, p=(0.6, 0.16, 0.12, 0.04, 0.08))),
    admit_provider_id=f'P{rng.integers(10, 100)}ABC',
    admission_location='EMERGENCY ROOM' if emergency else str(rng.choice(LOCATIONS[1:])),
    discharge_location='DIED' if admission.died else home[int(rng.integers(0, 5))],
    **person,
    edregtime=arrived if emergency else NULL,
    edouttime=start + int(rng.uniform(0, 3) * HOUR) if emergency else NULL,
    hospital_expire_flag=int(admission.died),
  )
  service = str(rng.choice(['MED', 'CMED', 'SURG', 'CSURG', 'NMED']))
  tables.add('hosp/services', **ids, transfertime=start + 60, prev_service=None,
             curr_service=service)  # fmt: skip
  _movements(rng, tables, patient, admission)


def _movements(
  rng: np.random.Generator, tables: _Tables, patient: Patient, admission: Admission
) -> None:
  """Rows of icustays and transfers: ward, ICU stays, ward, discharge."""
  ids = {'subject_id': patient.subject_id, 'hadm_id': admission.hadm_id}
  time, kind = admission.admittime, 'admit'

  def move(unit, until):
    nonlocal time, kind
    number = int(rng.integers(30_000_000, 40_000_000))
    tables.add('hosp/transfers', **ids, transfer_id=number, eventtype=kind,
               careunit=unit, intime=time, outtime=until)  # fmt: skip
    time, kind = until, 'transfer'

  for stay in admission.stays:
    if stay.intime > time:
      move('Medicine', stay.intime)
    unit = str(rng.choice(UNITS))
    move(unit, stay.outtime)
    tables.add(
      'icu/icustays', **ids, stay_id=stay.stay_id, first_careunit=unit, last_careunit=unit,
      intime=stay.intime, outtime=stay.outtime, los=(stay.outtime - stay.intime) / DAY,
    )  # fmt: skip
  if admission.dischtime > time:
    move('Medicine', admission.dischtime)
  kind = 'discharge'
  move(None, NULL)


def icd_version(patient: Patient) -> int:
  """ICD version of all codes of a patient."""
  return 9 if patient.year_group < 2 else 10


def _codes(
  rng: np.random.Generator,
  tables: _Tables,
  patient: Patient,
  admission: Admission,
  histories: list[str],
) -> None:
  version = icd_version(patient)
  ids = {'subject_id': patient.subject_id, 'hadm_id': admission.hadm_id}
  name = CVD_CLASSES[admission.cvd_class]
  choices = PRIMARY[name][version]
  codes = [choices[int(rng.integers(0, len(choices)))][0]]
  procedures = ['other'] if admission.stays and rng.random() < 0.5 else []
  if name == 'chd' and rng.random() < 0.4:
    procedures.append('cabg' if rng.random() < 0.3 else 'pci')
  if name == 'non_cvd' and rng.random() < 0.1:  # a cardiovascular disease, not the reason
    other = ('chd', 'stroke', 'hf')[int(rng.integers(0, 3))]
    codes.append(PRIMARY[other][version][-1][0])
  codes += [HISTORY[history][version][0] for history in histories if rng.random() < 0.85]
  extra = PRIMARY['non_cvd'][version]
  codes += [extra[int(k)][0] for k in rng.integers(0, len(extra), int(rng.integers(0, 3)))]
  for number, code in enumerate(dict.fromkeys(codes), 1):
    tables.add('hosp/diagnoses_icd', **ids, seq_num=number, icd_code=code,
               icd_version=version)  # fmt: skip
  for number, procedure in enumerate(procedures, 1):
    tables.add('hosp/procedures_icd', **ids, seq_num=number,
               chartdate=admission.admittime + int(rng.uniform(0, 2) * DAY),
               icd_code=PROCEDURES[procedure][version][0], icd_version=version)  # fmt: skip


def _prescriptions(
  rng: np.random.Generator,
  tables: _Tables,
  patient: Patient,
  admission: Admission,
  histories: list[str],
) -> None:
  state = admission.state._asdict()
  state['pressure'] = 1.0 if 'hypertension' in histories else -1.5
  drugs = [str(drug) for drug in rng.choice(OTHER_DRUGS, int(rng.integers(2, 7)), False)]
  for component, names in HEART_DRUGS.items():
    chance = sigmoid(-2.2 + 1.0 * state[component])
    drugs += [name for name in names if rng.random() < chance]
  subject = patient.subject_id
  for drug in drugs:
    number = int(rng.integers(1, 900))
    start = admission.admittime + int(rng.uniform(0, 20)) * HOUR
    tables.add(
      'hosp/prescriptions', subject_id=subject, hadm_id=admission.hadm_id,
      pharmacy_id=int(rng.integers(10_000_000, 99_000_000)), poe_id=f'{subject}-{number}',
      poe_seq=number, order_provider_id=f'P{rng.integers(10, 100)}ABC', starttime=start,
      stoptime=max(admission.dischtime // HOUR * HOUR, start + HOUR),
      drug_type='BASE' if drug == 'Bag' else 'MAIN', drug=drug, formulary_drug_cd=None,
      gsn=None, ndc='0', prod_strength=None, form_rx=None, dose_val_rx='1',
      dose_unit_rx='TAB', form_val_disp='1', form_unit_disp='TAB', doses_per_24_hrs=1,
      route='IV' if _is_intravenous(drug) else 'PO',
    )  # fmt: skip


def _is_intravenous(drug: str) -> bool:
  return drug in (*HEART_DRUGS['severity'], 'Vancomycin', '0.9% Sodium Chloride', 'Heparin')
