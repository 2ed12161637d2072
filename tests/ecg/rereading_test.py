"""Raw recordings found again, read again, and damaged."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from data_pipeline.ecg import rereading
from data_pipeline.ecg.raw_recording import RawRecording
from data_pipeline.ecg.rereading import Damage, RawRecordingsNotFound
from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.schema import DataError
from data_pipeline.reading import input_pipeline, planning
from tests.ecg.conditioning_test import in_millivolts
from tests.support import staging_fixture

MOST = 3


@pytest.fixture(scope='module')
def recorded(dataset):
  return np.flatnonzero(dataset.lengths('ecg') > 0)


@pytest.fixture
def own_copy(folder, tmp_path):
  """The data set with a list of recordings that may be changed."""
  shutil.copytree(folder / 'out', tmp_path / 'out')
  return open_dataset(tmp_path / 'out')


def test_the_list_holds_every_staged_recording_in_order(dataset, folder):
  listed = pd.read_parquet(dataset.directory / 'recordings.parquet')
  staged = pd.read_parquet(folder / 'raw/recordings.parquet')
  keys = ['sample_id', 'study_id', 'path']
  pd.testing.assert_frame_equal(
    listed.sort_values(keys, ignore_index=True),
    staged[keys].sort_values(keys, ignore_index=True),
  )
  place = {sample: row for row, sample in enumerate(dataset.index['sample_id'].tolist())}
  assert listed['sample_id'].map(place).is_monotonic_increasing


def test_the_most_recent_recordings_are_found_in_order_of_time(dataset, folder, recorded):
  located = rereading.locate(dataset, recorded, MOST)
  staged = pd.read_parquet(folder / 'raw/recordings.parquet')
  studies = staged.sort_values(['time', 'study_id']).groupby('sample_id')['study_id']
  expected = studies.agg(list)
  assert (dataset.lengths('ecg') > MOST).any()
  for row, recordings in located.items():
    sample = dataset.index['sample_id'][row]
    assert [each.study_id for each in recordings] == expected[sample][-MOST:]


def test_undamaged_recordings_are_those_of_the_batch_bit_for_bit(dataset, recorded):
  located = rereading.locate(dataset, recorded, MOST)
  batching = staging_fixture.batching(max_recordings=MOST)
  plan = planning.plan_epoch(
    dataset, recorded, modalities=('ecg',), batching=batching, batch_rows=6
  )
  batches = input_pipeline.batches(dataset, plan, modalities=('ecg',), batching=batching)
  compared = 0
  for batch in batches:
    held = [each for row in batch['row'][0].tolist() if row >= 0 for each in located[row]]
    assert len(held) == batch['ecg']['mask'].sum()
    for slot, recording in enumerate(held):
      found = rereading.read_damaged(recording, None, 0)
      assert found is not None
      np.testing.assert_array_equal(found[0], batch['ecg']['signal'][0, slot])
      assert np.float32(found[1]) == batch['ecg']['gain'][0, slot]
      compared += 1
  assert compared == np.minimum(dataset.lengths('ecg'), MOST).sum() > 20


def test_damage_changes_a_recording_by_its_level(dataset, recorded):
  recording = rereading.locate(dataset, recorded, MOST)[int(recorded[0])][0]
  clean = in_millivolts(rereading.read_damaged(recording, None, 0))

  def difference(level):
    found = rereading.read_damaged(recording, Damage('white', level), 0)
    return np.abs(in_millivolts(found) - clean).mean()

  assert 0 < difference(24.0) < difference(6.0) < difference(-6.0)
  # 50 Hz lie above the pass band.
  hum = rereading.read_damaged(recording, Damage('powerline', 0.0), 0)
  assert np.abs(in_millivolts(hum) - clean).mean() < difference(0.0) / 3


def test_what_the_conditioning_refuses_is_none(dataset, recorded):
  recording = rereading.locate(dataset, recorded, MOST)[int(recorded[0])][0]
  assert rereading.read_damaged(recording, Damage('white', -60.0), 0) is None


def test_a_data_set_without_the_list_says_so(own_copy, recorded):
  (own_copy.directory / 'recordings.parquet').unlink()
  with pytest.raises(RawRecordingsNotFound, match=r'recordings\.parquet does not exist'):
    rereading.locate(own_copy, recorded, MOST)


def test_moved_files_are_named(own_copy, recorded):
  path = own_copy.directory / 'recordings.parquet'
  table = pd.read_parquet(path)
  table['path'] = table['path'].str.replace('/ecg/', '/gone/')
  table.to_parquet(path)
  with pytest.raises(RawRecordingsNotFound, match=r'/gone/r\d+\.hea \(\d+ of \d+\)'):
    rereading.locate(own_copy, recorded, MOST)


def test_a_list_of_another_data_set_is_refused(own_copy, recorded):
  path = own_copy.directory / 'recordings.parquet'
  pd.read_parquet(path)[:0].to_parquet(path)
  with pytest.raises(DataError, match='is not listed'):
    rereading.locate(own_copy, recorded, MOST)


def test_a_file_that_broke_since_is_an_error(tmp_path):
  staging_fixture.write_ecg(tmp_path / 'r', np.random.default_rng(0))
  recording = rereading.Recording(1, RawRecording(str(tmp_path / 'r')))
  (tmp_path / 'r.dat').write_bytes(b'')
  with pytest.raises(DataError, match='can no longer be read'):
    rereading.read_damaged(recording, None, 0)
