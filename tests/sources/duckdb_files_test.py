"""A path means exactly itself, whatever characters it has."""

from __future__ import annotations

import gzip

import duckdb
import pytest

from data_pipeline.sources.common import duckdb_files
from data_pipeline.sources.common.raw_tables import RawTables

NAMES = (
  'gender=F', 'a*b', 'a?b', '**', '[ab]', 'a[b', '[!a]', "it's", 'a\\b', '~', 'ä {x} %20',
  '$HOME', 'a;b,c', 'a\nb', 'gender=M/x*',
)  # fmt: skip


@pytest.fixture
def con():
  with duckdb.connect() as connection:
    yield connection


@pytest.fixture(params=NAMES, ids=repr)
def folder(request, tmp_path, con):
  """A folder with that name, beside ones that its name as a pattern would match."""
  for name in (request.param, 'a', 'b', 'aab', 'axb', 'a[b', 'gender=M/xy'):
    made = tmp_path / name
    made.mkdir(parents=True, exist_ok=True)
    own = 1 if name == request.param else 2
    con.execute(
      f"COPY (SELECT {own} AS value, 'X' AS gender) "
      f'TO {duckdb_files.text(made / "t.parquet")} (FORMAT parquet)'
    )
    (made / 'csv.csv').write_text(f'value,gender\n{own},X\n')
    (made / 'zip.csv.gz').write_bytes(gzip.compress(f'value,gender\n{own},X\n'.encode()))
  own = tmp_path / request.param
  con.execute(
    "COPY (SELECT 1 AS value, 'X' AS gender) "
    f'TO {duckdb_files.text(own / "t.parquet")} (FORMAT parquet)'
  )
  return own


def test_a_parquet_file_is_read_and_written_where_it_is(folder, con):
  path = folder / 't.parquet'
  assert path.exists()
  rows = con.execute(f'SELECT value, gender FROM {duckdb_files.parquet(path)}').fetchall()
  assert rows == [(1, 'X')]


def test_raw_tables_have_their_own_columns_and_nobody_elses_rows(folder, tmp_path):
  raw = RawTables(tmp_path / 'spill', '1GB', 1)
  for name in ('t', 'csv', 'zip'):
    raw.open(folder, name, {'value': 'BIGINT', 'gender': 'VARCHAR'}, view='opened')
    assert raw.run('SELECT value, gender FROM opened').fetchall() == [(1, 'X')]
    raw.copy('SELECT * FROM opened', folder / 'copy.parquet')
    copied = duckdb_files.parquet(folder / 'copy.parquet')
    assert raw.value(f'SELECT gender FROM {copied}') == 'X'
  raw.close()
