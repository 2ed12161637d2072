"""A hand-made hospital of a few rows: every rule of the staging on its own."""

from __future__ import annotations

import pandas as pd
import pytest

from data_pipeline.format.schema import DataError
from data_pipeline.sources.common.items import items
from tests.support.small_hospital import Hospital


@pytest.fixture
def hospital(tmp_path):
  return Hospital(tmp_path)


def test_window_of_labs_and_reasons(hospital):
  hospital.lab(50971, '2150-03-01 10:00:00', '4.1', 4.1, 'mEq/L')
  hospital.lab(50971, '2150-03-02 10:00:00', '4.2', 4.2, 'mEq/L', hadm_id='')
  hospital.lab(50971, '2150-03-02 10:00:01', '9.9', 9.9, 'mEq/L')
  hospital.lab(50971, '2150-03-05 10:00:00', '9.9', 9.9, 'mEq/L')
  hospital.lab(50971, '2150-03-01 09:59:59', '1.1', 1.1, 'mEq/L')
  hospital.lab(50971, '', '1.1', 1.1, 'mEq/L')
  hospital.lab(50971, 'yesterday', '1.1', 1.1, 'mEq/L')
  hospital.lab(50971, '2150-03-01 10:00:00', '4.1', 4.1, 'mEq/L')
  hospital.chart(227442, '2150-03-01 10:00:00', '4.1', 4.1, 'mEq/L')
  counts = hospital.stage().cohort['rows']
  # The value of 4.2 has no admission: joined by subject and time.
  assert [row[1::2] for row in hospital.labs()] == [(4.1, -24.0), (4.2, 0.0)]
  assert counts['labevents'] == {
    'read: wanted items of the cohort': 8,
    'dropped: after the prediction time': 2,
    'dropped: before the stay': 1,
    'dropped: missing or malformed charttime': 2,
    'unreadable: charttime': 1,
  }
  assert counts['labs'] == {'dropped: duplicate': 2, 'written to labs': 2}


def test_values_units_limits_and_texts(hospital):
  when = '2150-03-01 12:00:00'
  hospital.lab(50931, when, '5.5', 5.5, 'mmol/L')
  hospital.lab(50971, when, '4', 4, 'furlong')
  hospital.lab(50983, when, '999', 999, 'mEq/L')
  hospital.lab(51003, when, '___', '', 'ng/mL', '<0.01.  CTROPNT > 0.10 NG/ML SUGGESTS')
  hospital.lab(50960, when, '2', 2, 'mg/dL', 'HEMOLYSIS FALSELY ELEVATES Mg.')
  hospital.lab(51487, when, '', '', '', 'POS*.')
  hospital.lab(51478, when, '', 100, 'mg/dL')
  hospital.lab(51487, '2150-03-01 13:00:00', 'PURPLE')
  hospital.lab(50912, when, 'see below')
  counts = hospital.stage().cohort['rows']['labevents']
  found = {name: (value, category) for name, value, category, _ in hospital.labs()}
  assert found['50931'] == (pytest.approx(5.5 * 18.016, abs=1e-3), -1)
  assert found['51003'] == (0.009, -1)
  assert found['51487'][1] == 1
  assert found['51478'][1] == 1  # 100 mg/dL is TR
  assert len(found) == 4
  assert {reason: n for reason, n in counts.items() if not reason.startswith('read')} == {
    'dropped: unknown unit': 1,
    'dropped: outside physiologic limits': 1,
    'dropped: voided by comment': 1,
    'dropped: unlisted category': 1,
    'dropped: unreadable text': 1,
    'repaired: unit converted': 1,
  }


@pytest.mark.parametrize(
  ('availability', 'expected'), [('charttime', [1.5, 2.5, 3.5]), ('storetime', [1.5, 3.5])]
)
def test_storetime_availability(hospital, availability, expected):
  hospital.lab(50813, '2150-03-02 08:00:00', '', 1.5, '', stored='2150-03-02 09:00:00')
  hospital.lab(50813, '2150-03-02 09:00:00', '', 2.5, '', stored='2150-03-02 11:00:00')
  hospital.lab(50813, '2150-03-02 09:30:00', '', 3.5)
  hospital.chart(
    220045, '2150-03-02 09:00:00', '70', 70, 'bpm', stored='2150-03-02 10:30:00'
  )
  counts = hospital.stage(availability=availability).cohort['rows']['labevents']
  assert [row[1] for row in hospital.labs()] == expected
  kind = 'kept' if availability == 'charttime' else 'dropped'
  assert counts[f'{kind}: stored after the prediction time'] == 1
  assert len(hospital.read('grid_vitals')) == (availability == 'charttime')


