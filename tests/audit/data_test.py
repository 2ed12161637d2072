"""Splits, times, leaks and drift: clean data pass, a planted fault is found."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.heads import read_heads
from data_pipeline.format.schema import Item, Target
from medm2t_jax.audit import drift, leaks, splits, times
from medm2t_jax.audit import scan as scans
from medm2t_jax.audit.columns import last_values
from tests.support import kinds

FOLDS = (0, 1)


@pytest.fixture(scope='module')
def scan(dataset):
  return scans.scan(dataset, FOLDS)


@pytest.fixture(scope='module')
def static_scan(static_dataset):
  return scans.scan(static_dataset, FOLDS)


def failed(checks):
  return [check.name for check in checks if not check.passed]


def test_clean_data_pass_every_check(scan, static_scan):
  for one in (scan, static_scan):
    checks = [*splits.check(one, FOLDS), *times.check(one), *leaks.check(one)]
    checks += [drift.check(one, fold, number) for number, fold in enumerate(FOLDS)]
    assert failed(checks) == [], '\n'.join(map(str, checks))


def test_a_subject_in_two_folds_is_found(dataset):
  subject = dataset.index['subject_id']
  names, counts = np.unique(subject, return_counts=True)
  row = np.flatnonzero(subject == names[counts > 1][0])[0]
  fold = dataset.index['fold'].copy()
  fold[row] = (fold[row] + 1) % 5
  spoiled = dataclasses.replace(dataset, index={**dataset.index, 'fold': fold})
  checks = splits.check(scans.scan(spoiled, range(5)), range(5))
  names = failed(checks)
  assert 'records and index' in names and 'all folds together' in names
  # It tests in both folds, and trains or validates in the other one.
  assert {f'splits, fold {fold[row]}', f'splits, fold {dataset.index["fold"][row]}'} <= {
    *names
  }


@pytest.mark.parametrize('time', [0.5, np.nan])
@pytest.mark.parametrize('name', ['labs', 'notes', 'ecg'])
def test_a_time_after_the_prediction_is_found(with_feature, name, time):
  def change(times):
    return np.append(times[:-1], time) if len(times) else None

  feature = 'ecg/time' if name == 'ecg' else f'events/{name}/time'
  checks = times.check(scans.scan(with_feature(feature, '<f4', change), FOLDS))
  assert failed(checks) == [f'times, {name}']
  assert next(check.measured for check in checks if not check.passed) == 1


def test_a_grid_longer_than_the_observation_is_found(scan):
  schema = scan.dataset.schema
  schema = kinds.changed(schema, 'vitals', step_hours=4.1)
  spoiled = dataclasses.replace(
    scan, dataset=dataclasses.replace(scan.dataset, schema=schema)
  )
  assert failed(times.check(spoiled)) == ['times, vitals']


@pytest.mark.parametrize(
  'item',
  [
    Item('dischtime', 'time'),
    Item('1', 'Dischtime'),
    Item('1', 'hospital expire flag'),
    Item('subject_id', 'number'),
    Item('LOS', 'days'),
    Item('SOFA', 'score'),
    Item('SAPS-I', 'score'),
    Item('1', 'Length of stay'),
  ],
)
def test_an_input_with_a_forbidden_name_is_found(dataset, item):
  items = (*dataset.schema.modalities['static'].numeric, item)
  check = leaks.by_name(kinds.changed(dataset.schema, 'static', numeric=items))
  assert not check.passed and check.measured == 1


@pytest.mark.parametrize(
  'name', ['Closing pressure', 'Admission type', 'Ectopy PVCs', 'Albumin', 'Lactate']
)
def test_names_of_honest_inputs_pass(dataset, name):
  items = (*dataset.schema.modalities['static'].numeric, Item('1', name))
  assert leaks.by_name(kinds.changed(dataset.schema, 'static', numeric=items)).passed


def test_a_column_equal_to_the_label_is_found(spoiled_static):
  dataset = spoiled_static(lambda table: table.assign(weight=table['label'] + 1))
  check = leaks.by_label(scans.scan(dataset, FOLDS))
  assert not check.passed and check.measured == 1 and 'weight' in check.detail
  index = {**dataset.index, 'label': dataset.index['label'] * 0.5 + 1}
  schema = dataclasses.replace(
    dataset.schema, target=Target('regression', unit='days', low=0.0)
  )
  days = dataclasses.replace(dataset, index=index, schema=schema)
  assert not leaks.by_label(scans.scan(days, FOLDS)).passed


def test_a_column_that_is_there_only_with_the_label_is_found(spoiled_static):
  dataset = spoiled_static(
    lambda table: table.assign(weight=np.where(table['label'] > 0, table['age'], np.nan))
  )
  check = leaks.by_label(scans.scan(dataset, FOLDS))
  assert not check.passed and 'weight' in check.detail


def test_a_category_equal_to_the_label_is_found(spoiled_static):
  dataset = spoiled_static(
    lambda table: table.assign(gender=np.where(table['label'] > 0, 'F', 'M'))
  )
  check = leaks.by_label(scans.scan(dataset, FOLDS))
  assert not check.passed and 'gender' in check.detail


def _scaled(values):
  return (values - values.mean()) / values.std()


@pytest.mark.parametrize(
  'identifier',
  [
    lambda table: table['subject_id'],
    lambda table: table['sample_id'],
    lambda table: _scaled(table['sample_id']),
    lambda table: table['subject_id'].map(hash) % 99_991,
  ],
  ids=['subject', 'sample', 'scaled', 'hashed'],
)
def test_an_identifier_among_the_inputs_is_found(spoiled_static, identifier):
  dataset = spoiled_static(lambda table: table.assign(weight=identifier(table)))
  check = leaks.by_identifier(scans.scan(dataset, FOLDS))
  assert not check.passed and 'weight' in check.detail


def test_a_wrong_unit_in_test_subjects_is_found(spoiled_static):
  dataset = spoiled_static(
    lambda table: table.assign(
      weight=np.where(table['fold'] == 0, 2.2, 1) * table['weight']
    )
  )
  found = scans.scan(dataset, FOLDS)
  first, second = (drift.check(found, fold, n) for n, fold in enumerate(FOLDS))
  assert not first.passed and 'weight' in first.detail
  assert second.passed


def test_an_item_that_test_subjects_lack_is_found(spoiled_static):
  dataset = spoiled_static(
    lambda table: table.assign(weight=table['weight'].where(table['fold'] != 0))
  )
  check = drift.check(scans.scan(dataset, (0,)), 0, 0)
  assert not check.passed and 'of training' in check.detail


def test_last_values_are_those_of_the_records(dataset):
  checked = 0
  for _, example in read_heads(dataset):
    values = last_values(example, dataset.schema)
    item = example['events/labs/item']
    for number in range(3):
      where = np.flatnonzero(item == number)
      found = values[3 + number]
      if len(where):
        category = example['events/labs/category'][where[-1]]
        number_value = example['events/labs/value'][where[-1]]
        assert found == (category if category >= 0 else number_value)
        checked += 1
      else:
        assert np.isnan(found)
    observed = example['grid/vitals/observed'] > 0
    for signal in range(2):
      steps = np.flatnonzero(observed[:, signal])
      last = example['grid/vitals/value'][steps[-1], signal] if len(steps) else np.nan
      np.testing.assert_equal(values[7 + signal], last)
  assert checked > 50


def test_memory_is_bounded_and_the_sample_is_of_the_values(dataset, scan):
  small = scans.scan(dataset, FOLDS, capacity=5)
  assert small.value.shape == (len(scan.columns), 5)
  np.testing.assert_array_equal(small.present, scan.present)
  for column in range(len(scan.columns)):
    pairs = set(zip(*(each.tolist() for each in scan.sampled(column)), strict=True))
    kept = list(zip(*(each.tolist() for each in small.sampled(column)), strict=True))
    assert len(set(kept)) == min(5, scan.present[column]) and set(kept) <= pairs


def test_a_renamed_item_is_read_from_the_schema(static_dataset, renamed, tmp_path):
  import shutil

  copy = tmp_path / 'copy'
  shutil.copytree(static_dataset.directory, copy)
  renamed(copy, 'deathtime')
  assert not leaks.by_name(open_dataset(copy).schema).passed
