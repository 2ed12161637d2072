"""Hospital b of the simulation: other units, sampling, people and prevalence."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from data_pipeline import sources
from data_pipeline.ecg.conditioning import condition
from data_pipeline.ecg.reading import read_record
from data_pipeline.format.schema import DataError
from data_pipeline.sources import Resources, simulated
from data_pipeline.sources.common.items import conversions, items, read_rows
from data_pipeline.sources.common.units import unit_key
from data_pipeline.sources.simulated import (
  best_possible,
  hospitals,
  lab_dictionary,
  latent,
  planted_effects,
  write_hospital,
)

A, B = (hospitals.HOSPITALS[name] for name in 'ab')
PATIENTS, SEED = 100, 2
# of `_content` of five patients of hospital a, seed 1, in VERSION 4
CONTENT_OF_A = '897cff9582f105261ebdd4d1f4683abcc17f1ce3faaab25b035ec1df8a89784a'


def _content(raw: Path) -> str:
  """Hash of all tables, decompressed, and of all recordings."""
  found = hashlib.sha256()
  for path in sorted(raw.glob('mimic-iv*/**/*.*')):
    data = path.read_bytes()
    found.update(str(path.relative_to(raw)).encode())
    found.update(gzip.decompress(data) if path.suffix == '.gz' else data)
  return found.hexdigest()


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
  """{a,b}/raw and {a,b}/staging: both hospitals without ECGs, staged for mortality."""
  root = tmp_path_factory.mktemp('hospitals')
  for name in 'ab':
    values = {'patients': PATIENTS, 'seed': SEED, 'hospital': name, 'ecgs': False}
    settings = sources.make_settings('simulated', {**values, 'raw': root / name / 'raw'})
    (root / name / 'staging').mkdir(parents=True)
    staged = simulated.stage('mortality', root / name / 'staging', settings, Resources())
    (root / name / 'rows.json').write_text(json.dumps(staged.cohort['rows']))
    (root / name / 'modalities.json').write_text(json.dumps(staged.schema.names))
  return root


@pytest.fixture(scope='module')
def query(folder):
  """Runs SQL over a raw table of a hospital, which {table} stands for."""

  def run(name: str, table: str, text: str) -> list[tuple]:
    file = next((folder / name / 'raw/mimic-iv').glob(f'*/{table}.csv.gz'))
    with duckdb.connect() as database:
      return database.execute(text.format(table=f"read_csv('{file}')")).fetchall()

  return run


def _staged(folder: Path, name: str, table: str) -> pd.DataFrame:
  return pd.read_parquet(folder / name / 'staging' / f'{table}.parquet')


def test_hospital_a_stays_what_it_is(tmp_path):
  """Another content is another VERSION of the simulation."""
  write_hospital(tmp_path / 'raw', patients=5, seed=1)
  assert _content(tmp_path / 'raw') == CONTENT_OF_A


@pytest.mark.parametrize('table', ['labevents', 'chartevents'])
def test_every_row_states_its_unit(query, table):
  found = query(
    'b', table, 'select distinct itemid, valueuom from {table} where valuenum is not null'
  )
  stated = {item: {unit for i, unit in found if i == item} for item, _ in found}
  converted = stated.keys() & B.units.keys()
  assert len(converted) > 25
  for item in converted:
    assert stated[item] == {B.units[item].text}, item
  texts = query(
    'b', table, 'select distinct itemid, valueuom from {table} where valuenum is null'
  )
  for item, unit in texts:
    assert item not in B.units or unit == B.units[item].text


def test_items_of_the_dictionary_have_the_unit_of_their_rows(query):
  names = dict(query('b', 'd_items', 'select itemid, unitname from {table}'))
  assert names[220228] == 'g/L' and names[220235] == 'kPa' and names[220045] == 'bpm'
  names = dict(query('a', 'd_items', 'select itemid, unitname from {table}'))
  assert names[220228] == 'g/dl' and names[220235] == 'mmHg'


def test_units_are_those_that_the_staging_converts_back():
  """Item by item, against the pipeline's table of units."""
  of = {
    item.itemid: item
    for modality in ('labs', 'cvd_labs', 'vitals')
    for item in items(modality)
  }
  merged = {int(row['itemid']): row['item'] for row in read_rows('item_map')}
  labs = lab_dictionary.numeric_items()
  base = dict(zip(labs.itemid.tolist(), labs.unit, strict=True))
  base |= {
    int(row['itemid']): row['unit'] for row in lab_dictionary.read_table('chart_items.csv')
  }
  for itemid, unit in B.units.items():
    known = conversions(of[merged[itemid]])
    scale, offset = known[unit_key(unit.text)]
    before, _ = known.get(unit_key(base[itemid]), (1.0, 0.0))
    assert scale * unit.factor == pytest.approx(before, rel=0.005), itemid
    assert offset == 0


