"""Splits from a file in place of the folds, and what is wrong with such files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from configs import common
from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.schema import DataError
from data_pipeline.format.split_file import with_split_file
from data_pipeline.format.subjects import hash_subject
from medm2t_jax.experiment import read
from medm2t_jax.experiment.default_data import open_or_simulate
from medm2t_jax.runs import workdir
from tests.support import staging_fixture


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data')
  return open_dataset(staging_fixture.build_dataset(folder, subjects=12))


def ids_by_subject(dataset):
  """Sample ids of each subject."""
  samples, subjects = dataset.index['sample_id'], dataset.index['subject_id']
  return [[int(s) for s in samples[subjects == one]] for one in np.unique(subjects)]


def flat(parts):
  return [each for part in parts for each in part]


@pytest.fixture
def splits(dataset):
  """Three splits that leave out the last subject."""
  ids = ids_by_subject(dataset)
  return {'train': flat(ids[:6]), 'val': flat(ids[6:9]), 'test': flat(ids[9:-1])}


def apply(dataset, splits, tmp_path):
  path = tmp_path / 'splits.json'
  path.write_text(json.dumps(splits))
  return with_split_file(dataset, path)


def test_rows_and_subjects_are_those_of_the_file(dataset, splits, tmp_path):
  data = apply(dataset, splits, tmp_path)
  for split, key in (('train', 'train'), ('validation', 'val'), ('test', 'test')):
    rows = data.rows(0, split)
    assert sorted(splits[key]) == sorted(data.index['sample_id'][rows])
    assert (np.diff(rows) > 0).all()
    subjects = np.unique(data.index['subject_id'][rows])
    hashes = sorted(hash_subject(each, data.subject_key) for each in subjects)
    assert data.subjects(0, split) == tuple(hashes)
  # What the folds were is not there any more.
  assert list(data.metadata['folds']) == ['0']
  for fold in (1, 5):
    with pytest.raises(DataError, match='split_file defines a single split'):
      data.rows(fold, 'test')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda s: s.pop('val'), 'lists "train", "val" and "test"'),
    (lambda s: s.update(more=[1]), 'lists "train", "val" and "test"'),
    (lambda s: s.update(test=[]), "'test' must be a non-empty list"),
    (lambda s: s.update(test=['1']), "'test' must be a non-empty list"),
    (lambda s: s.update(test=[True]), "'test' must be a non-empty list"),
    (lambda s: s['test'].append(-7), "'test' has samples that .* does not have: -7"),
    (lambda s: s['train'].extend(s['train'][:1]), "'train' repeats"),
    (lambda s: s['val'].extend(s['train'][:1]), 'in train and in validation'),
  ],
)
def test_a_wrong_file_is_refused(dataset, splits, tmp_path, change, message):
  change(splits)
  with pytest.raises(DataError, match=message):
    apply(dataset, splits, tmp_path)


def test_two_samples_of_a_subject_belong_together(dataset, splits, tmp_path):
  several = next(ids for ids in ids_by_subject(dataset)[:6] if len(ids) > 1)
  splits['train'].remove(several[0])
  splits['test'].append(several[0])
  with pytest.raises(DataError, match='in train and in test'):
    apply(dataset, splits, tmp_path)


def test_what_is_no_json_is_named(dataset, tmp_path):
  with pytest.raises(DataError, match='no such file'):
    with_split_file(dataset, tmp_path / 'absent.json')
  path = tmp_path / 'splits.json'
  path.write_text('{')
  with pytest.raises(DataError, match=r'splits\.json: not valid JSON'):
    with_split_file(dataset, path)


def test_splits_are_known_by_their_subjects_not_by_their_path(dataset, splits, tmp_path):
  data = apply(dataset, splits, tmp_path)
  assert data.version.startswith(dataset.version) and data.version != dataset.version
  again = {key: list(reversed(ids)) for key, ids in reversed(splits.items())}
  (tmp_path / 'elsewhere').mkdir()
  assert apply(dataset, again, tmp_path / 'elsewhere').version == data.version
  fewer = {**splits, 'test': splits['test'][1:]}
  assert apply(dataset, fewer, tmp_path).version != data.version

  config = read(common.base('mortality', {}))
  of = lambda path: config.changed({'data.split_file': str(tmp_path / path)})
  workdir.claim(tmp_path / 'W', of('splits.json'), data.version)
  config = of('elsewhere/splits.json')
  workdir.claim(tmp_path / 'W', config, data.version)
  with pytest.raises(DataError, match=r'created with data\.version='):
    workdir.claim(tmp_path / 'W', config, apply(dataset, fewer, tmp_path).version)


def test_an_experiment_reads_its_split_file(dataset, splits, tmp_path):
  config = common.base('mortality', {})
  path = tmp_path / 'splits.json'
  path.write_text(json.dumps(splits))
  config.data.dir, config.data.split_file = str(dataset.directory), str(path)
  data = open_or_simulate(read(config))
  assert len(data.rows(0, 'test')) == len(splits['test'])
  for several in ('all', '1', '0,1'):
    config.folds = several
    with pytest.raises(DataError, match=r"config\.folds has to be '0'"):
      open_or_simulate(read(config))
