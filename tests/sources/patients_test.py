"""Patients in memory are read as preparation reads files, to the byte."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_pipeline.ecg.conditioning import condition
from data_pipeline.format.modalities import Events, Grid, Static, Waveform
from data_pipeline.format.modalities.waveform import ECG_LEADS
from data_pipeline.format.schema import DataError, Item, Schema, Target
from data_pipeline.sources import Resources, meds
from data_pipeline.sources.common.items import items
from data_pipeline.sources.meds.mapping import load, path_of
from data_pipeline.sources.meds.patients import PatientReader, Patients, Recording
from tests.sources.meds_test import KETONE, TEMPERATURE
from tests.support import staging_fixture
from tests.support.meds_data import CREATININE, DataSet
from tests.support.patients import patients_of, prepared, request

DEMO = Path(__file__).parents[3] / 'shared/data/mimic-iv-demo-meds'
HOUR = 3_600_000_000
COUNTED = (
  'dropped: no value',
  'dropped: unlisted category',
  'dropped: duplicate',
  'dropped: outside physiologic limits',
  'repaired: unit converted',
  'repaired: unlisted rhythm is Other',
  'dropped: unlisted ectopy type',
)
REPAIRED = {
  'id': 'weight', 'unit': 'kg', 'low': 30, 'high': 200, 'codes': ['WEIGHT'],
  'repairs': [{'low': 300, 'high': 500, 'scale': 0.4536, 'reason': 'pounds'}],
}  # fmt: skip


def same(example, expected):
  assert example.keys() == expected.keys()
  for key, array in expected.items():
    assert example[key].dtype == array.dtype and example[key].shape == array.shape
    assert example[key].tobytes() == array.tobytes(), key


def random_rows(data, rng):
  """Rows of every form for two subjects, with copies, and outside the window."""
  codes = [
    ('LAB//crea//mg/dL', lambda: (rng.uniform(0.3, 5), None)),
    ('LAB//crea//umol/L', lambda: (rng.uniform(50, 900), None)),
    ('LAB//crea//smoots', lambda: (1, None)),
    ('LAB//crea//mg/dL', lambda: (None, rng.choice(['<0.9', '3-5', 'see comment', ' ']))),
    ('LAB//ketone//mg/dL', lambda: (None, rng.choice(['Negative', 'TR', '>80', 'purple']))),
    ('LAB//ketone//mg/dL', lambda: (rng.choice([0.5, 20, 200]), None)),
    ('KETONE//tr', lambda: (None, None)),
    ('KETONE//odd', lambda: (None, None)),
    ('KETO+', lambda: (5, None)),
    ('T//C', lambda: (rng.normal(37, 1), None)),
    ('T//F', lambda: (rng.normal(98, 2), None)),
    ('AUTO//a', lambda: (rng.normal(), None)),
    ('AUTO//b', lambda: (None, None)),
    ('WEIGHT', lambda: (rng.choice([70, 150, 400, 900]), None)),
    ('SEX//F', lambda: (None, None)),
    ('OTHER', lambda: (1, None)),
    ('LAB//220048//UNK', lambda: (None, rng.choice(['AF', 'SR (Sinus)', 'zzz']))),
    ('LAB//224650//UNK', lambda: (None, rng.choice(['PVCs', 'PACs', 'None', 'odd']))),
    ('LAB//224651//UNK', lambda: (None, rng.choice(['Rare', 'Frequent', 'odd']))),
  ]
  for _ in range(600):
    code, value = codes[rng.integers(len(codes))]
    number, text = value()
    hours = rng.choice([None, *np.round(rng.uniform(-30, 3, 20), 1)])
    hours = None if hours is None else float(hours)
    number = None if number is None else float(np.float32(number))
    text = None if text is None else str(text)
    for _ in range(1 + (rng.random() < 0.1)):
      data.add(code, hours, number, text, subject=int(rng.integers(1, 3)))
  for subject in (1, 2):
    data.add('BIRTH', -24.0 * 365 * (40 + subject), subject=subject)


@pytest.fixture
def data(tmp_path):
  found = DataSet(tmp_path)
  found.labels = [(1, found.labels[0][1]), (2, found.labels[0][1])]
  found.values = {'boolean_value': [True, False]}
  found.mapping |= {
    'birth': 'BIRTH',
    'events': {
      'labs': {
        'items': [CREATININE, KETONE],
        'automatic': {'codes': ['AUTO//*'], 'min_subjects': 1},
      },
      'rhythm': {
        'mimic_iv': {'items': 'vitals_categorical', 'codes': ['LAB//{itemid}//{unit}']}
      },
    },
    'grids': {'vitals': {'steps': 24, 'step_hours': 1, 'items': [TEMPERATURE]}},
    'static': [
      REPAIRED,
      {'id': 'sex', 'categories': ['F', 'M'], 'codes': ['SEX//{category}']},
    ],
  }
  return found


@pytest.mark.parametrize('seed', range(3))
def test_what_preparation_stages(data, seed):
  random_rows(data, np.random.default_rng(seed))
  staged = data.stage()
  staging = data.folder / 'staged'
  request = patients_of(
    f"read_parquet('{data.folder}/meds/data/**/*.parquet')", staging / 'samples.parquet'
  )
  reader = PatientReader(staged.schema, load(data.folder / 'mapping.yaml'))
  read = reader.read(request)
  for name in staged.schema.modalities:
    for example, expected in zip(
      read.examples, prepared(staged.schema, staging, name), strict=True
    ):
      same(example[name], expected)
  # What is counted, too.
  rows = staged.cohort['rows']
  for name in ('labs', 'rhythm', 'vitals'):
    entries = [each for of in read.coverage for each in of['entries']]
    for reason in COUNTED:
      found = sum(
        each['events'] for each in entries
        if each['modality'] == name and each['reason'] == reason
      )  # fmt: skip
      assert found == rows[name].get(reason, 0), (name, reason)


@pytest.mark.skipif(not DEMO.exists(), reason='the open demo is not there')
def test_the_demo_of_mimic_iv(tmp_path):
  settings = meds.Settings(
    meds=DEMO, labels=DEMO / 'labels/in_hospital_mortality.parquet', mapping='mimic_iv'
  )
  staged = meds.stage('mortality', tmp_path, settings, Resources(threads=2))
  request = patients_of(
    f"read_parquet('{DEMO}/data/**/*.parquet')", tmp_path / 'samples.parquet'
  )
  read = PatientReader(staged.schema, load(path_of('mimic_iv'))).read(request)
  used = 0
  for name in staged.schema.modalities:
    for example, expected in zip(
      read.examples, prepared(staged.schema, tmp_path, name), strict=True
    ):
      same(example[name], expected)
      used += len(expected.get('item', ()))
  assert used > 3000


def reader_of(mapping=None, hours=24.0, **modalities):
  target = Target('binary', ('no', 'yes'))
  return PatientReader(Schema('t', 'meds', target, modalities, (), hours), mapping)


POTASSIUM = Item('50971', 'Potassium', 'mEq/L', (), 1.0, 12.0)
GLUCOSE = Item('50931', 'Glucose', 'mg/dL', (), 10.0, 2000.0)


def test_own_codes_in_any_unit_without_a_mapping():
  reader = reader_of(labs=Events((POTASSIUM, GLUCOSE)))
  read = reader.read(
    request(
      (-HOUR, 'labs//50971', 4.5), (-HOUR, 'labs//50931', 5.5, None, 'mmol/L'),
      (-2 * HOUR, 'labs//50931//mmol/L', 6), (-HOUR, 'labs//50971', 4, None, 'pounds'),
      (-HOUR, 'labs//50971', 400), (-HOUR, 'labs//50972', 4),
    )
  )  # fmt: skip
  labs = read.examples[0]['labs']
  assert labs['item'].tolist() == [1, 0, 1]
  np.testing.assert_allclose(labs['value'], [6 * 18.016, 4.5, 5.5 * 18.016], rtol=1e-6)
  assert labs['time'].tolist() == [-2, -1, -1]
  assert read.coverage[0]['events'] == 6 and read.coverage[0]['used'] == 3
  assert [(each['code'], each['reason']) for each in read.coverage[0]['entries']] == [
    ('labs//50972', 'ignored: the model does not read this code'),
    ('labs//50931', 'repaired: unit converted'),
    ('labs//50931//mmol/L', 'repaired: unit converted'),
    ('labs//50971', 'dropped: outside physiologic limits'),
    ('labs//50971', 'dropped: unknown unit'),
  ]


def test_nothing_from_after_the_prediction_time_and_nobody_else(data):
  random_rows(data, np.random.default_rng(7))
  staged = data.stage()
  files = f"read_parquet('{data.folder}/meds/data/**/*.parquet')"
  both = patients_of(files, data.folder / 'staged/samples.parquet')
  reader = PatientReader(staged.schema, load(data.folder / 'mapping.yaml'))
  together = reader.read(both)
  rows = both.events.to_pandas()
  for patient in (0, 1):
    alone = rows[rows.patient == patient].assign(patient=0)
    known = alone[~(alone.time.astype('int64') > both.prediction_time[patient] * 1)]
    later = alone.assign(time=alone.time.mask(
      alone.time.astype('int64') > both.prediction_time[patient],
      alone.time + np.timedelta64(400, 'D')), )  # fmt: skip
    for frame in (known, later):
      events = pa.Table.from_pandas(frame, both.events.schema, preserve_index=False)
      one = Patients(events, both.prediction_time[[patient]], [[]], [{}])
      read = reader.read(one)
      for name, arrays in together.examples[patient].items():
        same(read.examples[0][name], arrays)


def test_static_values_by_their_own_code():
  static = Static(
    (Item('age', 'Age', 'years', (), 0, 120), Item('bmi', 'BMI')),
    (Item('sex', 'Sex', '', ('F', 'M')),),
  )
  reader = reader_of(static=static)
  given = {'age': 71.5, 'bmi': 'tall', 'sex': 'M', 'shoe': 44}
  read = reader.read(request(static=given))
  assert read.examples[0]['static']['numeric'].tolist() == [71.5, 0]
  assert read.examples[0]['static']['numeric_mask'].tolist() == [1, 0]
  assert read.examples[0]['static']['categorical'].tolist() == [1]
  reasons = {each['code']: each['reason'] for each in read.coverage[0]['entries']}
  assert reasons == {
    'bmi': 'dropped: not a number',
    'shoe': 'ignored: the model has no such static column',
  }
  read = reader.read(request(static={'age': 130, 'sex': 'X'}))
  assert read.examples[0]['static']['numeric_mask'].tolist() == [0, 0]
  assert read.examples[0]['static']['categorical'].tolist() == [-1]


def test_recordings_as_samples_and_as_wfdb(tmp_path):
  staging_fixture.write_ecg(tmp_path / 'a', np.random.default_rng(0))
  raw = np.fromfile(tmp_path / 'a.dat', '<i2').reshape(5000, 12)
  leads = ('I', 'II', 'III', 'aVR', 'aVF', 'aVL', *ECG_LEADS[6:])
  header, content = (tmp_path / f'a{end}' for end in ('.hea', '.dat'))
  samples = Recording(
    -HOUR, raw * 5.0, 500.0, 'uV', leads,
    measurements={'rr_interval': 800, 'p_onset': 29999},
    report=('Sinus rhythm', 'Gibberish'),
  )  # fmt: skip
  files = Recording(-2 * HOUR, header=header.read_bytes(), data=content.read_bytes())
  flat = dataclasses.replace(samples, signal=raw * 0)
  late = dataclasses.replace(samples, time=1)
  early = dataclasses.replace(samples, time=-25 * HOUR)
  modality = Waveform(('426783006', '284470004'))
  reader = reader_of(ecg=modality)
  read = reader.read(request(recordings=[samples, files, flat, late, early]))
  ecg = read.examples[0]['ecg']
  assert ecg['time'].tolist() == [-2, -1]
  expected, gain = condition(
    (raw / 200)[:, [leads.index(each) for each in ECG_LEADS]], 500.0
  )
  for signal in ecg['signal']:
    assert np.abs(signal.astype(int) - expected).max() <= 1
  np.testing.assert_allclose(ecg['gain'], [gain, gain], rtol=1e-6)
  assert ecg['measurements'][:, 0].tolist() == [0, 800]
  assert ecg['measurements_mask'].sum() == 1
  assert {(each['code'], each['reason']) for each in read.coverage[0]['entries']} == {
    ('recording 2', 'dropped: flat'),
    ('recording 3', 'dropped: after the prediction time'),
    ('recording 4', 'dropped: before the observation window'),
    ('p_onset', 'missing: measurement out of range or not measurable'),
    ('report', 'dropped: unmatched report line'),
  }


@pytest.mark.parametrize(
  'header',
  [
    b'a/2 12 500 5000\nb 2500\nc 2500\n',
    b'a 1 500 10\n../../x.dat 16 200 16 0 0 0 0 I\n',
    b'a 2 500 10\na.dat 16 200 16 0 0 0 0 I\nb.dat 16 200 16 0 0 0 0 II\n',
    b'a 1 500 10\nb.hea 16 200 16 0 0 0 0 I\n',
    b'',
  ],
)
def test_headers_that_name_other_files_are_refused(header):
  reader = reader_of(ecg=Waveform(()))
  read = reader.read(request(recordings=[Recording(0, header=header, data=b'\0' * 20)]))
  assert len(read.examples[0]['ecg']['time']) == 0
  assert [each['reason'] for each in read.coverage[0]['entries']] == ['dropped: bad_header']


def test_a_grid_of_another_length_than_the_window():
  grid = Grid((items('vitals')[0],), 2, 1.0)
  reader = reader_of(vitals=grid)
  code = f'vitals//{items("vitals")[0].itemid}'
  read = reader.read(request((-3 * HOUR, code, 80), (-HOUR, code, 90), (0, code, 70)))
  assert read.examples[0]['vitals']['value'].tolist() == [[0], [80]]
  assert read.coverage[0]['used'] == 2
  assert read.coverage[0]['entries'][0]['reason'] == 'dropped: before the first cell'


def test_a_code_of_two_items_is_refused_as_by_preparation(data):
  data.mapping['events'] = {
    'labs': {
      'items': [CREATININE, {'id': 'other', 'unit': 'mg/dL', 'codes': ['LAB//*//{unit}']}]
    }
  }
  data.write()
  chosen = load(data.folder / 'mapping.yaml')
  found = tuple(one.item for one in chosen.events['labs'].variables)
  reader = reader_of(chosen, labs=Events(found))
  with pytest.raises(DataError, match='LAB//crea//mg/dL belongs to two items of labs'):
    reader.read(request((-HOUR, 'LAB//crea//mg/dL', 1)))
  assert reader.read(request((-HOUR, 'LAB//x//mg/dL', 1))).coverage[0]['used'] == 1
