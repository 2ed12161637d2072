"""Bad and unusual raw tables: repaired, dropped and counted, or one clear error."""

from __future__ import annotations

import csv
import random

import numpy as np
import pandas as pd
import pytest

from data_pipeline.ecg import conditioning
from data_pipeline.ecg.raw_recording import RawRecording
from data_pipeline.format.schema import DataError
from data_pipeline.sources import Resources
from data_pipeline.sources.mimic_iv import Settings, stage
from tests.support import staging_fixture
from tests.support.small_hospital import EVENTS, LAYOUT_3_1, Hospital


@pytest.fixture
def hospital(tmp_path):
  return Hospital(tmp_path)


@pytest.fixture
def busy(hospital):
  """With a few rows in every table."""
  hospital.lab(50971, '2150-03-01 11:00:00', '4.1', 4.1, 'mEq/L')
  hospital.lab(50971, '2150-03-01 11:00:00', '4.3', 4.3, 'mEq/L')
  hospital.lab(51003, '2150-03-01 12:00:00', '___', '', 'ng/mL', '<0.01.')
  hospital.lab(50912, '2150-02-10 09:00:00', '1.1', 1.1, 'mg/dL')
  hospital.lab(50912, '2150-01-10 09:00:00', '1.2', 1.2, 'mg/dL')
  hospital.chart(220045, '2150-03-01 11:00:00', '80', 80, 'bpm')
  hospital.chart(220045, '2150-03-01 11:00:00', '90', 90, 'bpm')
  hospital.chart(223761, '2150-03-01 12:00:00', '98.6', 98.6, '°F')
  hospital.chart(220048, '2150-03-01 12:00:00', 'AF (Atrial Fibrillation)')
  hospital.chart(224650, '2150-03-01 12:00:00', 'PVCs')
  hospital.chart(224651, '2150-03-01 12:00:00', 'Rare')
  hospital.rows['hosp/omr'] += [
    '1,2150-01-01,1,Blood Pressure,130/80',
    '1,2150-01-01,1,Height,70',
    '1,2150-02-09,1,Weight (Lbs),200',
  ]
  hospital.rows['hosp/procedures_icd'] += ['1,10,1,2149-12-02,0210093,10']
  return hospital


def staged_tables(hospital):
  """Staged table -> its rows as text, in order; paths without the hospital's root."""
  return {
    path.stem: sorted(
      repr(row).replace(str(hospital.root), '')
      for row in pd.read_parquet(path).to_numpy().tolist()
    )
    for path in (hospital.root / 'staging').glob('*.parquet')
  }


@pytest.mark.parametrize('task', ['mortality', 'cvd'])
def test_releases_and_endings_give_the_same_tables(busy, tmp_path, task):
  static = 'extended' if task == 'cvd' else 'core'
  expected, cohort = None, None
  for layout, endings in (
    ({}, ('.csv', '.parquet')),
    (LAYOUT_3_1, ('.csv.gz', '.parquet')),
  ):
    busy.use_layout(layout)
    for ending in endings:
      busy.root = tmp_path / f'{len(layout)}{ending}'
      result = busy.stage(task, ending, static=static)
      tables = staged_tables(busy)
      if expected is None:
        expected, cohort = tables, result.cohort
        assert all(tables.values())
      assert tables == expected, (layout.keys(), ending)
      assert result.cohort == cohort
      assert result.versions['mimic-iv'] == '2.x'


def test_the_release_is_recorded(hospital, tmp_path):
  hospital.rows['hosp/patients'].append('2,M,50,2148,2020 - 2022,')
  assert hospital.stage().versions == {'mimic-iv': '3.x'}
  hospital.root = tmp_path / '3.1'
  assert hospital.stage().versions == {'mimic-iv': '3.1'}


def test_recordings_of_the_full_release_lie_one_folder_deeper(hospital):
  name = 'files/p1000/p10000032/s40689238/40689238'
  hospital.rows['ecg/record_list'] = [f'1,40689238,40689238,2150-02-20 10:00:00,{name}']
  path = hospital.root / 'ecg' / name
  path.parent.mkdir(parents=True)
  staging_fixture.write_ecg(path, np.random.default_rng(0))
  hospital.stage('cvd')
  [row] = hospital.read('recordings').to_dict('records')
  assert row['path'] == str(path)
  assert conditioning.load(RawRecording(row['path']))[0].shape == (1250, 12)