def test_grid(hospital):
  hospital.chart(220045, '2150-03-01 10:00:00', '60', 60, 'bpm')
  hospital.chart(220045, '2150-03-01 10:05:59', '80', 80, 'bpm')
  hospital.chart(220045, '2150-03-01 10:06:00', '90', 90, 'bpm')
  hospital.chart(220045, '2150-03-02 10:00:00', '95', 95, 'bpm')
  hospital.chart(220045, '2150-03-02 10:00:01', '200', 200, 'bpm')
  hospital.chart(220045, '2150-03-01 11:00:00', '6262', 6262, 'bpm')
  hospital.chart(223761, '2150-03-01 10:00:00', '98.6', 98.6, '°F')
  hospital.chart(223761, '2150-03-01 11:00:00', '100.4', 100.4, '')
  hospital.chart(223835, '2150-03-01 10:00:00', '0.5', 0.5, '')
  hospital.chart(220050, '2150-03-01 10:00:00', '100', 100, 'mmHg')
  hospital.chart(220179, '2150-03-01 10:01:00', '120', 120, 'mmHg')
  counts = hospital.stage().cohort['rows']
  found = {
    (row.step, row.signal): round(float(row.value), 3)
    for row in hospital.read('grid_vitals').itertuples()
  }
  assert found == {
    (0, 0): 70, (1, 0): 90, (239, 0): 95, (0, 1): 110, (0, 4): 37, (10, 4): 38, (0, 7): 50,
  }  # fmt: skip
  assert counts['chartevents']['dropped: outside physiologic limits'] == 1
  assert counts['chartevents']['repaired: unit converted'] == 2
  assert counts['chartevents']['repaired: fraction to percent'] == 1


def test_rhythm_and_ectopy(hospital):
  when, later = '2150-03-01 11:00:00', '2150-03-01 12:00:00'
  hospital.chart(220048, when, 'AF (Atrial Fibrillation)')
  hospital.chart(220048, later, 'Disco')
  hospital.chart(224650, when, 'PVCs')
  hospital.chart(224651, when, 'Rare')
  hospital.chart(226479, when, 'PVCs')
  hospital.chart(226480, when, 'Frequent')
  hospital.chart(224650, later, 'PACs')
  hospital.chart(226479, later, 'None')
  counts = hospital.stage().cohort['rows']['vitals_categorical']
  wanted = items('vitals_categorical')
  found = {
    (wanted[row.item].name, wanted[row.item].categories[row.category], row.time)
    for row in hospital.read('events_vitals_categorical').itertuples()
  }
  assert found == {
    ('Heart Rhythm', 'AF', -23.0),
    ('Heart Rhythm', 'Other', -22.0),
    ('Ectopy PVCs', 'Frequent', -23.0),
    ('Ectopy PACs', 'Other', -22.0),
  }
  assert counts['no ectopy'] == 1
  assert counts['repaired: unlisted rhythm is Other'] == 1


def test_static_and_attributes(hospital):
  result = hospital.stage()
  [row] = hospital.read('static').to_dict('records')
  assert (row['age'], row['gender'], row['admission_type']) == (62, 'F', 'URGENT')
  assert pd.isna(row['admission_location'])
  assert result.cohort['rows']['static'] == {
    'repaired: unlisted admission_location is missing': 1
  }
  [sample] = hospital.read('samples').to_dict('records')
  assert sample['label'] == 1
  assert sample['unit'] == 'MICU'
  assert sample['prediction_time'] == pd.Timestamp('2150-03-02 10:00:00')


