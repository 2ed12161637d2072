"""The MEDS edition of the open demo gives what the raw tables of the demo give."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from data_pipeline.preparation.build import prepare
from data_pipeline.reading.alignment import Alignment
from data_pipeline.sources import Resources, meds, mimic_iv, physionet2012
from data_pipeline.sources.common.items import read_rows
from tests.sources.meds_ecg_test import samples_of

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / '../shared/data'
ECG = DATA / 'mimic-iv-ecg-grafted'
MEDS, RAW = DATA / 'mimic-iv-demo-meds', DATA / 'mimic-iv-demo'
pytestmark = pytest.mark.skipif(
  not (MEDS.exists() and RAW.exists()), reason='the demo is not at ../shared/data'
)


@pytest.fixture(scope='module')
def staged(tmp_path_factory):
  """(folder, Staged) of the raw tables and of the MEDS edition."""
  folders = [tmp_path_factory.mktemp(name) for name in ('raw', 'meds')]
  labels = MEDS / 'labels/in_hospital_mortality.parquet'
  settings = (
    mimic_iv.Settings(mimic_iv=RAW),
    meds.Settings(meds=MEDS, labels=labels, mapping='mimic_iv'),
  )
  results = [
    source.stage('mortality', folder, of, Resources())
    for source, folder, of in zip((mimic_iv, meds), folders, settings, strict=True)
  ]
  return tuple(zip(folders, results, strict=True))


def both(staged, name):
  """A table of both sources, by subject: sample ids differ."""
  for folder, _ in staged:
    samples = pd.read_parquet(folder / 'samples.parquet')
    table = pd.read_parquet(folder / f'{name}.parquet')
    columns = {'sample_id', 'subject_id', 'prediction_time'} - {*table} | {'sample_id'}
    table = table.merge(samples[sorted(columns)], on='sample_id')
    yield table.drop(columns='sample_id').sort_values('subject_id', ignore_index=True)


def test_items_and_samples(staged):
  raw, found = (result.schema for _, result in staged)
  others = [{**each.modalities, 'static': None} for each in (found, raw)]
  assert others[0] == others[1]
  categorical = [each.modalities['static'].categorical for each in (found, raw)]
  assert categorical[0] == categorical[1]
  assert found.target == raw.target
  assert found.observation_hours == raw.observation_hours
  of_raw, of_meds = both(staged, 'samples')
  assert len(of_meds) == 44
  same = ['subject_id', 'prediction_time', 'label', 'sex', 'admission_type', 'unit']
  pd.testing.assert_frame_equal(of_meds[same], of_raw[same])
  # MEDS has a birth date, which counts fractions of a year.
  np.testing.assert_array_equal(np.floor(of_meds.age), of_raw.age)


def test_static_columns(staged):
  of_raw, of_meds = both(staged, 'static')
  same = ['subject_id', 'gender', 'admission_type', 'admission_location']
  pd.testing.assert_frame_equal(of_meds[same], of_raw[same])


def test_vitals_grid(staged):
  order = ['subject_id', 'step', 'signal', 'value']
  of_raw, of_meds = (
    table[order].sort_values(order, ignore_index=True)
    for table in both(staged, 'grid_vitals')
  )
  assert len(of_raw) > 8000
  pd.testing.assert_frame_equal(of_meds, of_raw)
  rows = [result.cohort['rows'] for _, result in staged]
  assert rows[1]['vitals']['repaired: unit converted'] > 0
  same = 'observations averaged'
  assert rows[0]['vitals'][same] == rows[1]['vitals'][same]


def test_labs(staged):
  key = ['subject_id', 'item', 'value', 'category', 'time']
  of_raw, of_meds = both(staged, 'events_labs')
  assert not of_meds.duplicated(key).any()
  found = of_raw.merge(of_meds, on=key, how='outer', indicator='where')
  # Everything that MEDS has is in the raw tables, to the last bit.
  assert (found['where'] != 'right_only').all()
  assert (found['where'] == 'both').sum() == len(of_meds) > 3500
  # What only the raw tables have are results in words: this edition has numbers alone.
  only_raw = found[found['where'] == 'left_only'].merge(
    of_raw[['subject_id', 'prediction_time']].drop_duplicates(), on='subject_id'
  )
  only_raw['itemid'] = [
    staged[0][1].schema.modalities['labs'].items[index].itemid for index in only_raw['item']
  ]
  seconds = (only_raw.time.astype(float) * 3600).round()
  only_raw['charttime'] = only_raw.prediction_time + pd.to_timedelta(seconds, unit='s')
  merged = {
    int(row['itemid']): row['item'] for row in read_rows('item_map')
    if row['modality'] == 'labs' and row['table'] == 'labevents'
  }  # fmt: skip
  texts = pd.read_csv(
    RAW / 'hosp/labevents.csv.gz', low_memory=False, parse_dates=['charttime'],
    usecols=['subject_id', 'itemid', 'charttime', 'valuenum'],
  )  # fmt: skip
  texts = texts[texts.valuenum.isna() & texts.itemid.isin(merged)]
  texts['itemid'] = texts.itemid.map(merged)
  key = ['subject_id', 'itemid', 'charttime']
  explained = only_raw.merge(texts[key].drop_duplicates(), on=key)
  assert len(explained) == len(only_raw) < 200
  dropped = staged[1][1].cohort['rows']['labs']['dropped: no value']
  assert len(only_raw) <= dropped


def test_a_stay_of_the_demo_as_physionet_2012_has_it(tmp_path):
  """Medians in the units of that source, and its names of ICUs."""
  labels = MEDS / 'labels/in_hospital_mortality.parquet'
  settings = meds.Settings(meds=MEDS, labels=labels, mapping='physionet2012')
  found = meds.stage('mortality', tmp_path, settings, Resources()).schema
  alignment = Alignment(physionet2012.schema('mortality'), found)
  assert {one.code for one in alignment.absent} == {'GCS', 'MechVent', 'TroponinI'}
  assert not alignment.ignored and not alignment.notes
  events = pd.read_parquet(tmp_path / 'events_events.parquet')
  names = [item.itemid for item in found.modalities['events'].items]
  median = events.groupby(events['item'].map(dict(enumerate(names))))['value'].median()
  low = {'Temp': 36, 'FiO2': 0.3, 'pH': 7.3, 'PaCO2': 30, 'HR': 70, 'Creatinine': 0.5}
  high = {'Temp': 38, 'FiO2': 0.6, 'pH': 7.5, 'PaCO2': 50, 'HR': 100, 'Creatinine': 2}
  for name in low:
    assert low[name] < median[name] < high[name], name
  static = pd.read_parquet(tmp_path / 'static.parquet')
  assert set(static['ICUType'].dropna()) == set(
    next(
      i for i in found.modalities['static'].categorical if i.itemid == 'ICUType'
    ).categories
  )
  assert static['Age'].between(18, 100).all()


@pytest.fixture(scope='module')
def ecg_table(tmp_path_factory):
  """The table that docs/sources.md makes of a folder of MIMIC-IV-ECG."""
  if not ECG.exists():
    pytest.skip('the ECGs of the demo are not at ../shared/data')
  text = (ROOT / 'docs/sources.md').read_text(encoding='utf-8')
  block = text.split('### ECGs beside MEDS')[1].split('```python')[1].split('```')[0]
  assert '/data/mimic-iv-ecg' in block
  folder, here = tmp_path_factory.mktemp('ecg'), os.getcwd()
  os.chdir(folder)
  try:
    exec(block.replace('/data/mimic-iv-ecg', str(ECG.resolve())))
  finally:
    os.chdir(here)
  return folder / 'ecg.parquet'


def both_prepared(folder, task, ecg_table, labels, mapping):
  """The examples of raw tables and of the MEDS edition, by subject and time."""
  common = dict(task=task, memory_limit='1GB', workers=1)
  raw = dict(source='mimic_iv', mimic_iv=RAW, mimic_iv_ecg=ECG)
  of_meds = dict(source='meds', meds=MEDS, labels=labels, mapping=mapping, ecg=ecg_table)
  outs = [
    prepare(out=folder / name, **common, **settings)
    for name, settings in (('raw', raw), ('meds', of_meds))
  ]
  return [
    {(int(one['subject_id']), int(one['prediction_time'])): one for one in samples_of(out)}
    for out in outs
  ]


def same_ecgs(raw, meds):
  """Checks that all samples have the same ECGs; returns how many these are."""
  assert raw.keys() == meds.keys()
  for key, one in raw.items():
    assert one['ecg'].keys() == meds[key]['ecg'].keys()
    for name, values in one['ecg'].items():
      found = meds[key]['ecg'][name]
      assert values.dtype == found.dtype
      np.testing.assert_array_equal(values, found, err_msg=f'{key} {name}')
  return sum(len(one['ecg']['time']) for one in raw.values())


def test_ecgs_beside_meds_are_those_of_the_raw_tables(tmp_path, ecg_table):
  labels = MEDS / 'labels/in_hospital_mortality.parquet'
  raw, meds_ = both_prepared(tmp_path, 'mortality', ecg_table, labels, 'mimic_iv')
  assert len(raw) == 44
  assert same_ecgs(raw, meds_) == 29
  assert sum(int(one['ecg']['terms'].sum()) for one in raw.values()) > 29


def test_recordings_as_samples(tmp_path, ecg_table):
  """Task cvd, with labels at the times of the ECGs."""
  settings = mimic_iv.Settings(mimic_iv=RAW, mimic_iv_ecg=ECG)
  mimic_iv.stage('cvd', tmp_path / 'staged', settings, Resources())
  samples = pd.read_parquet(tmp_path / 'staged/samples.parquet')
  frame = samples[['subject_id', 'prediction_time']].astype(
    {'prediction_time': 'datetime64[us]'}
  )
  # One label at a time between two ECGs, of somebody who has both.
  late = frame.iloc[[0]].assign(
    prediction_time=lambda x: x.prediction_time + pd.Timedelta('1s')
  )
  frame = pd.concat([frame.assign(integer_value=samples.label.astype(int)),
                     late.assign(integer_value=0)])  # fmt: skip
  frame.to_parquet(tmp_path / 'labels.parquet', index=False)
  codes = ['LAB//{itemid}//{unit}']
  of_labs = {'labs': {'mimic_iv': {'items': 'cvd_labs', 'codes': codes}}}
  mapping = {'observation_hours': None, 'birth': 'MEDS_BIRTH', 'events': of_labs}
  path = tmp_path / 'cvd.yaml'
  path.write_text(yaml.safe_dump(mapping))
  raw, meds_ = both_prepared(
    tmp_path, 'cvd', ecg_table, tmp_path / 'labels.parquet', str(path)
  )
  [extra] = meds_.keys() - raw.keys()
  times = meds_.pop(extra)['ecg']['time']
  assert len(times) and times.max() < 0
  assert same_ecgs(raw, meds_) > len(raw) > 10
  assert all(one['ecg']['time'][-1] == 0 for one in meds_.values())
  counts = json.loads((tmp_path / 'meds/cohort.json').read_text())['rows']['ecg_table']
  assert counts["missing: samples whose time is no recording's"] == 1
  assert counts['missing: samples without a recording'] == 0
