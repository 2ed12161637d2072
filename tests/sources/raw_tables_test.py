"""Raw tables: what DuckDB alone does not notice or gets wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.format.schema import DataError
from data_pipeline.sources.common.raw_tables import RawTables

ROWS = 60_000


@pytest.fixture
def table(tmp_path):
  """The bytes of a table of several blocks, and the file to write them to."""
  values = np.random.default_rng(0).integers(0, 10**6, ROWS)
  text = ''.join(f'{i},{value}\n' for i, value in enumerate(values))
  return ('a,b\n' + text).encode(), tmp_path / 'readings.csv.gz'


def count(path):
  raw = RawTables(path.parent / 'spill', '1GB', 2)
  try:
    raw.open(path.parent, 'readings', {'b': 'BIGINT'})
    return raw.value('SELECT count(b) FROM readings')
  finally:
    raw.close()


def test_whole_gzip_of_one_and_two_members(table):
  text, path = table
  path.write_bytes(gzip.compress(text))
  assert count(path) == ROWS
  middle = text.index(b'\n', len(text) // 2) + 1
  path.write_bytes(gzip.compress(text[:middle]) + gzip.compress(text[middle:]))
  assert count(path) == ROWS


def flip(where):
  def damage(data):
    data[where(len(data))] ^= 1
    return data

  return damage


@pytest.mark.parametrize(
  'damage',
  [
    pytest.param(flip(lambda size: size - 6), id='checksum'),
    pytest.param(flip(lambda size: size - 2), id='length'),
    pytest.param(flip(lambda size: size // 2), id='content'),
    pytest.param(lambda data: data[:-1], id='cut by a byte'),
    pytest.param(lambda data: data[: len(data) // 3], id='cut'),
    pytest.param(lambda data: data + b'more', id='longer'),
  ],
)
def test_damaged_gzip(table, damage):
  text, path = table
  path.write_bytes(damage(bytearray(gzip.compress(text))))
  with pytest.raises(DataError, match=r'readings\.csv\.gz: damaged or truncated gzip'):
    count(path)


def test_malformed_line_of_a_whole_gzip(table):
  text, path = table
  end = text.index(b'\n', len(text) // 2) + 1
  path.write_bytes(gzip.compress(text[:end] + b'1,secret,2\n' + text[end:]))
  line = text[:end].count(b'\n') + 1
  with pytest.raises(
    DataError, match=rf'readings\.csv\.gz, line {line}: not a row'
  ) as error:
    count(path)
  assert 'secret' not in str(error.value)


def test_cells_that_do_not_parse_are_null(table):
  _, path = table
  path.write_bytes(gzip.compress(b'a,b\n1,2\n2,x\n3,\n4,5\n'))
  assert count(path) == 2


def test_databases_apart_share_memory_and_threads_but_no_spill_folder(tmp_path):
  raw = RawTables(tmp_path / 'spill', '1GiB', 3)
  setting = lambda one, name: one.value(f"SELECT current_setting('{name}')")
  parts = [raw.apart(name, 2) for name in ('labevents', 'chartevents')]
  for part in parts:
    assert setting(part, 'memory_limit') == '512.0 MiB'
    assert setting(part, 'threads') == 1
  folders = {setting(one, 'temp_directory') for one in (raw, *parts)}
  assert len(folders) == 3


def test_a_full_disk_says_so_and_what_to_do(tmp_path):
  raw = RawTables(tmp_path / 'spill', '1GB', 2)
  try:
    with pytest.raises(DataError, match=r'the disk is full\. Make room .* --out'):
      raw.copy('SELECT random() AS x FROM range(3000000)', Path('/dev/full'))
  finally:
    raw.close()