@pytest.mark.parametrize('path', ['/etc/passwd', 'files/../../../secret'])
def test_recordings_outside_the_folder_are_refused(hospital, path):
  hospital.rows['ecg/record_list'] = [f'1,500,500,2150-02-20 10:00:00,{path}']
  with pytest.raises(DataError, match='record_list: 1 paths lead out'):
    hospital.stage('cvd')


@pytest.mark.parametrize('task', ['mortality', 'cvd'])
def test_duplicate_rows_change_nothing_and_are_counted(busy, task):
  static = 'extended' if task == 'cvd' else 'core'
  busy.stage(task, static=static)
  expected = staged_tables(busy)
  for rows in busy.rows.values():
    rows += rows
  counts = busy.stage(task, static=static).cohort['rows']
  assert staged_tables(busy) == expected
  found = {
    table: reasons['dropped: duplicate']
    for table, reasons in counts.items() if 'dropped: duplicate' in reasons
  }  # fmt: skip
  assert found == {
    'mortality': {
      'patients': 1, 'admissions': 2, 'icustays': 1, 'labs': 3, 'vitals': 3,
      'vitals_categorical': 2,
    },
    'cvd': {
      'patients': 1, 'admissions': 2, 'diagnoses_icd': 3, 'procedures_icd': 1,
      'record_list': 3, 'machine_measurements': 1, 'labs': 2, 'omr': 4,
    },
  }[task]  # fmt: skip


@pytest.mark.parametrize('task', ['mortality', 'cvd'])
def test_the_order_of_rows_and_missing_hadm_ids_change_nothing(busy, task):
  expected_cohort = busy.stage(task).cohort
  expected = staged_tables(busy)
  shuffle = random.Random(0).shuffle
  for name, rows in busy.rows.items():
    if EVENTS in busy.headers[name]:
      rows[:] = [row.replace('"1","11"', '"1",""', 1) for row in rows]
    shuffle(rows)
  result = busy.stage(task)
  assert staged_tables(busy) == expected
  assert result.cohort == expected_cohort


# The stay begins at 2150-03-01 10:00, so the prediction is at 2150-03-02 10:00. One subject
# each: a cell that is another, and the step that leaves it out.
ENDS = [
  ('hosp/admissions', 'deathtime', '2150-03-02 10:00:00', 'alive after 24 h'),
  ('hosp/admissions', 'deathtime', '2150-02-28 10:00:00', 'alive after 24 h'),
  ('hosp/admissions', 'deathtime', '2150-03-02 10:00:01', None),
  ('hosp/patients', 'dod', '2150-03-01', 'alive after 24 h'),
  ('hosp/patients', 'dod', '2150-03-02', None),
  ('hosp/admissions', 'dischtime', '2150-03-02 10:00:00', 'in hospital after 24 h'),
  ('hosp/admissions', 'dischtime', '2150-03-02 10:00:01', None),
  ('hosp/admissions', 'dischtime', '', None),
  ('hosp/admissions', 'hospital_expire_flag', '7', 'subject, admission and label known'),
  ('hosp/admissions', 'hospital_expire_flag', '', 'subject, admission and label known'),
  ('hosp/admissions', 'subject_id', '99', 'subject, admission and label known'),
  ('icu/icustays', 'hadm_id', '', 'subject, admission and label known'),
  ('icu/icustays', 'outtime', '2150-03-02 09:59:59', 'stay of at least 24 h'),
  ('icu/icustays', 'outtime', '', 'stay of at least 24 h'),
  ('icu/icustays', 'outtime', '2150-02-01 10:00:00', 'stay of at least 24 h'),
]


def test_nobody_is_predicted_after_death_or_discharge(hospital):
  people = {
    'hosp/patients': '{0},F,60,2148,2011 - 2013,',
    'hosp/admissions': '{0},{1},2150-03-01 08:00:00,2150-03-09 08:00:00,,URGENT,PACU,Other,'
    'WHITE,1',
    'icu/icustays': '{0},{1},{0},MICU,2150-03-01 10:00:00,2150-03-03 10:00:00',
  }
  for table in people:
    hospital.rows[table] = []
  for subject, (changed, column, value, _) in enumerate(ENDS):
    for table, row in people.items():
      hospital.rows[table].append(row.format(subject, 100 + subject))
    _set(hospital, changed, column, value)
  steps = hospital.stage().cohort['steps']
  left_out = [step for *_, step in ENDS]
  assert sorted(hospital.read('samples').sample_id) == [
    subject for subject, step in enumerate(left_out) if step is None
  ]
  number = {step['step']: step['samples'] for step in steps}
  left = [len(ENDS), *number.values()]
  lost = {
    step: before - after
    for before, (step, after) in zip(left, number.items(), strict=False)
  }
  assert lost == {step: left_out.count(step) for step in number}
  assert set(number) > set(left_out) - {None}


