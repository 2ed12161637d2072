"""The shipped mappings: a model of the source that they follow meets every variable."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import meds
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from data_pipeline.format.modalities import Events, Grid, Static
from data_pipeline.format.schema import DataError, Schema
from data_pipeline.reading.alignment import Alignment
from data_pipeline.sources import Resources, physionet2012
from data_pipeline.sources.common import targets, vitals
from data_pipeline.sources.common.items import items, static_items
from data_pipeline.sources.meds import stage
from data_pipeline.sources.meds.mapping import FOLDER, load, path_of, shipped
from tests.sources.meds_test import DataSet

OF_MIMIC_IV = ('eicu', 'mimic_iv', 'mimic_iv_meds', 'omop_loinc')
UNTESTED = ('eicu', 'mimic_iv_meds', 'omop_loinc')


def mimic_schema():
  """That of the mortality task on raw tables, without ECGs."""
  static = static_items('icu')
  return Schema(
    task='mortality',
    source='mimic_iv',
    target=targets.MORTALITY,
    modalities={
      'static': Static(
        tuple(item for item in static if item.kind == 'numeric'),
        tuple(item for item in static if item.kind == 'categorical'),
      ),
      'labs': Events(items('labs')),
      'vitals_categorical': Events(items('vitals_categorical')),
      'vitals': Grid(items('vitals'), vitals.grid_steps(24), vitals.GRID_STEP_HOURS),
    },
    attributes=(),
    observation_hours=24.0,
  )


class Rows(DataSet):
  """Hand-made rows in the codes of a shipped mapping."""

  def __init__(self, folder: Path, name: str):
    super().__init__(folder)
    self.name, self.units = name, []

  def put(self, code, number=None, hours=-1.0, text=None, unit=None):
    self.add(code, hours, number, text)
    self.units.append(unit)

  def stage(self, shards=1, **column):
    settings = dataclasses.replace(self.write(shards), mapping=self.name)
    if column:
      path = settings.meds / 'data/0/0.parquet'
      [(name, kind)] = column.items()
      table = pq.read_table(path).append_column(name, pa.array(self.units, kind))
      pq.write_table(table, path)
    out = self.folder / 'staged'
    return stage('mortality', out, settings, Resources(memory_limit='1GB', threads=1))

  def found(self, staged):
    """Item -> numbers of laboratory results and of the grid, None for a category."""
    result = {}
    labs = [item.itemid for item in staged.schema.modalities['labs'].items]
    for index, value, *_ in self.events('labs'):
      value = None if value is None else round(value, 4)
      result.setdefault(labs[index], []).append(value)
    signals = [item.itemid for item in staged.schema.modalities['vitals'].items]
    for row in self.table('grid_vitals').itertuples():
      result.setdefault(signals[row.signal], []).append(round(row.value, 4))
    return result


def test_every_shipped_mapping_is_held_against_a_source_and_says_where_it_is_from():
  assert {*shipped()} == {*OF_MIMIC_IV, 'physionet2012'}
  for name in shipped():
    text = (FOLDER / f'{name}.yaml').read_text(encoding='utf-8')
    header = text[: text.index('observation_hours')]
    assert ('Not tested on real data' in header) == (name in UNTESTED), name
    assert name not in UNTESTED or 'Codes: ' in header


@pytest.mark.parametrize('name', OF_MIMIC_IV)
def test_every_item_is_one_of_mimic_iv(name):
  """By id, unit, limits and categories: read by a model, scaled and limited alike."""
  chosen = load(path_of(name))
  for modality, of in chosen.events.items():
    known = {item.itemid: item for item in items(modality)}
    for one in of.variables:
      assert one.item == known[one.item.itemid]
  known = {item.itemid: item for item in items('vitals')}
  grid = chosen.grids['vitals']
  assert {one.item.itemid: one.item for one in grid.variables} == known
  assert (grid.steps, grid.step_hours) == (vitals.grid_steps(24), vitals.GRID_STEP_HOURS)
  known = {item.itemid: item for item in static_items('icu')}
  assert all(one.item == known[one.item.itemid] for one in chosen.static)
  assert chosen.age == 'age' and chosen.birth == meds.birth_code
  assert chosen.observation_hours == 24


@pytest.mark.parametrize('name', OF_MIMIC_IV)
def test_conversions_keep_what_the_source_has(name):
  """Further spellings may be there; those of units.csv are not changed."""
  chosen = load(path_of(name))
  labs = {
    one.item.itemid: one for one in load(path_of('mimic_iv')).events['labs'].variables
  }
  for one in chosen.events['labs'].variables:
    base = labs[one.item.itemid]
    assert base.units.items() <= one.units.items()
    assert one.repairs == base.repairs and one.numbers == base.numbers
    assert set(one.units.values()) <= {(1.0, 0.0), *base.units.values()}


def meets_a_model(schema):
  """Checks that a model of MIMIC-IV knows all that there is; returns what is absent."""
  alignment = Alignment(mimic_schema(), schema)
  assert not alignment.ignored and not alignment.notes
  assert {'labs', 'vitals', 'static'} <= {*alignment.modalities}
  return {(one.modality, one.code) for one in alignment.absent}


def test_mimic_iv_meds(tmp_path):
  data = Rows(tmp_path, 'mimic_iv_meds')
  data.put('GENDER//F', hours=None)
  data.put(meds.birth_code, hours=-24 * 365.25 * 60)
  data.put('HOSPITAL_ADMISSION//EW EMER.//EMERGENCY ROOM', hours=-30)
  data.put('LAB//SPECIMEN_COLLECTED//50912//ROUTINE', hours=-4)
  data.put('LAB//RESULT//50912//mg/dL', 1.2, text='1.2')
  data.put('LAB//RESULT//51478//mg/dL', text='NEG')
  data.put('LAB//220045//bpm', 80)
  data.put('LAB//223761//°F', 98.6)
  data.put('LAB//227442//mEq/L', 4.5)  # charted, and the same item as 50971
  data.put('LAB//220048//UNK', text='AF (Atrial Fibrillation)')
  staged = data.stage()
  assert meets_a_model(staged.schema) == set()
  assert Alignment(mimic_schema(), staged.schema).identical
  static = data.table('static').iloc[0]
  assert (static.gender, static.admission_location) == ('F', 'EMERGENCY ROOM')
  assert round(static.age) == 60
  assert data.found(staged) == {
    '50912': [1.2], '50971': [4.5], '51478': [None], '220045': [80], '223762': [37],
  }  # fmt: skip
  assert data.events('vitals_categorical')[0][2] == 4  # AF


def test_eicu(tmp_path):
  data = Rows(tmp_path, 'eicu')
  data.put('GENDER//Female', hours=None)
  data.put(meds.birth_code, hours=-24 * 365.25 * 60)
  data.put('HOSPITAL_ADMISSION//Emergency Department//South//f//>= 500', hours=-30)
  data.put('ICU_ADMISSION//Floor//admit', hours=-24)
  data.put('LAB//SPECIMEN_DRAWN//creatinine//mg/dL', hours=-3)
  for name, number in {
    'creatinine//mg/dL': 1.2, 'platelets x 1000//K/mcL': 250, 'RBC//M/mcL': 4.5,
    'ALT (SGPT)//Units/L': 30, 'PT - INR//ratio': 1.1, 'ionized calcium//mg/dL': 4.8,
    'sodium//mmol/L': 140, 'pH//UNK': 7.4, 'paO2//mm Hg': 90, '-polys//%': 70,
    'anion gap//UNK': 12, 'FiO2//%': 0.4, 'troponin - I//ng/mL': 3,
    'bicarbonate//furlong': 24,
  }.items():  # fmt: skip
    data.put(f'LAB//RESULT//{name}', number)
  data.put('VITALS//PERIODIC//HEARTRATE', 80)
  data.put('VITALS//PERIODIC//TEMPERATURE', 37.5)
  data.put('VITALS//APERIODIC//BP//NONINVASIVE_MEAN', 70)
  data.put('VITALS//PERIODIC//BP//SYSTEMIC_MEAN', 74)
  data.put('VITALS//PERIODIC//SAO2', 97)
  staged = data.stage()
  absent = meets_a_model(staged.schema)
  assert ('labs', '50920') in absent and ('static', 'admission_type') in absent
  assert len([name for name, _ in absent if name == 'labs']) == 26
  static = data.table('static').iloc[0]
  assert (static.gender, static.admission_location) == ('F', 'EMERGENCY ROOM')
  assert data.table('samples').unit.tolist() == ['admit']
  assert data.found(staged) == {
    '50912': [1.2], '51265': [250], '51279': [4.5], '50861': [30], '51237': [1.1],
    '50808': [round(4.8 * 0.2495, 4)], '50983': [140], '223830': [7.4], '220224': [90],
    '51256': [70], '50868': [12], '223835': [40],
    '220045': [80], '223762': [37.5], '220181': [72], '220277': [97],
  }  # fmt: skip
  assert staged.cohort['rows']['labs']['dropped: unknown unit'] == 1


LOINC = [
  # code, number, unit as text, OMOP concept of it, item, value
  ('2160-0', 1.2, 'mg/dL', '8840', '50912', 1.2),
  ('14682-9', 100, 'umol/L', '8749', '50912', 1.131),
  ('14682-9', 200, None, None, '50912', 2.262),
  ('6690-2', 9.5, '10*3/uL', '8848', '51301', 9.5),
  ('777-3', 250, '10*9/L', '9444', '51265', 250),
  ('789-8', 4.5, '10*6/uL', '8815', '51279', 4.5),
  ('718-7', 140, 'g/L', '8636', '51222', 14),
  ('4544-3', 0.4, 'L/L', '44777604', '51221', 40),
  ('6301-6', 1.1, '{INR}', '0', '51237', 1.1),
  ('2744-1', 7.4, '[pH]', '8482', '223830', 7.4),
  ('2703-7', 12, 'kPa', '44777602', '220224', 90.0074),
  ('67151-1', 14, 'ng/L', '8725', '51003', 0.014),
  ('5902-2', 12, 's', '8555', '51274', 12),
  ('1742-6', 30, 'U/L', '8645', '50861', 30),
  ('8867-4', 80, '/min', '8541', '220045', 80),
  ('8310-5', 98.6, '[degF]', '9289', '223762', 37),
  ('8478-0', 70, 'mm[Hg]', '8876', '220181', 70),
  ('59408-5', 97, '%', '8554', '220277', 97),
  # Units that are not known to be those of the quantity.
  ('2951-2', 140, 'mg', '8576', None, None),
  ('2823-3', 4.0, 'No matching concept', '0', None, None),
]


@pytest.mark.parametrize('etl', ['meds_etl', 'meds_etl with concepts', 'OMOP_MEDS'])
def test_omop_loinc(tmp_path, etl):
  data = Rows(tmp_path, 'omop_loinc')
  slashes = '//' if etl == 'OMOP_MEDS' else '/'
  gender = 'GENDER//F' if etl == 'OMOP_MEDS' else 'Gender/F'
  data.put(gender, hours=None)
  data.put(meds.birth_code, hours=-24 * 365.25 * 60)
  expected = {}
  for code, number, text, concept, itemid, value in LOINC:
    unit = {'meds_etl': text, 'OMOP_MEDS': concept}.get(etl, text and f'UCUM/{text}')
    data.put(f'LOINC{slashes}{code}', number, unit=unit)
    if itemid is not None:
      expected.setdefault(itemid, []).append(value)
  kind = pa.string()
  if etl == 'OMOP_MEDS':  # a column of whole numbers with nulls
    data.units = [None if unit is None else float(unit) for unit in data.units]
    kind = pa.float64()
  staged = data.stage(unit=kind)
  assert len([one for one in meets_a_model(staged.schema) if one[0] == 'labs']) == 14
  found = data.found(staged)
  assert {name: sorted(values) for name, values in found.items()} == {
    name: sorted(values) for name, values in expected.items()
  }
  assert staged.cohort['rows']['labs']['dropped: unknown unit'] == 2
  assert data.table('static').gender.tolist() == ['F']
  assert data.table('samples').sex.tolist() == ['F']


def test_without_the_unit_column_nothing_is_guessed(tmp_path):
  data = Rows(tmp_path, 'omop_loinc')
  data.put('LOINC/2160-0', 1.2)
  with pytest.raises(DataError, match=r"no file has the column 'unit' that the mapping"):
    data.stage()


def test_a_unit_column_of_a_users_mapping(tmp_path):
  item = {'id': 'crea', 'unit': 'mg/dL', 'units': {'umol/L': {'scale': 0.01131}}}
  item['codes'] = ['CREA*', {'code': 'KREA', 'unit': 'umol/L'}]
  fields = {'observation_hours': 24, 'events': {'labs': {'items': [item]}}}
  fields['unit_column'] = 'measured in'
  data = Rows(tmp_path, str(tmp_path / 'own.yaml'))
  (tmp_path / 'own.yaml').write_text(yaml.safe_dump(fields))
  data.put('CREA', 1, -4, unit='mg/dL')
  data.put('CREA', 100, -3, unit=' µmol/L ')
  data.put('CREA', 3, -2, unit='')
  data.put('KREA', 200, -1)
  data.put('CREA', 5, -1, unit='mmol/L')
  staged = data.stage(**{'measured in': pa.string()})
  assert [value for _, value, *_ in data.events()] == pytest.approx([1, 1.131, 3, 2.262])
  counts = staged.cohort['rows']['labs']
  assert counts['dropped: unknown unit'] == 1
  assert counts['repaired: unit converted'] == 2


CREA = {'id': '50912', 'mimic_iv': 'labs', 'codes': ['CREA']}


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (CREA | {'id': '5'}, 'labs.5: labs of MIMIC-IV has no such item'),
    (CREA | {'unit': 'mg/dL', 'low': 1}, r"low, unit of an item that is MIMIC-IV's"),
    (CREA | {'mimic_iv': 'icu', 'id': 'age'}, 'icu has no items for this place'),
    (CREA | {'texts': {'a': 'b'}}, 'texts in a numeric item'),
    (CREA | {'units': {'umol/L': {'scale': 1}}}, "'umol/L' and 'umol/l' are the same"),
    (CREA | {'id': '51487', 'units': {'x': {}}}, 'units in a categorical item'),
    (CREA | {'id': '51487', 'texts': {'x': 'Y'}}, 'Y is not one of its categories'),
    (CREA | {'codes': ['X//{unit}']}, r'a code with \{unit\}, scale or offset, although'),
    (CREA | {'codes': [{'code': 'X', 'scale': 2}]}, r'a code with \{unit\}, scale'),
  ],
)
def test_wrong_entries(tmp_path, fields, message):
  path = tmp_path / 'own.yaml'
  labs = {'labs': {'items': [fields]}}
  mapping = {'observation_hours': 24, 'unit_column': {'name': 'unit'}, 'events': labs}
  path.write_text(yaml.safe_dump(mapping))
  with pytest.raises(DataError, match=f'own.yaml: .*{message}'):
    load(path)
  automatic = {'codes': ['LAB//*'], 'min_subjects': 1}
  mapping['events'] = {'labs': {'items': [CREA], 'automatic': automatic}}
  path.write_text(yaml.safe_dump(mapping))
  with pytest.raises(
    DataError,
    match=r'events\.labs\.automatic: with unit_column a code may have several units',
  ):
    load(path)


def test_the_variables_of_physionet_2012_are_that_sources():
  """All of them but those that MIMIC-IV does not chart so."""
  chosen = load(path_of('physionet2012'))
  source = physionet2012.schema('mortality')
  of = {
    'events': [one.item for one in chosen.events['events'].variables],
    'vitals': [one.item for one in chosen.grids['vitals'].variables],
    'static': [one.item for one in chosen.static],
  }
  missing = {
    'events': {'GCS', 'MechVent', 'TroponinI'},
    'vitals': {'GCS'},
    'static': {'Age'},
  }
  for name, found in of.items():
    theirs = {item.itemid: item for item in source.variables(name)}
    assert {item.itemid: item for item in found}.items() <= theirs.items()
    assert theirs.keys() - {item.itemid for item in found} == missing[name]
  grid, theirs = chosen.grids['vitals'], source.modalities['vitals']
  assert (grid.steps, grid.step_hours) == (theirs.steps, theirs.step_hours)
  assert chosen.observation_hours == source.observation_hours
  assert chosen.age in {item.itemid for item in source.modalities['static'].numeric}
