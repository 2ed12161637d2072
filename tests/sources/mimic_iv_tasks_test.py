"""Tasks on MIMIC-IV on hand-made tables: every rule of a label and an exclusion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_pipeline.format.schema import DataError
from data_pipeline.sources.mimic_iv import tasks
from data_pipeline.sources.mimic_iv.tasks import phenotypes
from tests.support.small_hospital import Hospital

DISCHARGED = pd.Timestamp('2150-03-09 08:00:00')
ADMITTED = pd.Timestamp('2150-03-01 08:00:00')
STAY = pd.Timestamp('2150-03-01 10:00:00')
HOURS, DAYS = (lambda n: pd.Timedelta(hours=n)), (lambda n: pd.Timedelta(days=n))


@pytest.fixture
def hospital(tmp_path):
  made = Hospital(tmp_path)
  made.headers['hosp/admissions'] += ',edregtime'
  made.rows['hosp/admissions'] = []
  made.rows['hosp/diagnoses_icd'] = []
  return made


def admit(
  hospital, hadm_id=11, start=ADMITTED, end=DISCHARGED, *, kind='EW EMER.', death='',
  flag=0, arrived='', subject=1,
):  # fmt: skip
  cells = [
    subject,
    hadm_id,
    start,
    end,
    death,
    kind,
    'PACU',
    'Other',
    'WHITE',
    flag,
    arrived,
  ]
  hospital.rows['hosp/admissions'].append(','.join(map(str, cells)))


def people(hospital, count):
  """Subjects 1 to `count` with the same admission and stay: hadm_id is 10 + subject,
  stay_id 99 + subject."""
  for table in ('hosp/patients', 'icu/icustays', 'hosp/admissions'):
    hospital.rows[table] = []
  for subject in range(1, count + 1):
    hospital.rows['hosp/patients'].append(f'{subject},F,60,2148,2011 - 2013,')
    admit(hospital, 10 + subject, subject=subject)
    cells = [subject, 10 + subject, 99 + subject, 'MICU', STAY, STAY + HOURS(48)]
    hospital.rows['icu/icustays'].append(','.join(map(str, cells)))


def set_dod(hospital, day):
  hospital.rows['hosp/patients'] = [f'1,F,60,2148,2011 - 2013,{day}']


def samples(hospital, task, **options):
  staged = hospital.stage(task, **options)
  table = hospital.read('samples').set_index('sample_id').sort_index()
  return staged, table


def counts(staged):
  return {step['step']: step['samples'] for step in staged.cohort['steps']}


# Readmission


def test_readmission_is_unplanned_and_within_30_days(hospital):
  cases = [
    (DAYS(30), 'EW EMER.', 1),
    (DAYS(30) + pd.Timedelta(seconds=1), 'EW EMER.', 0),
    (DAYS(31), 'URGENT', 0),
    (pd.Timedelta(seconds=1), 'DIRECT OBSERVATION', 1),
    (DAYS(5), 'ELECTIVE', 0),
    (DAYS(5), ' surgical same day admission ', 0),
    (DAYS(5), 'AMBULATORY OBSERVATION', 0),
    (DAYS(5), 'EU OBSERVATION', 1),
    (DAYS(5), '', 1),
  ]
  people(hospital, len(cases))
  for subject, (after, kind, _) in enumerate(cases, 1):
    start = DISCHARGED + after
    # Too short to be a sample itself.
    admit(hospital, 100 + subject, start, start + HOURS(5), kind=kind, subject=subject)
  _, found = samples(hospital, 'readmission')
  assert found.index.tolist() == [10 + n for n in range(1, len(cases) + 1)]
  assert found.label.tolist() == [label for *_, label in cases]
  assert (found.prediction_time == DISCHARGED).all()


def test_a_planned_readmission_does_not_hide_a_later_one(hospital):
  admit(hospital)
  admit(hospital, 12, DISCHARGED + DAYS(4), DISCHARGED + DAYS(6), kind='ELECTIVE')
  admit(hospital, 13, DISCHARGED + DAYS(20), DISCHARGED + DAYS(30))
  _, found = samples(hospital, 'readmission')
  assert found.label.to_dict() == {11: 1, 12: 1, 13: 0}


def test_who_is_no_sample_of_readmission(hospital):
  admit(hospital)
  admit(
    hospital, 12, DISCHARGED + DAYS(2), DISCHARGED + DAYS(2) + HOURS(24), kind='ELECTIVE'
  )
  admit(
    hospital, 13, DISCHARGED + DAYS(5), DISCHARGED + DAYS(5) + HOURS(23), kind='ELECTIVE'
  )
  admit(hospital, 14, DISCHARGED + DAYS(7), '', kind='ELECTIVE')
  # A transfer: the other admission begins before this one ends.
  admit(hospital, 15, DISCHARGED + DAYS(9), DISCHARGED + DAYS(12), kind='ELECTIVE')
  admit(hospital, 16, DISCHARGED + DAYS(12), DISCHARGED + DAYS(15), kind='ELECTIVE')
  end = DISCHARGED + DAYS(19)
  admit(hospital, 17, DISCHARGED + DAYS(17), end, kind='ELECTIVE', death=end, flag=1)
  staged, found = samples(hospital, 'readmission')
  assert found.index.tolist() == [11, 12, 16] and not found.label.any()
  assert counts(staged) == {
    'admissions': 7, 'discharge time known': 6, 'discharged alive': 5,
    'admission of at least 24 h': 4, 'in no other admission at discharge': 3,
    'subject, admission and label known': 3,
  }  # fmt: skip
  _, same = samples(hospital, 'readmission', unlabelled=True)
  assert same.index.tolist() == [11, 12, 16] and same.label.isna().all()


@pytest.mark.parametrize(('day', 'died'), [('2150-04-07', 1), ('2150-04-08', 0), ('', 0)])
def test_who_dies_without_a_readmission_is_a_negative_and_counted(hospital, day, died):
  """Dead from the day after the date: day 30 is 2150-04-08 08:00."""
  set_dod(hospital, day)
  admit(hospital)
  staged, found = samples(hospital, 'readmission')
  assert found.label.to_dict() == {11: 0}
  reason = 'kept: died within 30 days, not readmitted'
  assert staged.cohort['rows']['admissions'].get(reason, 0) == died


def test_an_admission_after_death_is_no_readmission(hospital):
  set_dod(hospital, '2150-03-12')
  admit(hospital)
  admit(hospital, 12, DISCHARGED + DAYS(6), DISCHARGED + DAYS(7))
  staged, found = samples(hospital, 'readmission')
  assert found.label.to_dict() == {11: 0}
  assert counts(staged)['discharged alive'] == 1


@pytest.mark.parametrize(
  ('arrived', 'times'), [(STAY - HOURS(6), [-194, 0]), ('', [0]), (DISCHARGED, [0])]
)
def test_the_window_of_readmission_is_the_stay_from_the_arrival_on(
  hospital, arrived, times
):
  admit(hospital, arrived=arrived)
  for time in (STAY - HOURS(7), STAY - HOURS(4), DISCHARGED, DISCHARGED + HOURS(1)):
    hospital.lab(50971, time, '4.1', 4.1, 'mEq/L')
  staged, _ = samples(hospital, 'readmission')
  assert [round(row[3]) for row in hospital.labs()] == times
  schema = staged.schema
  assert schema.observation_hours is None and 'vitals' not in schema.modalities
  assert not (Path(hospital.root) / 'staging/grid_vitals.parquet').exists()


# AKI: prediction at 2150-03-02 10:00.


PREDICTED = STAY + HOURS(24)


def creatinine(hospital, hours, value, unit='mg/dL', subject=1):
  cells = [subject, '', PREDICTED + HOURS(hours), '', 50912, value, value, unit, '']
  hospital.rows['hosp/labevents'].append(','.join(map(str, cells)))


def test_aki_by_creatinine(hospital):
  cases = [
    ({-1: 0.9, 1: 1.2}, 1),  # 0.3, though 1.2 - 0.9 < 0.3 in binary
    ({-1: 0.9, 1: 1.19}, 0),
    ({-1: 2.0, 47: 2.3}, 1),  # 48 h apart
    ({-1: 2.0, 47.1: 2.3}, 0),  # more
    ({-1: 2.0, 10: 2.2, 48: 2.5}, 1),  # the rise begins after the prediction
    ({-1: 2.0, 10: 2.2, 48.1: 2.9}, 0),  # beyond the horizon
    ({-1: 0.5, 1: 0.75}, 1),  # exactly 1.5 times
    ({-1: 0.5, 1: 0.74}, 0),
    ({-140: 0.4, -1: 0.58, 28: 0.6}, 1),  # 7 days before, to the hour
    ({-140: 0.4, -1: 0.58, 29: 0.6}, 0),
    ({-1: 1.0, 1: 0.6, 40: 0.9}, 1),  # from a trough
    ({-1: 1.0}, None),
    ({-1: 1.0, 49: 4.0}, None),
    ({-250: 1.0, -240: 2.0, -169: 2.0, -1: 2.0, 1: 2.0}, 0),  # AKI 7 days and an hour ago
    # No samples: AKI by then, or nothing that could rise.
    ({-2: 1.0, 0: 1.3, 1: 1.3}, 'none'),
    ({-200: 1.0, -168: 1.6, 1: 1.0}, 'none'),
    ({-168.1: 1.0, 1: 1.0}, 'none'),
  ]
  people(hospital, len(cases))
  for subject, (values, _) in enumerate(cases, 1):
    for hours, value in values.items():
      creatinine(hospital, hours, value, subject=subject)
  staged, found = samples(hospital, 'aki')
  labels = {100 + n: label for n, (_, label) in enumerate(cases) if label != 'none'}
  assert found.label.astype(object).where(found.label.notna(), None).to_dict() == labels
  assert staged.cohort['rows']['labels'] == {
    'missing: no creatinine to compare in the horizon': 2
  }
  number = counts(staged)
  assert number['creatinine in the 7 days before'] == len(cases) - 1
  assert number['no AKI in the 7 days before'] == len(cases) - 3
  assert 'is unknown at' in staged.schema.condition
  assert staged.cohort['rows']['outputevents'] == {'read': 0}
  _, unlabelled = samples(hospital, 'aki', unlabelled=True)
  assert set(unlabelled.index) == set(labels)


def test_aki_reads_other_units_and_leaves_out_what_is_no_value(hospital):
  admit(hospital)
  creatinine(hospital, -1, 88.4, 'umol/L')
  creatinine(hospital, 2, 9000.0)
  creatinine(hospital, 3, 1.29)
  hospital.lab(52024, PREDICTED + HOURS(3), '5', 5.0, 'mg/dL')  # of whole blood
  _, found = samples(hospital, 'aki')
  assert found.label[100] == 0
  creatinine(hospital, 4, 115.0, 'umol/L')
  _, found = samples(hospital, 'aki')
  assert found.label[100] == 1


def test_end_stage_renal_disease_is_excluded(hospital):
  admit(hospital)
  creatinine(hospital, -1, 5.0)
  creatinine(hospital, 1, 5.1)
  hospital.rows['hosp/diagnoses_icd'] = ['1,11,9,N186  ,10']
  with pytest.raises(DataError, match='no end-stage renal disease coded'):
    hospital.stage('aki')
  # The codes of this admission are not known at the prediction time.
  _, found = samples(hospital, 'aki', unlabelled=True)
  assert found.label.isna().all() and len(found) == 1
  admit(hospital, 10, STAY - DAYS(90), STAY - DAYS(80))
  hospital.rows['hosp/diagnoses_icd'] = ['1,10,3,585.6,9']
  with pytest.raises(DataError, match='no end-stage renal disease coded'):
    hospital.stage('aki', unlabelled=True)


def urine(hospital, volumes, *, weight=80, weighed=STAY, itemid=226559, subject=1):
  hospital.headers['icu/outputevents'] = (
    'subject_id,stay_id,charttime,itemid,value,valueuom'
  )
  hospital.headers['icu/inputevents'] = 'subject_id,stay_id,starttime,patientweight'
  rows = hospital.rows.setdefault('icu/outputevents', [])
  for hours, volume in volumes.items():
    rows.append(f'{subject},100,{PREDICTED + HOURS(hours)},{itemid},{volume},mL')
  if weight is not None:
    rows = hospital.rows.setdefault('icu/inputevents', [])
    rows.append(f'{subject},100,{weighed},{weight}')


def test_aki_by_urine_output(hospital):
  seven = {1: 0, 7: 200}
  cases = [
    ({1: 500, 4: 120, 7: 119}, {}, 1),  # 239 mL of 80 kg in 6 h
    ({1: 500, 4: 120, 7: 120}, {}, 0),  # 240 mL: 0.5 mL/kg/h
    ({1: 0, 3: 100, 6.9: 100}, {}, 0),  # not yet 6 h
    ({-3: 500, 3: 200}, {}, 1),  # begins before the prediction
    ({1: 0, 13: 479}, {}, 1),  # at most 12 h between two chartings
    ({1: 0, 13.1: 0}, {}, 0),
    ({42: 500, 48: 0}, {}, 1),
    ({42: 500, 48.1: 0}, {}, 0),
    ({1: 500, 7: 9000}, {}, 0),  # an impossible volume is no charting
    ({1: 500, 7: 100, 7.5: 200, 13: 300}, {}, 1),  # judged at every charting
    (seven, {}, 1),
    (seven, {'weight': 40}, 0),
    (seven, {'weight': None}, 0),
    (seven, {'weight': 8}, 0),
    (seven, {'weighed': PREDICTED + HOURS(1)}, 0),
    ({1: 0, 7: 1000}, {'itemid': 227489}, 0),
  ]
  people(hospital, len(cases) + 1)
  for subject, (volumes, more, _) in enumerate(cases, 1):
    urine(hospital, volumes, subject=subject, **more)
  last = len(cases) + 1  # what was irrigated is no urine
  urine(hospital, {1: 0, 7: 1000}, itemid=227489, subject=last)
  urine(hospital, {7: 900}, itemid=227488, subject=last)
  for subject in range(1, last + 1):
    creatinine(hospital, -1, 1.0, subject=subject)
    creatinine(hospital, 1, 1.0, subject=subject)
  staged, found = samples(hospital, 'aki')
  assert found.label.tolist() == [*(label for *_, label in cases), 1]
  read = sum(hours <= 48 for volumes, *_ in cases for hours in volumes) + 3
  assert staged.cohort['rows']['outputevents'] == {
    'read': read,
    'dropped: outside physiologic limits': 1,
    'missing: weight in the first 24 h, urine output not judged': 3,
  }


def test_urine_output_alone_shows_aki_but_not_that_there_is_none(hospital):
  admit(hospital)
  creatinine(hospital, -1, 1.0)
  urine(hospital, {1: 500, 7: 1000})
  assert samples(hospital, 'aki')[1].label.isna().all()
  urine(hospital, {13: 20})
  assert samples(hospital, 'aki')[1].label[100] == 1
  urine(hospital, {-8: 500, -2: 20})
  with pytest.raises(DataError, match='no AKI in the 7 days before'):
    hospital.stage('aki')


# Phenotypes


def test_phenotypes_are_the_codes_of_the_admission(hospital):
  names = phenotypes.names()
  assert len(names) == 25 and names == tuple(sorted(names))
  admit(hospital)
  admit(hospital, 10, STAY - DAYS(90), STAY - DAYS(80))
  hospital.rows['icu/icustays'] = [f'1,11,100,MICU,{STAY},{STAY + HOURS(48)}']
  hospital.rows['hosp/diagnoses_icd'] = [
    '1,11,1,A419 ,10',  # a trailing space
    '1,11,7,n17.9,10',
    '1,11,2,78551 ,9',  # shock, of a release with both versions
    '1,11,3,A419,9',  # no such code of ICD-9
    '1,11,4,A41,10',  # not a code by itself
    '1,10,1,I214,10',  # of another admission
  ]
  staged, found = samples(hospital, 'phenotypes')
  label = found.label[100]
  assert {names[i] for i in np.flatnonzero(label)} == {
    'Septicemia (except in labor)', 'Acute and unspecified renal failure', 'Shock'
  }  # fmt: skip
  assert len(label) == 25 and staged.schema.target.classes == names
  assert staged.schema.modalities['vitals'].steps == 480
  assert staged.schema.observation_hours == 48
  assert found.prediction_time[100] == STAY + HOURS(48)


def test_the_grid_of_two_days(hospital):
  admit(hospital)
  hospital.rows['icu/icustays'] = [f'1,11,100,MICU,{STAY},{STAY + HOURS(50)}']
  hospital.rows['hosp/diagnoses_icd'] = ['1,11,1,A419,10']
  for hours, value in {0: 60, 30: 70, 48: 80, 48.1: 90}.items():
    hospital.chart(220045, STAY + HOURS(hours), str(value), value, 'bpm')
  samples(hospital, 'phenotypes')
  found = hospital.read('grid_vitals').sort_values('step')
  assert found[['step', 'value']].to_numpy().tolist() == [[0, 60], [300, 70], [479, 80]]


def test_an_admission_without_codes_has_no_phenotypes(hospital):
  admit(hospital)
  with pytest.raises(DataError, match='admission has coded diagnoses'):
    hospital.stage('phenotypes')
  _, found = samples(hospital, 'phenotypes', unlabelled=True)
  assert len(found.label[100]) == 25 and all(pd.isna(x) for x in found.label[100])


# Decompensation: the stay lasts 48 h.


def decompensation(hospital, **options):
  staged, found = samples(hospital, 'decompensation', **options)
  assert (found.index // 10_000 == 100).all()
  return staged, found.set_axis((found.prediction_time - STAY) / HOURS(1))


def test_decompensation_is_predicted_every_6_hours_in_the_unit(hospital):
  admit(hospital)
  staged, found = decompensation(hospital)
  assert found.index.tolist() == [6, 12, 18, 24, 30, 36, 42]
  assert not found.label.any() and (found.weight == 1 / 7).all()
  assert staged.schema.modalities['vitals'].steps == 240
  assert staged.schema.observation_hours == 24


@pytest.mark.parametrize(('seconds', 'first'), [(0, 16), (1, 22)])
def test_death_exactly_24_hours_later(hospital, seconds, first):
  death = STAY + HOURS(40) + pd.Timedelta(seconds=seconds)
  admit(hospital, end=death, death=death, flag=1)
  hospital.rows['icu/icustays'] = [f'1,11,100,MICU,{STAY},{death}']
  _, found = decompensation(hospital)
  assert found.index.tolist() == [6, 12, 18, 24, 30, 36]
  assert found.label.tolist() == [0, 0, 1, 1, 1, 1]
  hospital.rows['icu/icustays'] = [f'1,11,100,MICU,{STAY + HOURS(10)},{STAY + HOURS(35)}']
  _, found = decompensation(hospital)
  assert found.index.tolist() == [16, 22, 28, 34]
  assert found.label.tolist() == [first == 16, 1, 1, 1]


def test_nobody_is_predicted_after_death_or_discharge(hospital):
  death = STAY + HOURS(18)
  admit(hospital, end=death, death=death, flag=1)  # charted as in the unit until 48 h
  staged, found = decompensation(hospital)
  assert found.index.tolist() == [6, 12] and found.weight.tolist() == [0.5, 0.5]
  assert counts(staged)['every 6 h of the stay'] == 7
  hospital.rows['hosp/admissions'] = []
  admit(hospital, end=STAY + HOURS(30))
  assert decompensation(hospital)[1].index.tolist() == [6, 12, 18, 24]


def test_death_with_a_date_alone(hospital):
  """The day is 2150-03-03, from 38 h to 62 h of the stay; it ends at 48 h in the unit."""
  admit(hospital)
  set_dod(hospital, '2150-03-03')
  staged, found = decompensation(hospital)
  assert found.label[6] == 0 and found.label[12] == 0  # its horizon ends at 36 h
  assert found.label[[18, 24, 30, 36]].isna().all()
  assert found.label[42] == 1
  reason = 'missing: the time of death is not known'
  assert staged.cohort['rows']['labels'] == {reason: 4}


def test_decompensation_reads_24_hours(hospital):
  admit(hospital)
  for hours, value in {-20: 1, -17: 2, 5: 3, 6: 4, 18: 5}.items():
    hospital.lab(50912, STAY + HOURS(hours), str(value), value, 'mg/dL')
    hospital.chart(220045, STAY + HOURS(hours), str(40 + value), 40 + value, 'bpm')
  decompensation(hospital)
  of = hospital.read('samples').set_index('sample_id').prediction_time
  labs = hospital.read('events_labs')
  hours = lambda table: (table.sample_id.map(of) - STAY) / HOURS(1)
  at = labs[hours(labs) == 6]
  assert sorted(zip(at.time, at.value, strict=True)) == [(-23, 2), (-1, 3), (0, 4)]
  grid = hospital.read('grid_vitals')
  at = grid[hours(grid) == 6]
  assert sorted(zip(at.step, at.value, strict=True)) == [(10, 42), (230, 43), (239, 44)]
  at = labs[hours(labs) == 30]
  assert sorted(zip(at.time, at.value, strict=True)) == [(-24, 4), (-12, 5)]


def test_a_stay_that_goes_on_is_predicted_as_far_as_the_tables_reach(hospital):
  admit(hospital)
  admit(hospital, 20, STAY, STAY + HOURS(40), subject=2)
  hospital.rows['hosp/patients'].append('2,M,60,2148,2011 - 2013,')
  hospital.rows['icu/icustays'] = [
    f'1,11,100,MICU,{STAY},', f'2,20,200,MICU,{STAY},{STAY + HOURS(24)}'
  ]  # fmt: skip
  _, found = samples(hospital, 'decompensation', unlabelled=True)
  times = (found.prediction_time - STAY) / HOURS(1)
  assert times[found.subject_id == 1].tolist() == [6, 12, 18, 24]
  assert times[found.subject_id == 2].tolist() == [6, 12, 18]
  _, found = samples(hospital, 'decompensation')
  assert set(found.subject_id) == {2}


# All


@pytest.mark.parametrize('task', [task.name for task in tasks.TASKS if not task.of_ecgs])
def test_all_who_have_a_label_are_among_the_unlabelled(hospital, task):
  admit(hospital)
  hospital.rows['hosp/diagnoses_icd'] = ['1,11,1,A419,10']
  creatinine(hospital, -1, 1.0)
  creatinine(hospital, 1, 1.0)
  staged, labelled = samples(hospital, task)
  other, unlabelled = samples(hospital, task, unlabelled=True)
  assert set(labelled.index) <= set(unlabelled.index)
  assert all(np.isnan(np.array(label, float)).all() for label in unlabelled.label)
  assert not other.schema.condition
  assert staged.schema.task == task
