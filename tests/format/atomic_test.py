"""A file or folder is whole or what it was before."""

from __future__ import annotations

import pytest

from data_pipeline.format.atomic import replacing, replacing_folder, write_text


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_a_file_is_what_it_was_until_the_new_one_is_whole(tmp_path):
  path = tmp_path / 'report.html'
  write_text(path, 'first\r\n')
  with replacing(path) as partial:
    partial.write_text('second')
    assert path.read_bytes() == b'first\r\n'
    assert partial.suffix == '.partial' and partial.parent == tmp_path
  assert path.read_text() == 'second'
  with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
    partial.write_text('half')
    raise KeyboardInterrupt
  assert path.read_text() == 'second' and names(tmp_path) == ['report.html']


def test_of_two_writers_each_has_a_file_of_its_own(tmp_path):
  path = tmp_path / 'shard'
  with replacing(path) as one, replacing(path) as two:
    one.write_text('one')
    two.write_text('two')
  assert path.read_text() == 'one' and names(tmp_path) == ['shard']


def test_a_folder_is_replaced_whole(tmp_path):
  folder = tmp_path / 'new' / 'bundle'
  with replacing_folder(folder) as partial:
    (partial / 'a').write_text('a')
  with replacing_folder(folder) as partial:
    (partial / 'b').write_text('b')
    assert names(folder) == ['a']
  assert names(folder) == ['b']
  with pytest.raises(ValueError), replacing_folder(folder) as partial:
    (partial / 'c').write_text('c')
    raise ValueError
  assert names(folder) == ['b'] and names(folder.parent) == ['bundle']