@pytest.mark.parametrize(
  ('column', 'value', 'step'),
  [
    ('deathtime', '2150-03-02 10:00:00', 'alive after 24 h'),
    ('subject_id', '2', 'subject, admission and label known'),
  ],
)
def test_an_empty_cohort_names_the_step_that_left_nobody(hospital, column, value, step):
  _set(hospital, 'hosp/admissions', column, value)
  with pytest.raises(DataError, match=f"empty cohort.*after the step '{step}'"):
    hospital.stage()


def test_the_time_of_death_goes_before_its_date(hospital):
  _set(hospital, 'hosp/admissions', 'deathtime', '2150-03-04 10:00:00')
  _set(hospital, 'hosp/patients', 'dod', '2150-02-25')
  hospital.stage()
  assert len(hospital.read('samples')) == 1


def test_deaths_that_contradict_themselves_are_counted(hospital):
  counts = hospital.stage().cohort['rows']['admissions']
  assert counts['kept: hospital_expire_flag without deathtime'] == 1
  _set(hospital, 'hosp/admissions', 'hospital_expire_flag', '0')
  _set(hospital, 'hosp/admissions', 'deathtime', '2150-03-04 10:00:00')
  counts = hospital.stage().cohort['rows']['admissions']
  assert counts['kept: deathtime without hospital_expire_flag'] == 1
  assert set(hospital.read('samples').label) == {0}


def test_ends_before_their_begin_are_missing_and_counted(hospital):
  _set(hospital, 'hosp/admissions', 'dischtime', '2150-02-01 00:00:00')
  hospital.rows['icu/icustays'].append(
    '1,11,101,MICU,2150-04-01 10:00:00,2150-03-31 10:00:00'
  )
  counts = hospital.stage().cohort['rows']
  assert counts['admissions']['repaired: dischtime before admittime is missing'] == 1
  assert counts['icustays']['repaired: outtime before intime is missing'] == 1


def test_a_later_admission_that_ends_too_early_is_no_history(hospital):
  hospital.rows['hosp/admissions'].append(
    '1,12,2151-01-01 00:00:00,2149-01-01 00:00:00,,URGENT,PACU,Other,WHITE,0'
  )
  hospital.rows['hosp/diagnoses_icd'].append('1,12,1,I480,10')
  hospital.stage('cvd', static='extended')
  assert set(hospital.read('static')['atrial_fibrillation']) == {0}


def test_cvd_after_death(hospital):
  _set(hospital, 'hosp/patients', 'dod', '2150-02-15')
  hospital.rows['hosp/admissions'][-1:] = []
  with pytest.raises(DataError, match="'admitted for at least 24 h"):
    hospital.stage('cvd')
  _set(hospital, 'hosp/patients', 'dod', '2150-02-01')
  with pytest.raises(DataError, match="'alive at the ECG'"):
    hospital.stage('cvd')


def test_an_admission_after_death_gives_no_label(hospital):
  # As organ donors have: dead on the 25th of February, admitted in March.
  _set(hospital, 'hosp/patients', 'dod', '2150-02-25')
  with pytest.raises(DataError, match="'admitted for at least 24 h"):
    hospital.stage('cvd')


def test_an_ecg_before_birth_or_of_a_child_is_left_out(hospital):
  hospital.rows['ecg/record_list'] += [
    '1,503,503,2080-02-10 10:00:00,files/p1/s503/503',
    '1,504,504,2100-02-10 10:00:00,files/p1/s504/504',
  ]
  steps = {step['step']: step['samples'] for step in hospital.stage('cvd').cohort['steps']}
  assert steps['ECGs'] - steps['age 18 to 89'] == 2


def test_a_result_stored_before_it_was_drawn_is_known_from_its_charttime(hospital):
  hospital.lab(50971, '2150-03-02 10:30:00', '9', 9, 'mEq/L', stored='2150-03-02 09:00:00')
  hospital.lab(50971, '2150-03-02 09:30:00', '4', 4, 'mEq/L', stored='2150-03-01 09:00:00')
  for availability in ('charttime', 'storetime'):
    hospital.stage(availability=availability)
    assert [row[1] for row in hospital.labs()] == [4]