def test_copies_in_chartevents_have_the_unit_of_the_laboratory():
  labs = lab_dictionary.numeric_items()
  charted = {}
  for itemid, chart in zip(labs.itemid.tolist(), labs.chart.tolist(), strict=True):
    if chart >= 0:
      assert B.units.get(itemid) == B.units.get(chart), itemid
      charted[chart] = itemid
  chart_only = {225664, 220224, 220235, 226062, 226063, 223679, 225698}
  in_chart = {item for item in B.units if item > 200_000}
  assert in_chart == chart_only | (charted.keys() & B.units.keys())


def test_rounding_keeps_every_two_values_apart():
  labs = lab_dictionary.numeric_items()
  for itemid, decimals in zip(labs.itemid.tolist(), labs.decimals.tolist(), strict=True):
    values = np.arange(1, 500) / 10**decimals
    stated = hospitals.stated(B, np.full(len(values), itemid), values)
    assert len(np.unique(stated)) == len(values), itemid


def test_ranges_and_flags_are_in_the_unit_of_the_value(query):
  select = """select count(*), avg(cast(((valuenum < ref_range_lower) or
    (valuenum > ref_range_upper)) = (coalesce(flag, '') = 'abnormal') as double))
    from {table} where ref_range_lower is not null and valuenum is not null"""
  rows, right = query('b', 'labevents', select)[0]
  assert rows > 10_000 and right > 0.998
  glucose = query(
    'b',
    'labevents',
    'select median(valuenum), any_value(ref_range_lower) from {table} where itemid=50931',
  )
  assert 5.5 < glucose[0][0] < 9 and glucose[0][1] == pytest.approx(3.88, abs=0.01)


def test_notes_name_values_in_the_unit_of_the_hospital(query):
  select = """select distinct comments from {table}
    where itemid in (50931, 50920) and comments like '%{{}}%'"""
  for name, glucose, creatinine in (
    ('a', '70-100 NORMAL', 'value of 1.0, .'),
    ('b', '3.9-5.6 NORMAL', 'value of 88 umol/L, .'),
  ):
    found = query(name, 'labevents', select.replace('{{}}', 'IF FASTING'))
    assert len(found) == 1 and glucose in found[0][0]
    found = [text for (text,) in query(name, 'labevents', select.replace('{{}}', 'GFR'))]
    assert any(creatinine in text for text in found)
    assert {'umol/L' in text for text in found} == {name == 'b'}


def _medians(table: pd.DataFrame, key: str, least: int) -> Any:
  groups = table.dropna(subset='value').groupby(key)['value']
  return groups.median()[groups.size() >= least]


