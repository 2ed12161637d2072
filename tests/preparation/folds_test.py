"""Folds: grouped, stratified, independent of row order."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.schema import DataError, Target
from data_pipeline.preparation import build, folds

BINARY = Target('binary', ('alive', 'dead'))
DAYS = Target('regression', unit='days', low=0.0)


def _cohort(seed: int, subjects: int = 400):
  rng = np.random.default_rng(seed)
  subject = np.repeat(
    rng.permutation(10 * subjects)[:subjects], rng.integers(1, 5, subjects)
  )
  label = (rng.random(len(subject)) < 0.1).astype(float)
  ecg = rng.random(len(subject)) < 0.3 + 0.4 * label
  return subject, label, {'ecg': ecg, 'labs': np.ones(len(subject), bool)}


def _by_sample(division: folds.Folds, subject: np.ndarray):
  row = np.searchsorted(division.subjects, subject)
  return division.fold[row], division.validates[row]


@pytest.mark.parametrize('seed', range(3))
def test_shares_are_equal_in_every_stratum(seed):
  subject, label, available = _cohort(seed)
  division = folds.assign_folds(subject, label, available, BINARY)
  fold, validates = _by_sample(division, subject)
  for dead in (0, 1):
    for has_ecg in (False, True):
      stratum = (label == dead) & (available['ecg'] == has_ecg)
      shares = np.bincount(fold[stratum], minlength=5) / stratum.sum()
      slack = 2.0 / stratum.sum() + 0.01
      np.testing.assert_allclose(shares, 0.2, atol=slack)
      for k in range(5):
        others = stratum & (fold != k)
        share = validates[others, k].mean()
        assert abs(share - 0.2) < 2.0 / others.sum() + 0.01


def test_a_subject_is_in_one_fold_and_never_validates_its_own():
  subject, label, available = _cohort(0)
  division = folds.assign_folds(subject, label, available, BINARY)
  np.testing.assert_array_equal(division.subjects, np.unique(subject))
  own = division.validates[np.arange(len(division.fold)), division.fold]
  assert not own.any()


@pytest.mark.parametrize('target', [BINARY, DAYS])
def test_independent_of_row_order(target):
  subject, label, available = _cohort(1)
  label = label if target is BINARY else np.random.default_rng(0).lognormal(size=len(label))
  division = folds.assign_folds(subject, label, available, target)
  order = np.random.default_rng(2).permutation(len(subject))
  shuffled = folds.assign_folds(
    subject[order], label[order], {n: a[order] for n, a in available.items()}, target
  )
  np.testing.assert_array_equal(division.fold, shuffled.fold)
  np.testing.assert_array_equal(division.validates, shuffled.validates)


def test_days_are_stratified_by_quantile():
  rng = np.random.default_rng(0)
  label = rng.lognormal(1, 1, 1000)
  subject = np.arange(1000)
  division = folds.assign_folds(subject, label, {}, DAYS)
  for part in np.array_split(np.argsort(label), 5):
    shares = np.bincount(division.fold[part], minlength=5) / len(part)
    np.testing.assert_allclose(shares, 0.2, atol=0.015)


def test_the_seed_changes_the_folds():
  subject, label, available = _cohort(0)
  one = folds.assign_folds(subject, label, available, BINARY, seed=0)
  two = folds.assign_folds(subject, label, available, BINARY, seed=1)
  assert (one.fold != two.fold).any()


@pytest.mark.parametrize('subjects', [5, 6, 11])
def test_few_subjects_leave_no_split_empty(subjects):
  division = folds.assign_folds(np.arange(subjects), np.zeros(subjects), {}, BINARY)
  for k in range(5):
    validates = division.validates[:, k] == 1
    tests = division.fold == k
    assert tests.any() and validates.any() and (~tests & ~validates).any()


def test_too_few_subjects_are_refused():
  with pytest.raises(DataError, match='4 subjects'):
    folds.assign_folds(np.array([1, 2, 3, 4, 4]), np.zeros(5), {}, BINARY)


def test_the_last_years_test_and_earlier_ones_train(tmp_path):
  out = tmp_path / 'mortality'
  arguments = {'source': 'simulated', 'task': 'mortality', 'patients': 80}
  build.prepare(out=out, split='year_group', **arguments)
  dataset = open_dataset(out)
  years = dataset.index['year_group'].astype(str)
  last = max(years)
  assert set(years[dataset.rows(0, 'test')]) == {last}
  earlier = np.concatenate([dataset.rows(0, split) for split in ('train', 'validation')])
  assert last not in years[earlier] and len(earlier) + (years == last).sum() == len(years)
  assert len(dataset.rows(0, 'validation'))
  with pytest.raises(DataError, match=r'year_group, and later years.*config.folds=0'):
    dataset.rows(1, 'test')
  with pytest.raises(DataError, match='--split=months: give one of folds, year_group'):
    build.prepare(out=tmp_path / 'other', split='months', **arguments)
