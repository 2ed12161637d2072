"""Samples to be predicted: nothing of the time after the prediction chooses them."""

from __future__ import annotations

import pandas as pd
import pytest

from data_pipeline.sources import Resources, mimic_iv
from data_pipeline.sources.simulated import write_hospital


@pytest.fixture(scope='module')
def raw(tmp_path_factory):
  folder = tmp_path_factory.mktemp('raw')
  write_hospital(folder, patients=60, seed=3)
  return folder


@pytest.fixture(scope='module')
def admitted(raw, tmp_path_factory):
  """Task cvd with its labels, and the folder of its tables."""
  folder = tmp_path_factory.mktemp('admitted') / 'cvd'
  return (*staged(raw, folder, 'cvd'), folder)


@pytest.fixture(scope='module')
def going_on(raw, tmp_path_factory):
  """Task mortality of stays that may go on, and the folder of its tables."""
  folder = tmp_path_factory.mktemp('going_on') / 'mortality'
  return (*staged(raw, folder, 'mortality', unlabelled=True), folder)


def staged(raw, folder, task, **options):
  settings = mimic_iv.Settings(
    mimic_iv=raw / 'mimic-iv', mimic_iv_ecg=raw / 'mimic-iv-ecg', **options
  )
  folder.mkdir()
  result = mimic_iv.stage(task, folder, settings, Resources())
  return result, pd.read_parquet(folder / 'samples.parquet').set_index('sample_id')


@pytest.mark.parametrize('task', ['mortality', 'cvd'])
def test_all_who_have_a_label_are_among_them(raw, admitted, going_on, tmp_path, task):
  new = tmp_path / 'new'
  if task == 'cvd':
    one, two = admitted, (*staged(raw, new, task, unlabelled=True), new)
  else:
    one, two = (*staged(raw, new, task), new), going_on
  (known, labelled, _), (unknown, found, _) = one, two
  assert found['label'].isna().all() and labelled['label'].notna().all()
  assert set(labelled.index) <= set(found.index)
  same = found.loc[labelled.index, 'prediction_time']
  pd.testing.assert_series_equal(same, labelled['prediction_time'])
  assert ('is unknown at' in known.schema.condition) == (task == 'cvd')
  assert not unknown.schema.condition
  # What is known of a sample is the same.
  one, two = (
    pd.read_parquet(folder / 'events_labs.parquet').set_index('sample_id')
    for *_, folder in (one, two)
  )
  columns = ['item', 'time', 'value', 'category']
  rows = lambda table: table.loc[sorted(set(one.index)), columns].sort_values(
    ['sample_id', *columns]
  )
  pd.testing.assert_frame_equal(rows(one), rows(two))
  if task == 'cvd':
    assert len(found) > len(labelled), 'many are not admitted'


def test_what_comes_after_the_prediction_chooses_nobody(raw, going_on, tmp_path):
  """The tables as they stand at some time, later than all but a few predictions."""
  _, before, _ = going_on
  hosp = raw / 'mimic-iv' / 'hosp' / 'admissions.csv.gz'
  icu = raw / 'mimic-iv' / 'icu' / 'icustays.csv.gz'
  kept = {path: path.read_bytes() for path in (hosp, icu)}
  when = before['prediction_time']
  stays = pd.read_csv(icu, parse_dates=['intime', 'outtime'])
  admissions = pd.read_csv(hosp, parse_dates=['dischtime', 'deathtime'])
  predicted = stays.set_index('stay_id').loc[when.index, 'hadm_id']
  by_admission = pd.Series(when.to_numpy(), predicted.to_numpy())
  of_stay, of_admission = (
    stays['stay_id'].map(when),
    admissions['hadm_id'].map(by_admission),
  )
  try:
    # The last stays keep their ends: the tables go on beyond the others.
    late = stays['outtime'] >= stays['outtime'].quantile(0.98)
    stays['outtime'] = stays['outtime'].where(late | ~(stays['outtime'] > of_stay))
    for name in ('dischtime', 'deathtime'):
      future = admissions[name] > of_admission
      admissions[name] = admissions[name].where(~future)
    admissions['hospital_expire_flag'] = admissions['hospital_expire_flag'].where(
      of_admission.isna()
    ).astype('Int64')  # fmt: skip
    stays.to_csv(icu, index=False)
    admissions.to_csv(hosp, index=False)
    _, after = staged(raw, tmp_path / 'after', 'mortality', unlabelled=True)
  finally:
    for path, content in kept.items():
      path.write_bytes(content)
  assert set(after.index) == set(before.index)


def test_of_all_ecgs_those_without_an_admission_are_a_class(raw, admitted, tmp_path):
  result, found = staged(raw, tmp_path / 'all', 'cvd_all')
  _, admitted, _ = admitted
  assert result.schema.target.classes[-1] == 'no_admission' and not result.schema.condition
  assert set(admitted.index) < set(found.index)
  pd.testing.assert_series_equal(found.loc[admitted.index, 'label'], admitted['label'])
  rest = found.drop(admitted.index)
  assert (rest['label'] == 4).all()
  # Nobody of the rest has an admission of a day or more within 90 days, by pandas.
  path = raw / 'mimic-iv' / 'hosp' / 'admissions.csv.gz'
  admissions = pd.read_csv(path, parse_dates=['admittime', 'dischtime'])
  day = pd.Timedelta(days=1)
  admissions = admissions[admissions.dischtime >= admissions.admittime + day]
  pairs = rest.reset_index().merge(admissions, on='subject_id')
  after = pairs.admittime - pairs.prediction_time
  assert not ((after > pd.Timedelta(0)) & (after <= 90 * day)).any()
  assert set(found.subject_id) >= set(admitted.subject_id)
