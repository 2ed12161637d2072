"""A hand-made hospital of a few rows: every rule of the staging on its own."""

from __future__ import annotations

import gzip

import pandas as pd
import pytest

from data_pipeline.schema import DataError
from data_pipeline.sources import Resources
from data_pipeline.sources.mimic_iv import Settings, stage
from data_pipeline.sources.mimic_iv.items import items

EVENTS = 'subject_id,hadm_id,charttime,storetime,itemid,value,valuenum,valueuom'
HEADERS = {
  'hosp/patients': 'subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod',
  'hosp/admissions': 'subject_id,hadm_id,admittime,dischtime,admission_type,'
  'admission_location,insurance,race,hospital_expire_flag',
  'icu/icustays': 'subject_id,hadm_id,stay_id,first_careunit,intime,outtime',
  'hosp/labevents': EVENTS + ',comments',
  'icu/chartevents': EVENTS,
  'hosp/omr': 'subject_id,chartdate,seq_num,result_name,result_value',
  'hosp/diagnoses_icd': 'subject_id,hadm_id,seq_num,icd_code,icd_version',
  'hosp/procedures_icd': 'subject_id,hadm_id,seq_num,chartdate,icd_code,icd_version',
  'hosp/prescriptions': 'subject_id,hadm_id,starttime,drug',
  'ecg/record_list': 'subject_id,study_id,file_name,ecg_time,path',
  'ecg/machine_measurements': 'subject_id,study_id,'
  + ''.join(f'report_{index},' for index in range(18))
  + 'rr_interval,p_onset,p_end,qrs_onset,qrs_end,t_end,p_axis,qrs_axis,t_axis',
}
# One stay of 48 h from 2150-03-01 10:00; prediction at 2150-03-02 10:00.
ROWS = {
  'hosp/patients': ['1,F,60,2148,2011 - 2013,'],
  'hosp/admissions': [
    '1,10,2149-12-01 00:00:00,2149-12-09 00:00:00,URGENT,PACU,Other,WHITE,0',
    '1,11,2150-03-01 08:00:00,2150-03-09 08:00:00,URGENT,MOON BASE,Other,WHITE,1',
  ],
  'icu/icustays': ['1,11,100,MICU,2150-03-01 10:00:00,2150-03-03 10:00:00'],
  'hosp/diagnoses_icd': ['1,11,1,I501,10', '1,11,2,I10,10', '1,10,1,25000,9'],
  'hosp/prescriptions': [
    '1,10,2149-12-01 12:00:00,Metoprolol Tartrate', '1,11,2150-03-01 12:00:00,Lisinopril',
  ],
  'ecg/record_list': [
    '1,500,500,2150-02-20 10:00:00,files/p1/s500/500',
    '1,501,501,2150-02-10 10:00:00,files/p1000/p1/s501/501',
    '1,502,502,2150-03-01 12:00:00,files/p1/s502/502',
  ],
  'ecg/machine_measurements': [
    '1,500,Sinus rhythm,Odd new line' + ',' * 16
    + ',800,40,160,200,300,29999,32767,-30,65535',
  ],
}  # fmt: skip


class Hospital:
  def __init__(self, root):
    self.root = root
    self.rows = {name: list(ROWS.get(name, ())) for name in HEADERS}
    self.headers = dict(HEADERS)

  def lab(
    self, itemid, time, value, number='', unit='', comments='', stored='', hadm_id=11
  ):
    cells = [1, hadm_id, time, stored, itemid, value, number, unit, comments]
    self.rows['hosp/labevents'].append(','.join(f'"{cell}"' for cell in cells))

  def chart(self, itemid, time, value, number='', unit='', stored=''):
    cells = [1, 11, time, stored, itemid, value, number, unit]
    self.rows['icu/chartevents'].append(','.join(f'"{cell}"' for cell in cells))

  def stage(self, task='mortality', ending='.csv', **options):
    for name, rows in self.rows.items():
      path = self.root / (name + ending)
      path.parent.mkdir(parents=True, exist_ok=True)
      opened = gzip.open if ending.endswith('gz') else open
      with opened(path, 'wt') as file:
        file.write('\n'.join([self.headers[name], *rows]) + '\n')
    return self.run(task, **options)

  def run(self, task='mortality', **options):
    memory_limit = options.pop('memory_limit', '1GB')
    if task == 'cvd':
      options['mimic_iv_ecg'] = self.root / 'ecg'
    settings = Settings(mimic_iv=self.root, **options)
    return stage(task, self.root / 'staging', settings, Resources(memory_limit))

  def read(self, name):
    return pd.read_parquet(self.root / f'staging/{name}.parquet')

  def labs(self, modality='labs'):
    names = [item.itemid for item in items(modality)]
    table = self.read('events_labs').sort_values(['time', 'item'])
    return [
      (names[row.item], round(float(row.value), 4), row.category, round(float(row.time), 4))
      for row in table.itertuples()
    ]


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
  assert len(result.schema.static_numeric) == 5 + 10 + 27
  labs = hospital.read('events_labs')
  assert [(row.sample_id, row.time) for row in labs.itertuples()] == [(500, 0.0)]
  records = hospital.read('recordings')
  times = {(row.sample_id, row.study_id): row.time for row in records.itertuples()}
  assert times == {(500, 500): 0, (501, 501): 0, (500, 501): -240}
  index = records[(records.sample_id == 500) & (records.study_id == 500)].iloc[0]
  assert index.path == str(hospital.root.resolve() / 'ecg/files/p1/s500/500')
  assert pd.isna(index.t_end) and pd.isna(index.p_axis) and pd.isna(index.t_axis)
  assert (index.rr_interval, index.qrs_axis) == (800, -30)
  assert [result.schema.ecg_terms[i] for i in index.terms] == ['Sinus rhythm']
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


