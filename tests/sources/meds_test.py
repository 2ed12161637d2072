"""A hand-made MEDS data set of a few rows: every rule of the source on its own."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import meds
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from data_pipeline import sources
from data_pipeline.format.schema import DataError
from data_pipeline.sources import Resources
from data_pipeline.sources.common.items import items
from data_pipeline.sources.meds import stage
from data_pipeline.sources.meds.mapping import load
from tests.support.meds_data import CREATININE, DataSet, at, mapping

TEMPERATURE = {
  'id': 'temperature',
  'unit': '°C',
  'codes': ['T//C', {'code': 'T//F', 'scale': 1 / 1.8, 'offset': -32 / 1.8}],
}
KETONE = {
  'id': 'ketone',
  'categories': ['NEG', 'TR', 'POS'],
  'texts': {'negative': 'NEG'},
  'numbers': {'NEG': [None, 1], 'TR': [1, 150], 'POS': [150, None]},
  'codes': ['LAB//ketone//*', 'KETONE//{category}', {'code': 'KETO+', 'category': 'POS'}],
}


@pytest.fixture
def data(tmp_path):
  return DataSet(tmp_path)


def test_window_time_and_duplicates(data):
  for hours in (-24.0, 0.0, -24.01, 0.01, 300.0, None):
    data.add('LAB//crea//mg/dL', hours, 1.5 + (hours or 0) / 1000)
  data.add('LAB//crea//mg/dL', -24.0, 1.5 - 24 / 1000)  # a copy
  data.add('LAB//crea//mg/dL', -24.0, 2.0)  # another value at the same time
  data.add('LAB//crea//mg/dL', -2.0, None)
  data.add('LAB//crea//mg/dL', -2.0, float('nan'))
  data.add('LAB//crea//mg/dL', -2.0, 1.0, subject=2)  # has no label
  counts = data.stage().cohort['rows']
  assert data.events() == [
    (0, pytest.approx(1.476), -1, -24),
    (0, 2, -1, -24),
    (0, 1.5, -1, 0),
  ]
  assert counts['data'] == {
    'read': 11,
    'read: mapped codes of the cohort': 10,
    'dropped: after the prediction time': 2,
    'dropped: before the observation window': 1,
    'dropped: missing time': 1,
  }
  assert counts['labs'] == {'dropped: no value': 2, 'dropped: duplicate': 1, 'written': 3}


def test_whole_history(data):
  data.mapping['observation_hours'] = None
  data.add('LAB//crea//mg/dL', -9000.0, 1)
  data.add('LAB//crea//mg/dL', 0.5, 2)
  assert data.stage().schema.observation_hours is None
  assert data.events() == [(0, 1, -1, -9000)]


def test_each_prediction_has_its_own_window(data):
  data.mapping = mapping(
    grids={'vitals': {'steps': 24, 'step_hours': 1, 'items': [TEMPERATURE]}},
    static=[{'id': 'weight', 'codes': ['WEIGHT']}],
    attributes={'ward': ['ICU//{category}']},
  )
  data.labels = [(1, at(0)), (1, at(30))]
  data.values = {'boolean_value': [False, True]}
  for hours in (-1.0, 3.0, 10.0):
    data.add('LAB//crea//mg/dL', hours, 1 + hours / 10)
    data.add('T//C', hours, 37 + hours / 10)
    data.add('WEIGHT', hours, 70 + hours)
    data.add(f'ICU//at {hours}', hours)
  data.stage()
  # What happened at 3 h is after the first prediction and too early for the second.
  found = data.table('events_labs')[['sample_id', 'time']].to_numpy().tolist()
  assert found == [[1, -1], [2, -20]]
  assert data.table('grid_vitals').to_numpy().tolist() == [
    [1, 23, 0, pytest.approx(36.9)], [2, 4, 0, 38],
  ]  # fmt: skip
  assert data.table('static').weight.tolist() == [69, 80]
  assert data.table('samples').label.tolist() == [0, 1]
  assert data.table('samples').ward.tolist() == ['at -1.0', 'at 10.0']


def test_nothing_after_the_prediction_time_matters(data):
  data.mapping = mapping(
    birth=meds.birth_code,
    events={'labs': {
      'items': [CREATININE],
      'automatic': {'codes': ['WEIGHT', 'ICU//*'], 'min_subjects': 1},
    }},
    grids={'vitals': {'steps': 4, 'step_hours': 1, 'items': [TEMPERATURE]}},
    static=[{'id': 'weight', 'codes': ['WEIGHT']}],
    attributes={'unit': ['ICU//{category}']},
  )  # fmt: skip
  tables = ('samples', 'static', 'events_labs', 'grid_vitals')
  data.add(meds.birth_code, -24 * 365.25 * 30)
  for hours in (-3.0, 0.0):
    data.add('LAB//crea//mg/dL', hours, 1)
    data.add('T//C', hours, 37)
    data.add('WEIGHT', hours, 70 - hours)
    data.add('ICU//A' if hours else 'ICU//B', hours)
  schema = data.stage().schema
  before = [data.table(name) for name in tables]
  assert before[1].weight.tolist() == [70]
  for code in ('LAB//crea//mg/dL', 'T//C', 'WEIGHT'):
    data.add(code, 0.001, 7)
  for code in ('ICU//A', meds.birth_code):
    data.add(code, 0.001)
  data.add(meds.death_code, 5.0)
  assert data.stage().schema == schema
  for name, table in zip(tables, before, strict=True):
    pd.testing.assert_frame_equal(data.table(name), table)


def test_units_scales_limits_and_repairs(data):
  share = {'id': 'share', 'unit': '%', 'low': 0.5, 'high': 100, 'codes': ['SHARE']}
  share['repairs'] = [{'low': 0, 'high': 1, 'scale': 100, 'reason': 'fraction to percent'}]
  data.mapping['events']['labs']['items'] = [CREATININE, TEMPERATURE, share]
  data.add('LAB//crea//MG / DL', -9, 1)
  data.add('LAB//crea//UNK', -8, 2)
  data.add('LAB//crea//umol/L', -7, 100)
  data.add('LAB//crea//furlong', -6, 3)
  data.add('LAB//crea//mg/dL', -5, 0.7)  # the limit itself, as a 32-bit float below it
  data.add('LAB//crea//mg/dL', -5, 60.5)
  data.add('T//F', -4, 98.6)
  data.add('T//C', -3, 38)
  data.add('SHARE', -2, 0.4)
  data.add('SHARE', -1, 55)
  data.add('LAB//creatine//mg/dL', -1, 5)  # of no item
  counts = data.stage().cohort['rows']['labs']
  assert [(item, value) for item, value, *_ in data.events()] == [
    (0, 1), (0, 2), (0, pytest.approx(1.131)), (0, pytest.approx(0.7)),
    (1, pytest.approx(37)), (1, 38), (2, 40), (2, 55),
  ]  # fmt: skip
  assert counts == {
    'dropped: unknown unit': 1,
    'dropped: outside physiologic limits': 1,
    'repaired: unit converted': 2,
    'repaired: fraction to percent': 1,
    'dropped: duplicate': 0,
    'written': 8,
  }


def test_texts_and_categories(data):
  data.mapping['events']['labs']['items'] = [CREATININE, KETONE]
  data.add('LAB//crea//umol/L', -9, None, '<100')
  data.add('LAB//crea//mg/dL', -8, None, 'see comment')
  data.add('LAB//crea//mg/dL', -8, 3, 'see comment')
  data.add('LAB//ketone//mg/dL', -7, None, ' Negative ')
  data.add('LAB//ketone//mg/dL', -6, 150)
  data.add('LAB//ketone//mg/dL', -5, None, '>80')
  data.add('LAB//ketone//mg/dL', -4, None, 'purple')
  data.add('LAB//ketone//mg/dL', -3)
  data.add('KETONE//tr', -2)
  data.add('KETONE//other', -2)
  data.add('KETO+', -1, 5, 'NEG')
  counts = data.stage().cohort['rows']['labs']
  assert data.events() == [
    (0, pytest.approx(99 * 0.01131), -1, -9), (0, 3, -1, -8), (1, None, 0, -7),
    (1, None, 2, -6), (1, None, 1, -5), (1, None, 1, -2), (1, None, 2, -1),
  ]  # fmt: skip
  assert counts == {
    'dropped: unreadable text': 1,
    'dropped: unlisted category': 2,
    'dropped: no value': 1,
    'repaired: unit converted': 1,
    'dropped: duplicate': 0,
    'written': 7,
  }


def test_grid_means(data):
  data.mapping = mapping(
    grids={'vitals': {'steps': 4, 'step_hours': 0.5, 'items': [TEMPERATURE]}}, events={}
  )
  data.add('T//C', -2.0, 36)
  data.add('T//C', -1.51, 37)
  data.add('T//F', -1.6, 98.6)
  data.add('T//C', -0.001, 39)
  data.add('T//C', 0.0, 40)
  data.add('T//C', -2.01, 30)  # inside the window, before the grid
  schema = data.stage().schema
  assert (schema.modalities['vitals'].steps, schema.names) == (4, ('vitals',))
  found = data.table('grid_vitals').to_numpy().tolist()
  assert found == [[1, 0, 0, pytest.approx(110 / 3)], [1, 3, 0, 39.5]]
  assert not (data.folder / 'staged/static.parquet').exists()


def test_automatic_items_depend_on_the_data_alone(data):
  data.mapping['events']['labs'] = {
    'items': [CREATININE],
    'automatic': {'codes': ['LAB//*', {'regex': 'DRUG//[a-m].*'}], 'min_subjects': 2},
  }
  for subject in (1, 2, 3):
    data.add('LAB//crea//mg/dL', -5, 1, subject=subject)
    data.add('LAB//sodium', -4, 140, subject=subject)
    data.add('LAB//rare', -4, 1 if subject == 3 else None, subject=subject)
    data.add('DRUG//aspirin', -3, subject=subject)
    data.add('DRUG//zinc', -3, subject=subject)
  schema = data.stage().schema
  found = [(item.itemid, item.categories) for item in schema.modalities['labs'].items]
  assert found == [
    ('creatinine', ()),
    ('DRUG//aspirin', ('recorded',)),
    ('LAB//sodium', ()),
  ]
  assert data.events() == [(0, 1, -1, -5), (2, 140, -1, -4), (1, None, 0, -3)]
  # Other labels, times and subjects: the same items.
  data.labels = [(3, at(-1000)), (2, at(5))]
  data.values = {'boolean_value': [False, True]}
  assert data.stage().schema == schema


def test_static_columns_age_and_attributes(data):
  data.mapping = mapping(
    birth=meds.birth_code,
    static=[
      {'id': 'sex', 'categories': ['F', 'M'], 'codes': ['GENDER//{category}']},
      {'id': 'kind', 'categories': ['URGENT'], 'codes': ['ADMITTED//{category}//*']},
      {'id': 'place', 'categories': ['ER'], 'codes': ['ADMITTED//*//{category}']},
      {'id': 'weight', 'unit': 'kg', 'high': 400, 'units': {'lb': {'scale': 0.5}},
       'codes': ['WEIGHT//{unit}']},
    ],
    attributes={'sex': ['GENDER//{category}'], 'ward': ['ICU//{category}']},
  )  # fmt: skip
  data.labels, data.values = [(1, at(0)), (2, at(0))], {'boolean_value': [True, False]}
  for subject in (1, 2):
    data.add('LAB//crea//mg/dL', -5, 1, subject=subject)
  data.add('GENDER//F', None)
  data.add(meds.birth_code, -24 * 365.25 * 40)
  data.add('ADMITTED//URGENT//HOME', -400)
  data.add('ADMITTED//URGENT//ER', -40)
  data.add('WEIGHT//kg', -800, 90)
  data.add('WEIGHT//lb', -700, 160)
  data.add('WEIGHT//kg', -600, 900)
  data.add('ICU//MICU', -50)
  data.add('ICU//SICU', -30)
  data.add('ICU//CVICU', 30)
  data.add(meds.birth_code, -24 * 365.25 * 130, subject=2)
  staged = data.stage()
  assert [item.itemid for item in staged.schema.modalities['static'].numeric] == [
    'age',
    'weight',
  ]
  first, second = data.table('static').to_dict('records')
  assert first == {
    'sample_id': 1, 'age': pytest.approx(40), 'weight': 80, 'sex': 'F', 'kind': 'URGENT',
    'place': 'ER',
  }  # fmt: skip
  assert pd.isna([second[name] for name in ('age', 'weight', 'sex', 'kind', 'place')]).all()
  samples = data.table('samples')
  assert staged.schema.attributes == ('age', 'sex', 'ward')
  assert list(samples.columns[4:]) == ['age', 'sex', 'ward']
  assert samples.loc[0, ['sex', 'ward']].tolist() == ['F', 'SICU']
  assert samples.loc[1, ['sex', 'ward']].isna().all()
  assert staged.cohort['rows']['static'] == {
    'read: mapped codes of the cohort': 11,
    'dropped: after the prediction time': 1,
    'dropped: outside physiologic limits': 1,
    'dropped: unlisted category': 1,
    'repaired: unit converted': 1,
    'repaired: age above 120 is missing': 1,
  }


def test_items_of_mimic_iv(data):
  codes = ['LAB//{itemid}//{unit}']
  data.mapping = mapping(
    events={'labs': {'mimic_iv': {'items': 'labs', 'codes': codes}}},
    grids={'vitals': {'steps': 24, 'step_hours': 1,
                      'mimic_iv': {'items': 'vitals', 'codes': codes}}},
  )  # fmt: skip
  data.add('LAB//50931//mmol/L', -5, 5.5)
  data.add('LAB//52024//mg/dL', -4, 1.25)  # merged into 50912
  data.add('LAB//51487//UNK', -3, None, 'POS*.')
  data.add('LAB//51478//mg/dL', -2, 100)
  data.add('LAB//50920//UNK', -1, None, 'Using this, eGFR is likely between 36 and 48')
  data.add('LAB//223761//UNK', -1, 98.6)  # its rows are °F, with or without a unit
  data.add('LAB//223835//UNK', -1, 0.4)
  schema = data.stage().schema
  assert schema.modalities['labs'].items == items('labs')
  found = [
    (schema.modalities['labs'].items[item].itemid, category if value is None else value)
    for item, value, category, _ in data.events()
  ]
  assert found == [
    ('50931', pytest.approx(5.5 * 18.016)), ('50912', 1.25), ('51487', 1), ('51478', 1),
    ('50920', 42),
  ]  # fmt: skip
  named = {items('vitals')[row.signal].name: row.value
           for row in data.table('grid_vitals').itertuples()}  # fmt: skip
  assert named == {'Temperature': pytest.approx(37), 'Inspired O2 Fraction': 40}


def test_rhythm_and_ectopy_of_mimic_iv(data):
  data.mapping['events'] = {
    'vitals_categorical': {
      'mimic_iv': {'items': 'vitals_categorical', 'codes': ['LAB//{itemid}//{unit}']}
    }
  }
  data.add('LAB//220048//UNK', -2, None, 'AF (Atrial Fibrillation)')
  data.add('LAB//224650//UNK', -1, None, 'PVCs')
  data.add('LAB//224651//UNK', -1, None, 'Frequent')
  data.add('LAB//224651//UNK', 1, None, 'Rare')
  schema = data.stage().schema
  assert schema.modalities['vitals_categorical'].items == items('vitals_categorical')
  named = [
    (schema.modalities['vitals_categorical'].items[item], category, time)
    for item, _, category, time in data.events('vitals_categorical')
  ]
  assert [(i.name, i.categories[k], time) for i, k, time in named] == [
    ('Heart Rhythm', 'AF', -2), ('Ectopy PVCs', 'Frequent', -1),
  ]  # fmt: skip


def test_result_does_not_depend_on_the_shards(data):
  data.labels = [(2, at(1)), (1, at(0)), (2, at(0))]
  data.values = {'boolean_value': [True, False, False]}
  for k in range(12):
    data.add('LAB//crea//mg/dL', -k, 1 + k / 10, subject=1 + k % 2)
  data.stage(shards=1)
  before = data.table('samples'), data.table('events_labs')
  assert before[0][['sample_id', 'subject_id', 'label']].to_numpy().tolist() == [
    [1, 1, 0], [2, 2, 0], [3, 2, 1],
  ]  # fmt: skip
  # Labels in a folder and in another order, data in more files, one without values.
  settings = data.write(shards=3)
  folder = data.folder / 'label_folder'
  folder.mkdir()
  labels = pq.read_table(data.folder / 'labels.parquet')
  pq.write_table(labels.slice(2), folder / 'a.parquet')
  pq.write_table(labels.slice(0, 2), folder / 'b.parquet')
  path = settings.meds / 'data/other.parquet'
  rows = pa.table({'subject_id': [9], 'time': [at(0)], 'code': ['X']})
  pq.write_table(rows, path)
  settings = dataclasses.replace(settings, labels=folder)
  stage('mortality', data.folder / 'staged', settings, Resources(threads=1))
  pd.testing.assert_frame_equal(data.table('samples'), before[0])
  pd.testing.assert_frame_equal(data.table('events_labs'), before[1])


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'subject_id': pa.string()}, r'0.parquet: .*subject_id \(want int64, got string\)'),
    ({'time': pa.timestamp('ns')}, r'time \(want timestamp\[us\], got timestamp\[ns\]\)'),
    ({'time': pa.timestamp('us', 'UTC')}, r'time \(want timestamp\[us\]'),
    ({'numeric_value': pa.float64()}, r'numeric_value \(want float'),
    ({'code': None}, 'Missing required columns: code'),
  ],
)
def test_wrong_data_files(data, change, message):
  data.add('LAB//crea//mg/dL', -1, 1)
  settings = data.write()
  path = settings.meds / 'data/0/0.parquet'
  table = pq.read_table(path)
  for name, kind in change.items():
    column = table[name]
    table = table.drop_columns(name)
    if kind is not None:
      table = table.append_column(name, column.cast(kind))
  pq.write_table(table, path)
  with pytest.raises(DataError, match=message):
    stage('mortality', data.folder / 'staged', settings, Resources())


def test_missing_subject_and_text_types(data):
  for subject in (1, None, 1):
    data.add('LAB//crea//mg/dL', -1, 1, subject=subject)
  settings = data.write()
  path = settings.meds / 'data/0/0.parquet'
  table = pq.read_table(path)
  kinds = {'text_value': pa.string(), 'code': pa.dictionary(pa.int32(), pa.large_string())}
  schema = pa.schema([f.with_type(kinds.get(f.name, f.type)) for f in table.schema])
  pq.write_table(table.cast(schema), path)
  staged = stage('mortality', data.folder / 'staged', settings, Resources())
  assert staged.cohort['rows']['data'] == {
    'read': 3, 'dropped: missing subject_id or code': 1,
    'read: mapped codes of the cohort': 2,
  }  # fmt: skip
  assert len(data.events()) == 1


def test_only_the_data_are_read_of_what_lies_in_the_folder(data):
  data.add('LAB//crea//mg/dL', -1, 1)
  settings = data.write()
  root = settings.meds / 'data'
  for name in ('._0.parquet', '.ipynb_checkpoints/0.parquet', '_temporary/0.parquet'):
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_bytes(b'not data')
  stage('mortality', data.folder / 'staged', settings, Resources())
  assert len(data.events()) == 1


def test_units_of_codes_in_all_spellings(data):
  for hours, unit in enumerate(('mg/dL', 'MG/DL', ' mg/dl', 'µmol/L', 'mcmol/L', 'UMOL/L')):
    data.add(f'LAB//crea//{unit}', -hours - 1, 100.0 if 'ol' in unit.lower() else 1.131)
  data.add('LAB//crea//mmol/L', -9, 1.0)
  counts = data.stage().cohort['rows']['labs']
  assert [round(value, 4) for _, value, _, _ in data.events()] == [1.131] * 6
  assert counts['dropped: unknown unit'] == 1
  assert counts['repaired: unit converted'] == 3


def test_damaged_and_missing_files(data, monkeypatch):
  data.add('LAB//crea//mg/dL', -1, 1)
  settings = data.write()
  path = settings.meds / 'data/0/0.parquet'
  whole, run = (
    path.read_bytes(),
    lambda: stage('los', data.folder / 's', settings, Resources()),
  )
  path.write_bytes(whole[:4] + bytes(len(whole) // 4) + whole[4 + len(whole) // 4 :])
  with pytest.raises(DataError, match=r'data/0/0.parquet: damaged'):
    run()
  path.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(DataError, match=r'data/0/0.parquet: .*truncated'):
    run()
  path.unlink()
  with pytest.raises(DataError, match=r'meds/data: no parquet file'):
    run()
  with pytest.raises(DataError, match=r'--labels=.*no such file'):
    dataclasses.replace(settings, labels=str(data.folder / 'nothing.parquet'))
  for name in ('meds', 'jsonschema'):
    with monkeypatch.context() as without:
      without.setitem(sys.modules, name, None)
      with pytest.raises(DataError, match=rf'needs {name}: .*medm2t_jax\[meds\]'):
        run()


def test_modality_without_any_code(data):
  data.add('LAB//kreatinin//mg/dL', -1, 1)
  with pytest.raises(DataError, match=r'no code of .* belongs to labs'):
    data.stage()


def test_mapping_is_a_flag(data, monkeypatch):
  data.add('LAB//crea//mg/dL', -1, 1)
  given = {'meds': data.write().meds, 'labels': 'labels.parquet', 'mapping': None}
  monkeypatch.chdir(data.folder)
  settings = sources.make_settings('meds', given | {'mapping': 'mapping.yaml'})
  assert settings.mapping == str(data.folder / 'mapping.yaml')
  assert (
    sources.make_settings('meds', given | {'mapping': 'mimic_iv'}).mapping == 'mimic_iv'
  )
  with pytest.raises(
    DataError, match=r'neither a file nor a shipped mapping \(eicu, mimic_iv, mimic_iv_meds'
  ):
    sources.make_settings('meds', given | {'mapping': 'mimic'})
  del given['mapping']
  with pytest.raises(DataError, match='--mapping is missing'):
    sources.make_settings('meds', given)


def grid(item, steps):
  return {'steps': steps, 'step_hours': 1, 'items': [item]}


def _repair(low, high):
  return {'low': low, 'high': high, 'scale': 10, 'reason': 'decimal point'}


def changed(item, **changes):
  return mapping(events={'labs': {'items': [item | changes]}})


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (mapping(window=24), "'window' was unexpected"),
    (mapping(observation_hours=-1), 'observation_hours: -1'),
    ({'observation_hours': 24}, 'neither an event nor a grid'),
    (mapping(events={'Labs': {'items': [CREATININE]}}), 'Labs'),
    (changed(CREATININE, codes=[50912]), r'events.labs.items\[0\].codes\[0\]: 50912'),
    (changed(KETONE, categories=[True]), 'True is not of type'),
    (changed(CREATININE, codes=['LAB//{units}']), r'creatinine: \{units\} is not a place'),
    (changed(CREATININE, codes=['X//{category}']), r'\{category\} has no meaning here'),
    (changed(CREATININE, codes=[{'regex': '('}]), r'creatinine: \(: '),
    (
      changed(CREATININE, codes=[{'code': 'X//{unit}', 'scale': 2}]),
      'scale and offset are not allowed for a code with a unit',
    ),
    (changed(CREATININE, texts={'a': 'b'}), 'texts in a numeric item'),
    (changed(KETONE, low=1), 'low in a categorical item'),
    (changed(KETONE, texts={'x': 'PURPLE'}), 'PURPLE is not one of its categories'),
    (
      changed(CREATININE, units={'umol/L': {'scale': .01131}, 'mcmol/l': {'scale': 1}}),
      "creatinine.units: 'umol/L' and 'mcmol/l' are the same but have different",
    ),
    (changed(CREATININE, units={'MG/DL': {'scale': 2}}), "'MG/DL' and 'mg/dL' are"),
    (changed(KETONE, texts={'A': 'TR', 'a ': 'POS'}), "'a ' and 'A' are the same"),
    (changed(KETONE, texts={'neg': 'TR'}), "'neg' and 'NEG' are the same"),
    (changed(KETONE, numbers={'NEG': [0, 2], 'TR': [1, 3]}), 'two ranges contain 1'),
    (changed(KETONE, numbers={'NEG': [2, 2]}), 'from 2 to 2 is empty'),
    (changed(CREATININE, repairs=[_repair(1, 2), _repair(2, 3)]), 'two ranges contain 2'),
    (changed(CREATININE, repairs=[_repair(2, 1)]), 'from 2 to 1 is empty'),
    (mapping(events={'labs': {'items': [CREATININE] * 2}}), 'creatinine occurs twice'),
    (mapping(grids={'v': grid(TEMPERATURE, 25)}), 'longer than observation_hours'),
    (mapping(grids={'v': grid(KETONE, 24)}), 'ketone is categorical; a grid has numbers'),
    (mapping(attributes={'sex': ['GENDER//F']}), r'without \{category\}'),
  ],
)  # fmt: skip
def test_wrong_mappings(tmp_path, fields, message):
  path = tmp_path / 'mapping.yaml'
  path.write_text(yaml.safe_dump(fields))
  with pytest.raises(DataError, match=f'mapping.yaml: .*{message}'):
    load(path)


def test_documented_mapping(tmp_path):
  text = (Path(__file__).parents[2] / 'docs/sources.md').read_text(encoding='utf-8')
  path = tmp_path / 'mapping.yaml'
  path.write_text(text.split('### The mapping file')[1].split('```yaml')[1].split('```')[0])
  found = load(path)
  assert [one.item.itemid for one in found.events['labs'].variables] == [
    'creatinine', 'ketone_urine',
  ]  # fmt: skip
  assert [*found.grids, *found.attributes] == ['vitals', 'sex']


def test_wrong_yaml(tmp_path):
  path = tmp_path / 'mapping.yaml'
  for text, message in (
    (b'a: [', 'not valid YAML'), (b'a: 1\na: 2', "'a' occurs twice"),
    ('a: µ'.encode('latin-1'), 'not UTF-8 text'),
  ):  # fmt: skip
    path.write_bytes(text)
    with pytest.raises(DataError, match=message):
      load(path)


def test_two_items_of_one_code(data):
  again = CREATININE | {'id': 'again', 'codes': ['LAB//*']}
  data.mapping['events']['labs']['items'] = [CREATININE, again]
  data.add('LAB//crea//mg/dL', -1, 1)
  with pytest.raises(DataError, match='LAB//crea//mg/dL belongs to two items of labs'):
    data.stage()
