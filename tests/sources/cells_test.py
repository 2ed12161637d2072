"""A cell is read whole or not at all, and what is not read is counted by its form."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.format.schema import DataError
from data_pipeline.sources.common import cells
from data_pipeline.sources.common.raw_tables import RawTables, UnreadableCells

TIME = datetime.datetime(2167, 3, 28, 10, 4)
DATE = datetime.date(2167, 3, 28)
NOTHING = ['', '  ', 'NA', 'NaN', 'nan', 'NULL', 'None', 'NaT', '<NA>', '\\N', 'n/a']
READ = {
  'TIMESTAMP': {
    '2167-03-28 10:04:00': TIME, '2167-03-28T10:04:00': TIME, '2167-03-28 10:04': TIME,
    ' 2167-03-28 10:04:00 ': TIME, '2167-03-28 10:04:00.000': TIME,
    '2167-03-28 10:04:00.250': TIME.replace(microsecond=250_000),
    '2167-03-28 10:04:00.123456789': TIME.replace(microsecond=123_456),
  },
  'DATE': {'2167-03-28': DATE, '2167-03-28 00:00:00': DATE, ' 2167-03-28T00:00 ': DATE},
  'BIGINT': {'12': 12, ' 12 ': 12, '-3': -3, '+5': 5, '10.0': 10, '10.': 10},
  'INTEGER': {'7': 7, '7.00': 7},
  'DOUBLE': {'1': 1, '1.5': 1.5, '-.5': -.5, '5.': 5, '1e3': 1000, '1.2E-2': .012},
}  # fmt: skip
# What DuckDB itself reads in another sense, then what other countries and tools write.
UNREADABLE = {
  'TIMESTAMP': {
    '2167-03-28 10:04:00+05': '9999-99-99 99:99:99+99',
    '2167-03-28 10:04:00Z': '9999-99-99 99:99:99A', 'epoch': 'aaaaa', 'infinity':
    'aaaaaaaa',
    '67-03-28 10:04:00': '99-99-99 99:99:99', '2167-03-28': '9999-99-99',
    '2167/03/28 10:04:00': '9999/99/99 99:99:99', '2167-03-28 24:00:00':
    '9999-99-99 99:99:99', '3/28/2167 10:04': '9/99/9999 99:99', '28-Mar-2167 10:04':
    '99-Aaa-9999 99:99', '28.03.2167 10:04': '99.99.9999 99:99', '2167-02-30 10:04:00':
    '9999-99-99 99:99:99', '6220404000': '9999999999', '2167-03-28 10:04 PM':
    '9999-99-99 99:99 AA', '___': '___',
    'Müller ٣ 山': 'Aaaaaa 9 a',
  },
  'DATE': {
    '3/28/2167': '9/99/9999', '28-Mar-2167': '99-Aaa-9999', '21670328': '99999999',
    '2167-03-28 10:04:00': '9999-99-99 99:99:99', '97622': '99999', '2167-13-01':
    '9999-99-99', '2167-03': '9999-99',
  },
  'BIGINT': {
    '10.6': '99.9', '1e3': '9a9', '2.26E+07': '9.99A+99', '1_000': '9_999', '0x10': '9a99',
    '1,234': '9,999', '1 234': '9 999', 'x': 'a', '99999999999999999999': '9' * 20,
  },
  'INTEGER': {'9999999999': '9' * 10, '1.5': '9.9'},
  'DOUBLE': {
    '1_000': '9_999', '1,5': '9,9', '1,000.0': '9,999.9', '1:10': '9:99', '5%': '9%',
    'inf': 'aaa', '0x10': '9a99', '1e': '9a', '--': '--', '<5': '<9',
  },
}  # fmt: skip


def opened(folder, columns, rows=None, table=None):
  """A RawTables with the view `t` of a csv of one column a kind, or of a parquet table."""
  if table is not None:
    pq.write_table(table, folder / 't.parquet')
  else:
    pd.DataFrame(rows).to_csv(folder / 't.csv', index=False)
  raw = RawTables(folder / 'spill', '1GB', 2)
  raw.open(folder, 't', columns)
  return raw


@pytest.mark.parametrize('kind', READ)
def test_texts_that_are_read(tmp_path, kind):
  texts = [*READ[kind], *NOTHING]
  raw = opened(tmp_path, {'c': kind}, {'c': texts, 'row': range(len(texts))})
  found = raw.run('SELECT c, unreadable_c FROM t').fetchall()
  assert sorted(found, key=str) == sorted(
    [(value, None) for value in READ[kind].values()] + [(None, None)] * len(NOTHING),
    key=str,
  )


@pytest.mark.parametrize('kind', UNREADABLE)
def test_texts_that_are_not_read(tmp_path, kind):
  texts = UNREADABLE[kind]
  raw = opened(tmp_path, {'c': kind}, {'c': list(texts)})
  form = cells.form('unreadable_c', 'VARCHAR')
  found = raw.run(f'SELECT c, unreadable_c, {form} FROM t').fetchall()
  told = [(None, text, form) for text, form in texts.items()]
  assert sorted(found) == sorted(told)


def test_types_of_parquet_are_read_right_or_not_at_all(tmp_path):
  us = lambda unit, zone=None: pa.array([TIME, None]).cast(pa.timestamp(unit, zone))
  midnight = pa.array([datetime.datetime(2167, 3, 28), None]).cast(pa.timestamp('ns'))
  stored = {
    's': (us('s'), 'TIMESTAMP', TIME), 'ms': (us('ms'), 'TIMESTAMP', TIME),
    'us': (us('us'), 'TIMESTAMP', TIME), 'ns': (us('ns'), 'TIMESTAMP', TIME),
    'text': (pa.array(['2167-03-28 10:04', None]), 'TIMESTAMP', TIME),
    'zoned': (us('us', 'UTC'), 'TIMESTAMP', None),
    'day_as_time': (pa.array([DATE, None]), 'TIMESTAMP', None),
    'epoch': (pa.array([1, None], pa.int64()), 'TIMESTAMP', None),
    'day': (pa.array([DATE, None]), 'DATE', DATE),
    'midnight': (midnight, 'DATE', DATE), 'time_as_day': (us('us'), 'DATE', None),
    'whole': (pa.array([3, None], pa.uint8()), 'BIGINT', 3),
    'float': (pa.array([3.0, None]), 'BIGINT', 3), 'half': (pa.array([3.5, None]), 'BIGINT',
    None), 'yes': (pa.array([True, None]), 'INTEGER', 1),
    'number': (pa.array([3, None], pa.int32()), 'DOUBLE', 3.0),
    'bytes': (pa.array([b'3', None]), 'DOUBLE', None),
  }  # fmt: skip
  columns = {name: kind for name, (_, kind, _) in stored.items()}
  columns['nothing'], columns['nan'] = 'TIMESTAMP', 'TIMESTAMP'
  arrays = {name: array for name, (array, _, _) in stored.items()}
  arrays |= {'nothing': pa.nulls(2), 'nan': pa.array([float('nan')] * 2)}
  raw = opened(tmp_path, columns, table=pa.table(arrays))
  for name, (_, kind, expected) in stored.items():
    rows = raw.run(f'SELECT {name}, unreadable_{name} IS NULL FROM t').fetchall()
    assert rows == [(expected, expected is not None), (None, True)], (name, kind)
  for name in ('nothing', 'nan'):
    assert (
      raw.run(f'SELECT {name}, unreadable_{name} FROM t').fetchall() == [(None, None)] * 2
    )


def test_a_slip_is_counted_another_form_is_an_error_a_deciding_column_has_no_slip(tmp_path):
  good, bad = '2167-03-28 10:04:00', '28.03.2167 10:04'
  columns = {'a': 'TIMESTAMP', 'b': 'BIGINT'}
  few = {'a': [good] * 2000 + [bad] * 20, 'b': ['1'] * 2019 + ['x']}
  raw = opened(tmp_path, columns, few)
  counts = {'unreadable: a': 20, 'unreadable: b': 1}
  assert raw.unreadable('t', 't', columns) == counts
  with pytest.raises(UnreadableCells) as error:
    raw.unreadable('t', 't', columns, deciding=('a',))
  assert error.value.rows == {'t': {'read': 2020, **counts}}
  message = str(error.value)
  assert "t.csv: column 'a': 20 cells hold what is not a time, such as '99.99" in message
  assert 'YYYY-MM-DD HH:MM:SS' in message and '28.03' not in message
  many = {'a': [good] * 2000 + [bad] * 21, 'b': ['1'] * 2021}
  with pytest.raises(UnreadableCells, match="column 'a': 21 cells"):
    opened(tmp_path, columns, many).unreadable('t', 't', columns)
  assert cells.too_many(2, 3) and not cells.too_many(1, 3)


def test_columns_are_found_as_tools_write_them(tmp_path):
  raw = RawTables(tmp_path / 'spill', '1GB', 2)
  path = tmp_path / 't.csv'
  sheets = {
    'index of pandas, and one of it read again': ',Unnamed: 0,a,b\n0,0,1,2\n',
    'a comma at the end of every line': 'a,b,\n1,2,\n',
    'other case and blanks': 'A, B \n1,2\n',
    'a column that is not read, twice': 'x,a,x,b\n5,1,6,2\n',
    'byte order mark and another order': '\ufeffb,a\n2,1\n',
    'names with quotes': '"a","b","say ""c"""\n1,2,3\n',
  }
  for what, text in sheets.items():
    path.write_text(text, encoding='utf-8')
    raw.open(tmp_path, 't', {'a': 'BIGINT', 'b': 'BIGINT'})
    assert raw.run('SELECT a, b FROM t').fetchall() == [(1, 2)], what
  path.write_text('a,b,a\n1,2,3\n')
  with pytest.raises(DataError, match=r"t\.csv: column 'a' is repeated"):
    raw.open(tmp_path, 't', {'a': 'BIGINT', 'b': 'BIGINT'})
  path.write_text('a;b\n1;2\n')
  with pytest.raises(DataError, match=r"t\.csv: no column 'a'.*Found: a;b"):
    raw.open(tmp_path, 't', {'a': 'BIGINT', 'b': 'BIGINT'})


def test_no_result_depends_on_the_time_zone_of_the_machine(tmp_path):
  times = pa.array([TIME, TIME]).cast(pa.timestamp('us'))
  pq.write_table(pa.table({'c': times}), tmp_path / 't.parquet')
  script = f"""
from pathlib import Path
from data_pipeline.sources.common.raw_tables import RawTables
folder = Path({str(tmp_path)!r})
raw = RawTables(folder / 'spill', '1GB', 1)
raw.open(folder, 't', {{'c': 'TIMESTAMP'}})
print(raw.run('SELECT c, epoch_us(c), CAST(c AS DATE) FROM t').fetchall())
"""
  told = {
    zone: subprocess.run(
      [sys.executable, '-c', script],
      env=os.environ | {'TZ': zone},
      capture_output=True,
      text=True,
      check=True,
    ).stdout
    for zone in ('UTC', 'Pacific/Kiritimati')
  }
  assert len(set(told.values())) == 1 and '2167' in told['UTC']
