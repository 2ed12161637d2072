"""ECGs beside MEDS: which recordings a sample has, from every kind of table."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

from data_pipeline.ecg import rereading
from data_pipeline.ecg.conditioning import condition
from data_pipeline.ecg.report_terms import terms
from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.modalities.waveform import ECG_LEADS, ECG_MEASUREMENTS
from data_pipeline.format.schema import DataError
from data_pipeline.preparation.build import prepare
from data_pipeline.sources import Resources
from data_pipeline.sources.meds import stage
from tests.sources.meds_test import DataSet, at
from tests.support import dicom_ecg, staging_fixture

LEADS = ','.join(ECG_LEADS)


@pytest.fixture
def data(tmp_path):
  found = DataSet(tmp_path)
  found.add('LAB//crea//mg/dL', -1, 1)
  return found


def table(*rows, **columns):
  """Rows (subject, hours, path), and further columns."""
  subjects, hours, paths = zip(*rows, strict=True)
  times = [None if each is None else at(each) for each in hours]
  frame = {'subject_id': subjects, 'time': times, 'path': paths}
  return pd.DataFrame(frame | columns)


def stage_with(data, ecg, name='ecg.parquet'):
  path = data.folder / name
  ecg.to_parquet(path) if name.endswith('parquet') else ecg.to_csv(path, index=False)
  settings = dataclasses.replace(data.write(), ecg=path)
  return stage('mortality', data.folder / 'staged', settings, Resources(threads=1))


@pytest.mark.parametrize('name', ['ecg.parquet', 'ecg.csv', 'ecg.csv.gz'])
def test_recordings_of_the_window_with_what_is_reported(data, name):
  data.labels = [(1, at(0)), (1, at(30)), (2, at(0))]
  data.values = {'boolean_value': [True, False, False]}
  data.add('LAB//crea//mg/dL', -1, 1, subject=2)
  ecg = table(
    (1, -24, 'a'), (1, 0, '/x/b.hea'), (1, 0.01, 'c'), (1, -24.1, 'd'), (3, -1, 'e'),
    (1, 7, ' sub/f.dat '),
    study_id=[11, 12, 13, 14, 15, 16],
    report=['Sinus rhythm\nLeft bundle branch block', None, 'no such line\n\n', '', '', ''],
    rr_interval=[800, 29999, None, 1, 1, 1],
    p_axis=[-10.5, None, None, 1, 1, 1],
  )  # fmt: skip
  staged = stage_with(data, ecg, name)
  assert staged.schema.modalities['ecg'].terms == terms()
  assert [*staged.schema.modalities][-1] == 'ecg'
  found = data.table('recordings', 'sample_id', 'time')
  rows = zip(found.sample_id, found.study_id, found.path, found.time, strict=True)
  folder = data.folder
  assert list(rows) == [
    (1, 11, f'{folder}/a', -24), (1, 12, '/x/b', 0),
    (2, 16, f'{folder}/sub/f', -23),
  ]  # fmt: skip
  assert found.rr_interval.iloc[0] == 800 and found.p_axis.iloc[0] == -10.5
  assert found[list(ECG_MEASUREMENTS)].notna().sum().sum() == 3
  named = [[terms()[k] for k in indices] for indices in found.terms]
  assert len(named[0]) >= 2 and not named[1]
  # The second sample has an ECG alone.
  assert staged.cohort['rows']['labels'] == {'read': 3}
  assert staged.cohort['rows']['ecg_table'] == {
    'read': 6,
    'used: distinct recordings': 3,
    'missing: measurements out of range or not measurable': 2,
    'report lines read': 2,
    'dropped: unmatched report lines': 0,
    'missing: samples without a recording': 1,
  }


def test_the_least_that_a_table_may_have(data):
  """Studies are then numbered by subject, time and path; nothing is reported."""
  ecg = table(
    (2, -1, 'x'), (1, -1, 'b'), (1, -1, 'a'), (1, -2, 'z'), (1, -1, 'a'), (1, -3, None),
    (1, None, 'y'), (None, -3, 'y'),
  )  # fmt: skip
  empty = dict.fromkeys(('report', 'unit', 'leads', 'sampling_rate', 'p_axis'))
  ecg = ecg.assign(**empty)  # columns without a type
  counts = stage_with(data, ecg.sample(frac=1, random_state=0)).cohort['rows']['ecg_table']
  found = data.table('recordings', 'study_id')
  assert [path.rsplit('/')[-1] for path in found.path] == ['z', 'a', 'b']
  assert found[list(ECG_MEASUREMENTS)].isna().all(axis=None)
  assert all(len(each) == 0 for each in found.terms)
  assert counts['dropped: missing or malformed key or time'] == 3
  assert counts['dropped: duplicate'] == 1


def test_unmatched_lines_are_listed(data):
  ecg = table((1, -1, 'a'), (1, -2, 'b'), report=['Gibberish\r\nSinus rhythm', 'Gibberish'])
  cohort = stage_with(data, ecg).cohort
  assert cohort['unmatched_report_lines'] == [{'line': 'Gibberish', 'count': 2}]
  assert cohort['rows']['ecg_table']['report lines read'] == 3


def test_every_way_of_storing_gives_the_same_recording(data, tmp_path):
  """A WFDB record, DICOM, a file of NumPy and a cell of the table."""
  subjects = range(1, 8)
  data.rows, data.labels = [], [(subject, at(0)) for subject in subjects]
  data.values = {'boolean_value': [subject % 2 == 0 for subject in subjects]}
  for subject in subjects:
    data.add('LAB//crea//mg/dL', -1, 1, subject=subject)
  rng = np.random.default_rng(0)
  staging_fixture.write_ecg(tmp_path / 'wfdb', rng)
  raw = np.fromfile(tmp_path / 'wfdb.dat', '<i2').reshape(5000, 12)
  leads = ['I', 'II', 'III', 'aVR', 'aVF', 'aVL', *ECG_LEADS[6:]]  # of the WFDB header
  of_mv = {'rate': 500.0, 'unit': 'mV', 'sensitivity': 0.005}
  dicom_ecg.write(tmp_path / 'a.DCM', dicom_ecg.group(raw, leads, **of_mv))
  (tmp_path / 'a.DCM').rename(tmp_path / 'b')
  dicom_ecg.write(tmp_path / 'a.DCM', dicom_ecg.group(raw, leads, **of_mv))
  np.save(tmp_path / 'a.npy', raw / 200)
  np.save(tmp_path / 'uv.npy', raw.T * 5.0)
  description = {
    'sampling_rate': [None] * 3 + [500, 500, 500, None],
    'unit': [None] * 3 + ['mV', 'uV', 'smoots', 'mV'],
    'leads': [None] * 3 + [' '.join(leads)] * 4,
  }
  paths = ['wfdb', 'a.DCM', 'b', 'a.npy', 'uv.npy', 'a.npy', 'a.npy']
  ecg = table(*((k, -k, path) for k, path in zip(subjects, paths, strict=True)))
  ecg.assign(**description).to_parquet(tmp_path / 'ecg.parquet')
  as_list = pa.array([raw.T.tolist()] * 7, pa.list_(pa.list_(pa.int16())))
  cells = pa.Table.from_pandas(ecg.drop(columns='path')).append_column('samples', as_list)
  for name, values in {
    'sampling_rate': [500.0] * 7, 'unit': ['V'] * 7, 'leads': [','.join(leads)] * 7,
  }.items():  # fmt: skip
    cells = cells.append_column(name, pa.array(values))
  scaled = pa.array([(raw.T / 200_000).tolist()] * 7)
  cells = cells.set_column(cells.column_names.index('samples'), 'samples', scaled)
  pq.write_table(cells, tmp_path / 'cells.parquet', row_group_size=3)

  settings = vars(data.write())
  settings = {name: value for name, value in settings.items() if value is not None}
  common = dict(source='meds', task='mortality', memory_limit='1GB', workers=1)
  expected, gain = condition(
    (raw / 200)[:, [leads.index(lead) for lead in ECG_LEADS]], 500.0
  )
  for name, used in (('ecg', 5), ('cells', 7)):
    out = prepare(
      out=tmp_path / f'{name}-out', ecg=tmp_path / f'{name}.parquet',
      max_dropped_recordings=0.5, **common, **settings,
    )  # fmt: skip
    dataset = open_dataset(out)
    assert dataset.metadata['counts']['recordings'] == used
    stored = {int(one['subject_id']): one['ecg'] for one in samples_of(out)}
    for subject in range(1, used + 1):
      ecg = stored[subject]
      np.testing.assert_allclose(ecg['gain'], [gain], rtol=1e-6)
      assert np.abs(ecg['signal'][0].astype(int) - expected).max() <= 1
      assert ecg['time'] == [-subject]
    # The evaluation reads the raw recordings again.
    rows = np.flatnonzero(dataset.lengths('ecg'))
    for row, found in rereading.locate(dataset, rows, 1).items():
      again = rereading.read_damaged(found[0], None, 0)
      assert again is not None
      [signal] = stored[dataset.index['subject_id'][row]]['signal']
      np.testing.assert_array_equal(again[0], signal)
    listed = pd.read_parquet(out / 'recordings.parquet')
    assert len(listed) == 7 and {'sampling_rate', 'unit', 'leads'} <= {*listed.columns}
    cohort = json.loads((out / 'cohort.json').read_text())
    if name == 'ecg':
      assert cohort['rows']['ecg'] == {'bad_header': 1, 'unknown_unit': 1}
      dropped = pd.read_csv(out / 'dropped_recordings.csv')
      assert {*dropped.reason} == {'bad_header', 'unknown_unit'}
      assert {*dropped.path} == {str(tmp_path / 'a.npy')}


def samples_of(out):
  """The examples of a data set."""
  builder = tfds.builder_from_directory(out)
  for split in builder.info.splits:
    yield from tfds.as_numpy(builder.as_dataset(split=split))


ARRAY = {'sampling_rate': [500], 'unit': ['mV'], 'leads': [LEADS]}


@pytest.mark.parametrize(
  ('columns', 'without', 'message'),
  [
    ({}, 'subject_id', r"ecg\.parquet: no column 'subject_id'; docs/sources\.md"),
    ({}, 'time', r"no column 'time'"),
    ({}, 'path', r'either as paths \(column path\) or as arrays'),
    ({'samples': [[[1.0]]]}, '', 'either as paths'),
    ({'samples': [[1.0]]}, 'path', 'list of lists of numbers'),
    ({'samples': [[[1.0]]]}, 'path', "no column 'sampling_rate', 'unit', 'leads'"),
    ({'path': ['a.npy']}, '', "no column 'sampling_rate', 'unit', 'leads'"),
    (ARRAY | {'path': ['a.npy']}, 'unit', "no column 'unit'; arrays need their"),
    ({'report': [['Sinus rhythm']]}, '', r"column 'report' is of type VARCHAR\[\]"),
    ({'time': ['01/02/2150']}, '', "column 'time': 1 cells hold what is not a time"),
    ({'subject_id': ['S1']}, '', "column 'subject_id'.* not a whole number"),
    ({'rr_interval': ['long']}, '', "column 'rr_interval'.* not a number"),
  ],
)
def test_tables_that_are_refused(data, columns, without, message):
  ecg = table((1, -1, 'a')).assign(**columns).drop(columns=[without] if without else [])
  path = data.folder / 'ecg.parquet'
  ecg.to_parquet(path)
  settings = dataclasses.replace(data.write(), ecg=path)
  # Before the data, which may take hours, are read.
  for shard in (data.folder / 'meds' / 'data').rglob('*.parquet'):
    shard.write_bytes(b'damaged')
  with pytest.raises(DataError, match=message) as error:
    stage('mortality', data.folder / 'staged', settings, Resources(threads=1))
  assert 'S1' not in str(error.value)


def test_other_files_than_tables_are_refused(data, monkeypatch):
  with pytest.raises(DataError, match=r'ecg\.xlsx: give a table, \.parquet'):
    stage_with(data, table((1, -1, 'a')), 'ecg.xlsx')
  with pytest.raises(DataError, match=r'--ecg=.*nothing\.csv: no such file'):
    dataclasses.replace(data.write(), ecg=data.folder / 'nothing.csv')
  ecg = table((1, -1, 'a')).assign(samples='[[1]]').drop(columns='path')
  with pytest.raises(DataError, match='only a parquet table can have arrays'):
    stage_with(data, ecg, 'ecg.csv')
  path = data.folder / 'cut.parquet'
  table((1, -1, 'a')).to_parquet(path)
  path.write_bytes(path.read_bytes()[:-20])
  settings = dataclasses.replace(data.write(), ecg=path)
  with pytest.raises(DataError, match=r'cut\.parquet: not a parquet file, or a truncated'):
    stage('mortality', data.folder / 'staged', settings, Resources())
  monkeypatch.setitem(sys.modules, 'pydicom', None)
  with pytest.raises(DataError, match=r"pip install 'medm2t_jax\[dicom\]'"):
    stage_with(data, table((1, -1, 'a.dcm')))


def test_without_the_table_there_are_no_ecgs(data):
  staged = stage('mortality', data.folder / 'staged', data.write(), Resources())
  assert 'ecg' not in staged.schema.modalities
  assert not (data.folder / 'staged/recordings.parquet').exists()


def test_a_folder_in_which_no_recording_is(data):
  subjects = range(1, 8)
  data.labels = [(subject, at(0)) for subject in subjects]
  data.values = {'boolean_value': [subject % 2 == 0 for subject in subjects]}
  for subject in subjects:
    data.add('LAB//crea//mg/dL', -1, 1, subject=subject)
  settings = vars(data.write())
  settings = {name: value for name, value in settings.items() if value is not None}
  for name in ('gone.dcm', 'gone'):
    path = data.folder / 'ecg.csv'
    table(*((subject, -1, name) for subject in subjects)).to_csv(path, index=False)
    with pytest.raises(DataError, match=r'none of 1 checked files exists.*gone\.(dcm|hea)'):
      prepare(
        source='meds', task='mortality', out=data.folder / name.replace('.', ''), ecg=path,
        memory_limit='1GB', workers=1, **settings,
      )  # fmt: skip
