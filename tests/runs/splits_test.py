"""Samples without a label, and weights: what is learnt from, what is predicted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.schema import DataError
from data_pipeline.reading import planning
from medm2t_jax.runs.reader import Reader
from medm2t_jax.runs.splits import Splits
from tests.support import staging_fixture, static_data


def only_some(raw):
  """Every third label is null, every second sample has half a weight."""
  samples = pd.read_parquet(raw / 'samples.parquet')
  number = np.arange(len(samples))
  samples['label'] = samples['label'].where(number % 3 > 0)
  samples['weight'] = np.where(number % 2, 1.0, 0.5)
  samples.to_parquet(raw / 'samples.parquet')


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data')
  return open_dataset(static_data.build(folder, change=only_some))


def test_nobody_learns_from_a_sample_without_a_label(dataset):
  unknown = np.isnan(dataset.index['label'])
  assert 0 < unknown.sum() < len(dataset)
  for splits in (Splits(dataset, 0), Splits(dataset, 0, refit=True)):
    rows = [splits.rows(split) for split in ('train', 'validation', 'test')]
    assert not unknown[np.concatenate(rows)].any()
    assert sorted(np.concatenate(rows)) == list(np.flatnonzero(~unknown))


def test_a_sample_without_a_label_is_a_row_without_weight(dataset):
  reader = Reader(dataset, staging_fixture.batching(({},)))
  rows = np.arange(len(dataset))
  plan = reader.plan(rows, ('static',), 8)
  assert isinstance(plan, planning.Plan)
  for batch in reader.read_here(plan, ('static',)):
    row = batch['row']
    label = np.where(row >= 0, dataset.index['label'][row], np.nan)
    weight = np.where(row >= 0, dataset.index['weight'][row], 0)
    known = np.isfinite(label)
    np.testing.assert_array_equal(batch['label'], np.where(known, label, 0))
    np.testing.assert_array_equal(batch['weight'], np.where(known, weight, 0))
    assert batch['static']['numeric_mask'][row >= 0].any(axis=-1).all()


def without_labels(raw):
  samples = pd.read_parquet(raw / 'samples.parquet')
  samples['label'] = np.nan
  samples.to_parquet(raw / 'samples.parquet')


def test_a_single_subject_without_a_label_can_be_prepared(tmp_path):
  dataset = open_dataset(static_data.build(tmp_path, change=without_labels, subjects=1))
  assert len(dataset) >= 1 and np.isnan(dataset.index['label']).all()
  assert not len(Splits(dataset, 0).rows('train'))


def test_folds_of_labelled_samples_need_subjects(tmp_path):
  with pytest.raises(DataError, match='5 folds need at least 5 subjects'):
    static_data.build(tmp_path, subjects=3)


def test_a_label_that_the_target_does_not_have_is_refused(tmp_path):
  def wrong(raw):
    samples = pd.read_parquet(raw / 'samples.parquet')
    samples.iloc[4, samples.columns.get_loc('label')] = 2.0
    samples.to_parquet(raw / 'samples.parquet')

  with pytest.raises(DataError, match=r'row 4 has a label that a binary target does not'):
    static_data.build(tmp_path, change=wrong)