def test_rows_without_subject_or_item_are_counted(hospital):
  hospital.lab(50971, '2150-03-01 11:00:00', '4.1', 4.1, 'mEq/L')
  hospital.chart(220045, '2150-03-01 11:00:00', '80', 80, 'bpm')
  for table, itemid in (('hosp/labevents', 50971), ('icu/chartevents', 220045)):
    rows = hospital.rows[table]
    [row] = [row for row in rows if f'"{itemid}"' in row]
    # The first cell is the subject.
    rows += ['""' + row.removeprefix('"1"'), '"x"' + row.removeprefix('"1"')]
    rows += [row.replace(f'"{itemid}"', '""')]
  counts = hospital.stage().cohort['rows']
  for table in ('labevents', 'chartevents'):
    assert counts[table]['dropped: missing or malformed subject_id'] == 2, table
    assert counts[table]['dropped: missing or malformed itemid'] == 1, table
  assert [row[1] for row in hospital.labs()] == [4.1]


@pytest.mark.parametrize(
  ('task', 'table', 'column'),
  [
    ('mortality', 'hosp/patients', 'dod'),
    ('mortality', 'hosp/patients', 'anchor_age'),
    ('mortality', 'hosp/patients', 'anchor_year'),
    ('mortality', 'hosp/admissions', 'admittime'),
    ('mortality', 'hosp/admissions', 'dischtime'),
    ('mortality', 'hosp/admissions', 'deathtime'),
    ('mortality', 'hosp/admissions', 'hospital_expire_flag'),
    ('mortality', 'icu/icustays', 'intime'),
    ('mortality', 'icu/icustays', 'outtime'),
    ('cvd', 'hosp/diagnoses_icd', 'seq_num'),
    ('cvd', 'hosp/diagnoses_icd', 'icd_version'),
    ('cvd', 'ecg/record_list', 'ecg_time'),
  ],
)
def test_one_unreadable_cell_of_a_column_that_decides_is_an_error(
  busy, task, table, column
):
  _set(busy, table, column, '28.03.2150 secret')
  name = table.partition('/')[2]
  with pytest.raises(DataError, match=rf"{name}\.csv: column '{column}': 1 cells") as error:
    busy.stage(task)
  assert '99.99.9999 aaaaaa' in str(error.value) and 'secret' not in str(error.value)


@pytest.mark.parametrize(
  ('table', 'column'),
  [
    ('hosp/labevents', 'charttime'),
    ('icu/chartevents', 'storetime'),
    ('hosp/labevents', 'valuenum'),
    ('icu/chartevents', 'subject_id'),
  ],
)
def test_a_column_of_events_in_another_form_is_an_error(busy, table, column):
  header = busy.headers[table].split(',')
  for row, line in enumerate(busy.rows[table]):
    cells = next(csv.reader([line]))
    cells[header.index(column)] = '28.03.2150 10:00'
    busy.rows[table][row] = ','.join(f'"{cell}"' for cell in cells)
  name = table.partition('/')[2]
  with pytest.raises(DataError, match=rf"{name}\.csv: column '{column}'"):
    busy.stage()


def test_a_result_whose_time_of_storing_is_unreadable_is_not_known_to_be_known(hospital):
  for minute in range(3):
    hospital.lab(50971, f'2150-03-01 11:0{minute}:00', '4', 4, 'mEq/L',
                 stored='2150-03-01 12:00:00')  # fmt: skip
  hospital.lab(50971, '2150-03-01 13:00:00', '5', 5, 'mEq/L', stored='1 March')
  counts = hospital.stage(availability='storetime').cohort['rows']['labevents']
  assert [row[1] for row in hospital.labs()] == [4] * 3
  assert counts['dropped: unreadable storetime'] == counts['unreadable: storetime'] == 1
  counts = hospital.stage(availability='charttime').cohort['rows']['labevents']
  assert [row[1] for row in hospital.labs()] == [4, 4, 4, 5]
  assert counts['unreadable: storetime'] == 1


def test_a_table_without_rows_stages_nothing_and_says_so(hospital):
  hospital.chart(220045, '2150-03-01 11:00:00', '80', 80, 'bpm')
  rows = hospital.stage().cohort['rows']
  assert rows['labevents'] == {'read: wanted items of the cohort': 0}
  assert rows['chartevents']['read: wanted items of the cohort'] == 1


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


def _set(hospital, table, column, value):
  """Changes one cell of the table's last row."""
  cells = hospital.rows[table][-1].split(',')
  cells[hospital.headers[table].split(',').index(column)] = value
  hospital.rows[table][-1] = ','.join(cells)