def test_cvd(hospital):
  hospital.rows['hosp/omr'] += [
    '1,2150-01-01,1,Blood Pressure,130/80',
    '1,2150-01-02,1,Blood Pressure,999/80',
    '1,2150-02-09,1,Weight (Lbs),200',
    '1,2150-02-20,1,Blood Pressure,90/50',
    '1,2150-02-25,1,Height (Inches),70',
  ]
  hospital.lab(50912, '2150-02-20 10:00:00', '1.5', 1.5, 'mg/dL')
  hospital.lab(50912, '2150-02-20 10:00:01', '9.5', 9.5, 'mg/dL')
  result = hospital.stage('cvd', static='extended')
  samples = hospital.read('samples').set_index('sample_id')
  # 502 lies in the admission itself, no later one follows.
  assert samples.label.to_dict() == {500: 3.0, 501: 3.0}
  static = hospital.read('static').set_index('sample_id').loc[500]
  assert (static.sbp, static.dbp) == (130, 80)  # neither the same day nor 999
  assert static.weight == pytest.approx(90.7185, abs=1e-3)
  assert pd.isna(static.height)
  assert (static.diabetes, static.HF, static.hypertension) == (1, 0, 0)
  assert (static.C07A, static.C09A) == (1, 0)
  assert len(result.schema.modalities['static'].numeric) == 5 + 10 + 27
  labs = hospital.read('events_labs')
  assert [(row.sample_id, row.time) for row in labs.itertuples()] == [(500, 0.0)]
  records = hospital.read('recordings')
  times = {(row.sample_id, row.study_id): row.time for row in records.itertuples()}
  assert times == {(500, 500): 0, (501, 501): 0, (500, 501): -240}
  index = records[(records.sample_id == 500) & (records.study_id == 500)].iloc[0]
  assert index.path == str(hospital.root.resolve() / 'ecg/files/p1/s500/500')
  assert pd.isna(index.t_end) and pd.isna(index.p_axis) and pd.isna(index.t_axis)
  assert (index.rr_interval, index.qrs_axis) == (800, -30)
  assert [result.schema.modalities['ecg'].terms[i] for i in index.terms] == ['Sinus rhythm']
  assert result.cohort['unmatched_report_lines'] == [{'line': 'Odd new line', 'count': 1}]


@pytest.mark.parametrize(
  ('diagnoses', 'procedures', 'label'),
  [
    (['1,11,1,I10,10'], [], 0.0),
    (['1,11,1,41401,9'], [], 1.0),
    (['1,11,1,I6389,10', '1,11,2,I509,10'], [], 2.0),
    (['1,11,1,I10,10', '1,11,2,I509,10'], [], None),  # not primary: unclear
    (['1,11,1,I509,10'], ['1,11,1,2150-03-02,0210093,10'], 1.0),  # operated
    (['1,11,1,428,10'], [], 0.0),  # an ICD-9 code is none of ICD-10
    ([], [], None),
  ],
)
def test_cvd_classes(hospital, diagnoses, procedures, label):
  hospital.rows['hosp/diagnoses_icd'] = diagnoses
  hospital.rows['hosp/procedures_icd'] = procedures
  if label is None:
    with pytest.raises(DataError, match='empty cohort'):
      hospital.stage('cvd')
  else:
    hospital.stage('cvd')
    assert set(hospital.read('samples').label) == {label}


def test_unmatched_report_lines_are_counted_and_the_most_frequent_listed(hospital):
  records, measured = [], []
  for study in range(4):
    records.append(f'1,{study},{study},2150-02-20 10:00:00,files/p1/s{study}/{study}')
    lines = ['Zorblax', *(f'Zorblax of type {study}-{i}' for i in range(16)), 'PVCs']
    measured.append(f'1,{study},{",".join(lines)}' + ',' * 9)
  hospital.rows['ecg/record_list'] = records
  hospital.rows['ecg/machine_measurements'] = measured
  cohort = hospital.stage('cvd').cohort
  counts = cohort['rows']['machine_measurements']
  assert counts['report lines read'] == 4 * 18
  assert counts['dropped: unmatched report lines'] == 4 * 17
  listed = cohort['unmatched_report_lines']
  assert len(listed) == 50
  assert listed[:2] == [
    {'line': 'Zorblax', 'count': 4},
    {'line': 'Zorblax of type 0-0', 'count': 1},
  ]