def test_prepared_values_are_those_of_the_same_world(folder):
  """A wrong unit would be a factor of at least two."""
  stated = {
    row['item'] for row in read_rows('item_map') if int(row['itemid']) in B.units
  } - {'50802'}  # base excess, which is around 0
  for table, key, modality, wanted, known in (
    ('events_labs', 'item', 'labs', stated, 26),
    ('grid_vitals', 'signal', 'vitals', {item.itemid for item in items('vitals')}, 8),
  ):
    one, other = (_medians(_staged(folder, name, table), key, 20) for name in 'ab')
    ratio = (other / one).dropna()
    ratio = ratio[[items(modality)[i].itemid in wanted for i in ratio.index]]
    assert len(ratio) >= known
    assert ratio.between(0.6, 1.6).all(), ratio
  rows = json.loads((folder / 'b/rows.json').read_text())
  for table in ('labevents', 'chartevents'):
    assert rows[table]['repaired: unit converted'] > 500
    assert 'dropped: unknown unit' not in rows[table]
    read = rows[table]['read: wanted items of the cohort']
    assert rows[table].get('dropped: outside physiologic limits', 0) < read / 1000


def test_temperatures_are_charted_in_celsius(query):
  select = 'select count(*) from {table} where itemid = '
  count = {
    (name, item): query(name, 'chartevents', f'{select}{item}')[0][0]
    for name in 'ab'
    for item in (223761, 223762)
  }
  assert count['a', 223761] > count['a', 223762] > 0
  assert count['b', 223761] == 0 and count['b', 223762] > 100


def test_a_stay_has_fewer_observations(folder, query):
  per_hour = {}
  for name in 'ab':
    rows = query(name, 'chartevents', 'select count(*) from {table} where itemid = 220045')
    days = query(name, 'icustays', 'select sum(los) from {table}')
    labs = _staged(folder, name, 'events_labs').groupby('sample_id').size().mean()
    per_hour[name] = (rows[0][0] / days[0][0], labs)
  for one, other in zip(*per_hour.values(), strict=True):
    assert 0.35 < other / one < 0.75


def test_there_is_no_ecg(folder):
  for name in 'ab':
    modalities = json.loads((folder / name / 'modalities.json').read_text())
    assert 'ecg' not in modalities and 'labs' in modalities
    assert not (folder / name / 'staging/recordings.parquet').exists()


def test_ecgs_of_b_are_recorded_at_another_rate(tmp_path):
  write_hospital(tmp_path / 'raw', patients=8, seed=1, hospital='b')
  signals = []
  for path in sorted((tmp_path / 'raw/mimic-iv-ecg').rglob('*.hea')):
    if path.with_suffix('.dat').stat().st_size == 2 * 12 * 2500:
      signals.append(read_record(path.with_suffix('')))
  assert len(signals) > 5
  for signal, rate in signals:
    assert rate == 250 and signal.shape == (2500, 12)
  conditioned, _ = condition(*signals[0])
  assert conditioned.shape == (1250, 12)


@pytest.mark.parametrize('task', ['cvd', 'cvd_all'])
def test_tasks_of_ecgs_need_them(tmp_path, task):
  settings = simulated.Settings(patients=2, ecgs=False, raw=tmp_path / 'raw')
  with pytest.raises(
    DataError, match=f'^task {task} predicts from ECGs; leave out --noecgs'
  ):
    simulated.stage(task, tmp_path, settings, Resources())
  assert not (tmp_path / 'raw').exists()


def test_no_subject_is_in_two_hospitals():
  most = 50_000
  numbers = [
    latent.subject_id(seed, index, hospital)
    for hospital in (A, B)
    for seed in (0, 1, 2, 98)
    for index in range(most)
  ]
  assert len(set(numbers)) == len(numbers)
  assert min(numbers) >= 10_000_000 and max(numbers) < 20_000_000


def test_patients_of_b_are_not_copies_of_those_of_a():
  for seed, index in ((0, 0), (1, 0), (1, 5)):
    one, other = (latent.simulate_patient(seed, index, each) for each in (A, B))
    assert one.subject_id != other.subject_id
    assert not set(one.traits) & set(other.traits)
  for stream in latent.STREAMS:
    one, other = (latent.generator(3, 1, stream, each).random() for each in (A, B))
    assert one != other


