"""Shards: deterministic bytes, tfds metadata, resumption, invalid staging files."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from data_pipeline.format import examples, records
from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.schema import DataError
from data_pipeline.format.subjects import hash_subject
from data_pipeline.preparation import processes, shards
from data_pipeline.preparation.staging import Shard
from tests.support import staging_fixture


@pytest.fixture
def raw(tmp_path):
  path = tmp_path / 'raw'
  path.mkdir()
  return path


@pytest.fixture
def tables(folder, raw):
  """A folder with copies of the staged tables, whose recordings lie where they were."""
  for path in (folder / 'raw').glob('*.parquet'):
    shutil.copy(path, raw)
  return raw


def digests(out: Path) -> dict[str, str]:
  files = sorted(path for path in out.rglob('*') if path.is_file())
  return {
    str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
  }


def test_workers_do_not_change_a_byte(folder, tmp_path):
  staged = staging_fixture.staged()
  rebuilt = staging_fixture.build_from(folder / 'raw', staged, tmp_path / 'out', workers=2)
  assert digests(rebuilt) == digests(folder / 'out')


def test_order_of_staged_rows_does_not_change_a_byte(folder, tmp_path, raw):
  staged = staging_fixture.staged()
  for path in (folder / 'raw').glob('*.parquet'):
    table = pd.read_parquet(path).sample(frac=1, random_state=1)
    if path.stem in ('events_labs', 'recordings'):
      table = table.convert_dtypes(dtype_backend='pyarrow')
    table.to_parquet(raw / path.name)
  rebuilt = staging_fixture.build_from(raw, staged, tmp_path / 'out')
  assert digests(rebuilt) == digests(folder / 'out')


def test_tfds_reads_every_sample(dataset):
  builder = tfds.builder_from_directory(dataset.directory)
  assert set(builder.info.splits) == {f'fold{k}' for k in range(5)}
  seen = {}
  for k in range(5):
    assert (
      builder.info.splits[f'fold{k}'].num_examples == (dataset.index['fold'] == k).sum()
    )
    for example in tfds.as_numpy(builder.as_dataset(split=f'fold{k}')):
      seen[int(example['sample_id'])] = example
      assert example['fold'] == k
  assert len(seen) == len(dataset)
  dtypes = {'item': np.int32, 'value': np.float32, 'category': np.int32, 'time': np.float32}
  for row, sample in enumerate(dataset.index['sample_id']):
    example = seen[sample]
    for name in ('labs', 'notes'):
      for array, dtype in dtypes.items():
        found = example['events'][name][array]
        assert found.dtype == dtype and found.shape == (dataset.lengths(name)[row],)
    grid = example['grid']['vitals']
    assert grid['value'].shape == grid['observed'].shape == (6, 2)
    assert grid['value'].dtype == np.float32 and grid['observed'].dtype == np.uint8
    assert grid['observed'].sum() == dataset.lengths('vitals')[row]
    k = dataset.lengths('ecg')[row]
    ecg = example['ecg']
    assert ecg['signal'].shape == (k, 1250, 12) and ecg['signal'].dtype == np.int16
    assert ecg['study_id'].shape == (k,) and ecg['study_id'].dtype == np.int64
    assert ecg['measurements'].shape == (k, 9) and ecg['terms'].shape == (k, 3)
    assert (np.diff(ecg['time']) >= 0).all()
    assert example['label'].dtype == np.float32
    assert example['static']['numeric'].shape == (2,)
    np.testing.assert_array_equal(
      example['validates'], [dataset.index[f'validates_{f}'][row] for f in range(5)]
    )


def test_tfds_sub_splits_and_sharded_reading(dataset):
  builder = tfds.builder_from_directory(dataset.directory)
  read = lambda split, **options: [
    int(example['sample_id'])
    for example in tfds.as_numpy(builder.as_dataset(split=split, **options))
  ]
  zero, one = read('fold0'), read('fold1')
  assert sorted(read('fold0+fold1')) == sorted(zero + one)
  half = read('fold0[:50%]')
  assert set(half) < set(zero) and abs(len(half) - len(zero) / 2) <= 1
  parts = [read(split) for split in tfds.even_splits('fold0', 2)]
  assert sorted(parts[0] + parts[1]) == sorted(zero)
  # By whole files, as tf.distribute does it.
  hosts = [tf.distribute.InputContext(2, host) for host in range(2)]
  parts = [
    read('fold0+fold1', read_config=tfds.ReadConfig(input_context=host)) for host in hosts
  ]
  assert all(parts)
  assert sorted(parts[0] + parts[1]) == sorted(zero + one)


def test_events_are_sorted_and_never_in_the_future(dataset):
  builder = tfds.builder_from_directory(dataset.directory)
  for example in tfds.as_numpy(builder.as_dataset(split='fold0+fold1+fold2')):
    events = example['events']['labs']
    assert (events['time'] <= 0).all()
    keys = [events[n] for n in ('value', 'category', 'item', 'time')]
    np.testing.assert_array_equal(np.lexsort(keys), np.arange(len(keys[0])))


def test_index_finds_every_record(dataset):
  for row in range(len(dataset)):
    path = dataset.directory / dataset.files[dataset.index['file'][row]]
    payload = records.read_record(
      path, dataset.index['offset'][row], dataset.index['bytes'][row], row
    )
    assert f'fold{dataset.index["fold"][row]}.' in path.name
    assert len(payload) == dataset.index['bytes'][row]
    head = payload[: dataset.index['head_bytes'][row]]
    assert records.checksum(head) == dataset.index['head_crc'][row]
    features = {
      name: dict(tf.train.Example.FromString(message).features.feature)
      for name, message in {'whole': payload, 'head': head}.items()
    }
    assert features['whole'].keys() == examples.features(dataset.schema).keys()
    # Two messages end to end are one with the features of both.
    signal = features['whole'].pop('ecg/signal').bytes_list.value[0]
    assert len(signal) == dataset.lengths('ecg')[row] * 1250 * 12 * 2
    assert features['head'] == features['whole']


def test_a_subject_is_in_one_shard_with_its_samples_in_order_of_time(dataset, folder):
  subject, file = dataset.index['subject_id'], dataset.index['file']
  for one in np.unique(subject):
    assert len(np.unique(file[subject == one])) == 1
  samples = pd.read_parquet(folder / 'raw/samples.parquet').set_index('sample_id')
  time = samples['prediction_time'][dataset.index['sample_id']].to_numpy()
  same = subject[1:] == subject[:-1]
  assert (np.diff(time)[same] >= np.timedelta64(0)).all()


def test_splits_partition_the_subjects(dataset):
  subject = dataset.index['subject_id']
  for k in range(5):
    parts = {s: dataset.rows(k, s) for s in ('train', 'validation', 'test')}
    np.testing.assert_array_equal(
      np.sort(np.concatenate(list(parts.values()))), np.arange(len(dataset))
    )
    for split, rows in parts.items():
      hashes = {hash_subject(s, dataset.subject_key) for s in subject[rows]}
      assert tuple(sorted(hashes)) == dataset.subjects(k, split)
    assert not set(subject[parts['train']]) & set(subject[parts['validation']])


def test_unusable_recordings_are_dropped_and_counted(dataset, folder):
  cohort = json.loads((folder / 'out/cohort.json').read_text())
  assert cohort['rows'] == {'labevents': {'no value': 3}, 'ecg': {'flat': 1}}
  recordings = pd.read_parquet(folder / 'raw/recordings.parquet')
  usable = recordings[~recordings['path'].str.endswith('/r0')]
  count = usable.groupby('sample_id').size()
  wanted = [count.get(sample, 0) for sample in dataset.index['sample_id']]
  np.testing.assert_array_equal(dataset.lengths('ecg'), wanted)
  assert dataset.metadata['counts']['recordings'] == len(usable)


def test_every_unusable_recording_is_counted_by_its_reason(tmp_path, raw):
  staged = staging_fixture.write_staging(raw)
  table = pd.read_parquet(raw / 'recordings.parquet')
  # One recording a subject; number 0 is flat already.
  names = [f'r{number}' for number in range(8)]
  files = {name: raw / 'ecg' / name for name in names}
  assert {str(path) for path in files.values()} <= set(table['path'])
  dat = lambda name: files[name].with_suffix('.dat')
  header = lambda name: files[name].with_suffix('.hea')
  dat('r1').write_bytes(dat('r1').read_bytes()[:-1])
  dat('r2').write_bytes(np.full(60_000, -32768, '<i2').tobytes())
  header('r3').write_text(header('r3').read_text().replace(' V6', ' V7'))
  header('r4').write_text(header('r4').read_text().replace('/mV', '/furlong'))
  dat('r5').unlink()
  header('r6').write_text('what is this?')
  # 20 s at 250 Hz, of which the middle half is taken.
  header('r7').write_text(header('r7').read_text().replace('12 500 5000', '12 250 5000'))
  out = staging_fixture.build_from(
    raw, staged, tmp_path / 'out', max_dropped_recordings=0.5
  )
  assert json.loads((out / 'cohort.json').read_text())['rows']['ecg'] == {
    'flat': 1, 'short_dat': 1, 'missing_samples': 1, 'missing_lead': 1,
    'unknown_unit': 1, 'missing_file': 1, 'bad_header': 1,
  }  # fmt: skip
  unusable = {str(files[name]) for name in names[:7]}
  data = open_dataset(out)
  assert data.metadata['counts']['recordings'] == (~table['path'].isin(unusable)).sum()


def test_a_worker_that_dies_and_one_that_sees_no_files(tmp_path):
  shard = Shard('s', 0, 0, 1)
  job = shards.Job(staging_fixture.SCHEMA, shard, tmp_path / 'no', tmp_path, tmp_path)
  with pytest.raises(DataError, match='under the same paths'):
    shards.write_shard(job)
  deadly = dataclasses.replace(job, schema=_Deadly())
  with pytest.raises(DataError, match='a worker process died'):
    processes.run([deadly, deadly], lambda: None, workers=2)
  assert not list(tmp_path.iterdir())


def test_two_attempts_at_one_shard_do_not_disturb_each_other(folder, tmp_path, monkeypatch):
  staged = staging_fixture.staged()
  write_shard, frame, calls = shards.write_shard, records.frame, []

  def write_twice(job):
    def other_attempt_in_between(payload):
      calls.append(job)
      if len(calls) == 3:
        write_shard(job)
      return frame(payload)

    calls.clear()
    monkeypatch.setattr(records, 'frame', other_attempt_in_between)
    write_shard(job)

  monkeypatch.setattr(shards, 'write_shard', write_twice)
  out = staging_fixture.build_from(folder / 'raw', staged, tmp_path / 'out')
  assert len(calls) > 3
  assert digests(out) == digests(folder / 'out')


class _Deadly:
  """Ends the process that unpickles it."""

  def __reduce__(self):
    return os._exit, (9,)


def test_the_version_follows_the_content(folder, tmp_path, tables):
  staged = staging_fixture.staged()
  table = pd.read_parquet(tables / 'static.parquet')
  table.loc[0, 'age'] += 1
  table.to_parquet(tables / 'static.parquet')
  changed = staging_fixture.build_from(tables, staged, tmp_path / 'out')
  assert open_dataset(changed).version != open_dataset(folder / 'out').version


def test_a_full_disk_is_one_clear_error_and_can_be_continued(folder, tmp_path, monkeypatch):
  staged = staging_fixture.staged()
  written = []

  def fill_up(payload):
    written.append(payload)
    if len(written) == 30:
      raise OSError(errno.ENOSPC, 'No space left on device')
    return frame(payload)

  frame = records.frame
  monkeypatch.setattr(records, 'frame', fill_up)
  with pytest.raises(DataError, match='no space left'):
    staging_fixture.build_from(folder / 'raw', staged, tmp_path / 'out')
  assert not list((tmp_path / 'out').glob('*.partial'))
  out = staging_fixture.build_from(folder / 'raw', staged, tmp_path / 'out')
  # The shards that were finished are not written again.
  assert len(written) < 30 + len(open_dataset(out))
  assert digests(out) == digests(folder / 'out')


def _spoil(tables, table, column, value):
  frame = pd.read_parquet(tables / f'{table}.parquet')
  frame.loc[frame.index[3], column] = value
  frame.to_parquet(tables / f'{table}.parquet')


@pytest.mark.parametrize(
  ('table', 'column', 'value', 'message'),
  [
    ('events_labs', 'time', 0.5, 'events_labs.parquet, column time'),
    ('events_labs', 'time', np.nan, 'column time'),
    ('events_labs', 'item', 3, 'events_labs.parquet, column item'),
    ('events_notes', 'category', 2, 'events_notes.parquet, column category'),
    ('events_notes', 'value', 1.0, 'events_notes.parquet, column value'),
    ('grid_vitals', 'step', 6, 'grid_vitals.parquet, column step'),
    ('grid_vitals', 'value', np.inf, 'grid_vitals.parquet, column value'),
    ('recordings', 'time', 1.0, 'recordings.parquet, column time'),
    ('static', 'gender', 'X', 'static.parquet, column gender'),
    ('samples', 'label', 2.0, 'has a label'),
    ('events_labs', 'sample_id', -1, 'samples that are not in samples.parquet'),
  ],
)
def test_rows_that_break_the_contract_are_refused(
  tmp_path, tables, table, column, value, message
):
  staged = staging_fixture.staged()
  _spoil(tables, table, column, value)
  with pytest.raises(DataError, match=message):
    staging_fixture.build_from(tables, staged, tmp_path / 'out')


def test_a_repeated_sample_is_refused(tmp_path, tables):
  staged = staging_fixture.staged()
  table = pd.read_parquet(tables / 'samples.parquet')
  pd.concat([table, table[:1]]).to_parquet(tables / 'samples.parquet')
  with pytest.raises(DataError, match='occurs twice'):
    staging_fixture.build_from(tables, staged, tmp_path / 'out')


def test_an_empty_cohort_says_so_and_leaves_the_counts(tmp_path, tables):
  staged = staging_fixture.staged()
  pd.read_parquet(tables / 'samples.parquet')[:0].to_parquet(tables / 'samples.parquet')
  with pytest.raises(DataError, match='cohort of task mortality is empty'):
    staging_fixture.build_from(tables, staged, tmp_path / 'out')
  assert json.loads((tmp_path / 'out/cohort.json').read_text()) == staged.cohort


def test_a_corrected_source_is_staged_again(folder, tmp_path, tables):
  staged = staging_fixture.staged()
  missing = tables / 'events_labs.parquet'
  missing.rename(tmp_path / 'kept')
  with pytest.raises(DataError, match='did not write this table'):
    staging_fixture.build_from(tables, staged, tmp_path / 'out')
  (tmp_path / 'kept').rename(missing)
  out = staging_fixture.build_from(tables, staged, tmp_path / 'out')
  assert len(open_dataset(out)) == len(open_dataset(folder / 'out'))


def test_a_data_set_without_ecg_static_and_grid(tmp_path, tables):
  staged = staging_fixture.staged()
  schema = staged.schema.only(('labs', 'notes'))
  staged = dataclasses.replace(staged, schema=schema)
  data = open_dataset(staging_fixture.build_from(tables, staged, tmp_path / 'out'))
  assert shards.length_columns(data.schema).keys() == {'n_labs', 'n_notes'}
  builder = tfds.builder_from_directory(data.directory)
  assert 'ecg' not in builder.info.features