@pytest.mark.parametrize('ending', ['.csv', '.csv.gz'])
def test_endings(hospital, ending):
  hospital.lab(50971, '2150-03-01 11:00:00', '4.1', 4.1, 'mEq/L')
  hospital.stage(ending=ending)
  assert len(hospital.labs()) == 1


def test_parquet_tables(hospital):
  hospital.lab(50971, '2150-03-01 11:00:00', '4.1', 4.1, 'mEq/L')
  hospital.stage()
  for path in hospital.root.glob('*/*.csv'):
    pd.read_csv(path).to_parquet(path.with_suffix('.parquet'))
    path.unlink()
  before = hospital.labs()
  hospital.run()
  assert hospital.labs() == before


def test_missing_table(hospital):
  hospital.stage()
  (hospital.root / 'hosp/labevents.csv').unlink()
  with pytest.raises(DataError, match=r'hosp/labevents: no such table'):
    hospital.run()


def test_renamed_column(hospital):
  hospital.headers['hosp/labevents'] = EVENTS.replace('itemid', 'item_id') + ',comments'
  with pytest.raises(DataError, match=r"labevents\.csv: no column 'itemid'"):
    hospital.stage()


def test_truncated_gzip(hospital):
  for hour in range(10, 24):
    for minute in range(60):
      hospital.lab(50971, f'2150-03-01 {hour}:{minute:02d}:00', '4.1', 4.1, 'mEq/L')
  hospital.stage(ending='.csv.gz')
  path = hospital.root / 'hosp/labevents.csv.gz'
  whole = path.read_bytes()
  for size in (len(whole) - 5, len(whole) // 2, 4):
    path.write_bytes(whole[:size])
    with pytest.raises(DataError, match=r'labevents\.csv\.gz: damaged or truncated gzip'):
      hospital.run()


def test_malformed_line_names_its_number_and_shows_no_row(hospital):
  hospital.lab(50971, '2150-03-01 11:00:00', '4.1', 4.1, 'mEq/L')
  hospital.rows['hosp/labevents'].append('1,secret')
  with pytest.raises(DataError, match=r'labevents\.csv, line 3') as caught:
    hospital.stage()
  assert 'secret' not in str(caught.value)


def test_empty_cohort_and_bad_options(hospital):
  hospital.rows['icu/icustays'] = ['1,11,100,MICU,2150-03-01 10:00:00,2150-03-01 12:00:00']
  with pytest.raises(DataError, match=r'empty cohort.*stay of at least 24 h'):
    hospital.stage()
  with pytest.raises(DataError, match='--mimic_iv_ecg'):
    stage('cvd', hospital.root / 'x', Settings(mimic_iv=hospital.root), Resources())
  with pytest.raises(DataError, match='no such folder'):
    Settings(mimic_iv=hospital.root / 'no')
  with pytest.raises(DataError, match='memory_limit'):
    hospital.run(memory_limit='plenty')


def test_first_stay_of_the_subject_then_its_length(hospital):
  hospital.rows['icu/icustays'] += [
    '1,10,90,MICU,2149-12-02 10:00:00,2149-12-02 20:00:00',
  ]
  with pytest.raises(DataError, match='empty cohort'):
    hospital.stage()