def test_people_and_prevalence():
  count = 1200
  people = {
    name: [latent.simulate_patient(0, index, each) for index in range(count)]
    for name, each in (('a', A), ('b', B))
  }
  ages, women = (
    {name: np.mean([getattr(p, field) for p in each]) for name, each in people.items()}
    for field in ('age', 'female')
  )
  assert ages['b'] - ages['a'] > 5 and women['b'] - women['a'] > 0.07
  stays = {name: best_possible.first_stays(0, count, name) for name in 'ab'}
  deaths = {name: each['died'].mean() for name, each in stays.items()}
  assert 0.1 < deaths['a'] < 0.16 and 0.05 < deaths['b'] < 0.095
  assert stays['b']['days'].mean() < 0.95 * stays['a']['days'].mean()
  disease = {
    name: np.mean([a.cvd_class > 0 for p in each for a in p.admissions])
    for name, each in people.items()
  }
  assert disease['b'] < 0.9 * disease['a']


def test_races_and_insurances(query):
  share = {
    name: query(name, 'admissions', "select avg(cast(race = 'WHITE' as int)) from {table}")[
      0
    ][0]
    for name in 'ab'
  }
  assert share['a'] - share['b'] > 0.1
  medicare = "select avg(cast(insurance = 'Medicare' as int)) from {table}"
  assert query('b', 'admissions', medicare) > query('a', 'admissions', medicare)


def test_causes_are_as_strong_in_both(folder):
  effects = {name: planted_effects(name) for name in 'ab'}
  assert planted_effects() == effects['a']
  for outcome in ('mortality', 'length_of_stay'):
    one, other = (dict(effects[name].pop(outcome)) for name in 'ab')
    assert one.pop('intercept') > other.pop('intercept')
    assert one == other
  one, other = (effects[name].pop('cvd') for name in 'ab')
  for name in one:
    assert one[name][0] > other[name][0] and one[name][1] == other[name][1]
  assert effects['a'] == effects['b']
  for name in 'ab':
    manifest = json.loads((folder / name / 'raw/simulated.json').read_text())
    assert manifest['hospital'] == name
    assert manifest['planted'] == planted_effects(name)


@pytest.mark.parametrize(('there', 'asked'), ['ba', 'ab'])
def test_a_folder_of_the_other_hospital_is_refused(tmp_path, there, asked):
  write_hospital(tmp_path / 'raw', patients=1, seed=1, ecg=False, hospital=there)
  with pytest.raises(DataError, match=rf'hospital is {there}, asked for {asked}\.'):
    write_hospital(tmp_path / 'raw', patients=1, seed=1, ecg=False, hospital=asked)


def test_a_folder_from_before_there_was_another_is_hospital_a(tmp_path):
  arguments = {'patients': 1, 'seed': 1, 'ecg': False}
  write_hospital(tmp_path / 'raw', **arguments)
  manifest = tmp_path / 'raw/simulated.json'
  found = json.loads(manifest.read_text())
  del found['hospital']
  manifest.write_text(json.dumps(found))
  write_hospital(tmp_path / 'raw', **arguments)
  with pytest.raises(DataError, match='hospital is a, asked for b'):
    write_hospital(tmp_path / 'raw', **arguments, hospital='b')


def test_other_names_are_refused(tmp_path):
  with pytest.raises(DataError, match='hospital=c: choose one of a, b'):
    write_hospital(tmp_path / 'raw', patients=1, seed=1, hospital='c')
  with pytest.raises(DataError, match='--hospital=c: give one of a, b'):
    sources.make_settings('simulated', {'hospital': 'c'})


def test_data_sets_of_hospital_a_keep_their_request():
  """So that those of before there was another are found again."""
  usual = sources.recorded(simulated.Settings())
  assert usual == sources.recorded(simulated.Settings(hospital='a', ecgs=True))
  assert not usual.keys() & {'hospital', 'ecgs'}
  other = sources.recorded(simulated.Settings(hospital='b', ecgs=False))
  assert other == {**usual, 'hospital': 'b', 'ecgs': False}
