"""Keyed hashes of subjects, and the secret that they are keyed by."""

import json
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.schema import DataError
from data_pipeline.format.subjects import KEY_FILE, hash_subject, institution_key
from data_pipeline.preparation import build
from tests.support import static_data


def test_hashes_depend_on_the_key_and_the_subject():
  one, two = '00' * 16, '01' * 16
  assert hash_subject(7, one) == hash_subject(7, one)
  assert hash_subject(7, one) != hash_subject(7, two)
  assert hash_subject(7, one) != hash_subject(8, one)


def test_a_key_is_made_once_and_is_nobody_elses(tmp_path):
  with ThreadPoolExecutor(8) as pool:
    paths = [tmp_path / KEY_FILE] * 8
    found = set(pool.map(institution_key, paths))
  assert len(found) == 1 and len(bytes.fromhex(*found)) == 16
  assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
  assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]
  assert institution_key(tmp_path / 'other') not in found


@pytest.mark.parametrize('content', ['', 'zz' * 16, 'ab'])
def test_a_file_that_is_no_key_is_refused(tmp_path, content):
  (tmp_path / KEY_FILE).write_text(content)
  with pytest.raises(DataError, match=r'subject_key: not a key.*32 hex digits'):
    institution_key(tmp_path / KEY_FILE)


def test_the_data_sets_of_a_folder_share_a_key_and_nothing_else_depends_on_it(
  tmp_path, monkeypatch
):
  """By default it lies beside the data sets."""
  monkeypatch.setattr('tests.support.staging_fixture.SUBJECT_KEY', None)
  folders = [tmp_path / name for name in ('a/one', 'a/two', 'b/one')]
  for folder in folders:
    folder.mkdir(parents=True)
    static_data.build(folder)
    shutil.move(folder / 'out', folder.with_name(f'{folder.name}-out'))
  one, two, other = (open_dataset(f.with_name(f'{f.name}-out')) for f in folders)
  keys = [(folder / KEY_FILE).read_text().strip() for folder in folders]
  assert [each.subject_key for each in (one, two, other)] == keys
  assert len(set(keys)) == 3
  assert one.version == two.version == other.version
  assert one.subjects(0, 'test') != other.subjects(0, 'test')
  assert list(one.index['sample_id']) == list(other.index['sample_id'])


def test_a_named_key_is_used(tmp_path):
  key = tmp_path / 'secret'
  out = tmp_path / 'sim' / 'los'
  build.prepare(source='simulated', task='los', out=out, patients=12, subject_key=key)
  kept = json.loads((out / 'dataset.json').read_text())['subject_key']
  assert kept == key.read_text().strip()
  assert not (tmp_path / 'sim' / KEY_FILE).exists()
