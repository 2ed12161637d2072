"""Random cells and lines in the tables of the simulated hospital.

Whatever a table holds, the result is the right one, a counted drop, or one line.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.format.schema import DataError
from data_pipeline.sources import Resources
from data_pipeline.sources.mimic_iv import Settings, stage
from data_pipeline.sources.simulated.hospital import write_hospital
from tests.support.small_hospital import HEADERS

# Columns whose text is data, whatever it says: another text is another value.
_TEXTS = {
  'anchor_year_group', 'admission_type', 'admission_location', 'insurance', 'race',
  'first_careunit', 'icd_code', 'result_name', 'path', 'file_name',
}  # fmt: skip
_TIMES = {'admittime', 'dischtime', 'deathtime', 'intime', 'outtime', 'charttime',
          'storetime', 'starttime', 'ecg_time'}  # fmt: skip
_NUMBERS = {'value', 'comments', 'valueuom', 'gender', 'drug', 'result_value'}
_ROWS = 400  # of a table are enough
# No number, time or category in any form; the last ones are not even text.
_ILLEGAL = (
  'secretq', '#REF!', '1,234.5q', '12:5x', '28-Mar-2150 10:00', '3/28/2150', '1.2.3',
  '2150-13-41 99:99:99', '2150-03-01 10:00:00+05', '½', '>', '[object Object]', 'x\ny',
  '"', "'; DROP TABLE patients; --", 'q' * 5000,
)  # fmt: skip
_LINES = (
  b'1',
  b'',
  b',,',
  b'"',
  b'\xff\xfe\x00',
  b'1,"2',
  b'a\x00b,c',
  b'1,2,3,4,5,6,7,8,9' * 9,
)


class _Hospital:
  """The tables of a simulated hospital as plain csv, changed in one place at a time."""

  def __init__(self, folder, task):
    self.folder, self.task = folder, task
    write_hospital(folder / 'raw', patients=8, seed=1, ecg=True)
    self.lines = {}
    for name in HEADERS:
      root = 'raw/mimic-iv-ecg' if name.startswith('ecg/') else 'raw/mimic-iv'
      path = folder / root / name.removeprefix('ecg/')
      zipped = path.with_name(f'{path.name}.csv.gz')
      if zipped.exists():
        data = gzip.decompress(zipped.read_bytes())
        zipped.unlink()
      else:
        data = path.with_name(f'{path.name}.csv').read_bytes()
      self.lines[name] = data.splitlines()[: _ROWS + 1]
      self.write(name, self.lines[name])
    self.expected = self.staged()

  def write(self, name, lines):
    root = 'raw/mimic-iv-ecg' if name.startswith('ecg/') else 'raw/mimic-iv'
    path = self.folder / root / f'{name.removeprefix("ecg/")}.csv'
    path.write_bytes(b'\n'.join(lines) + b'\n')

  def with_line(self, name, row, line):
    """What is staged when a line of a table is another one."""
    lines = [*self.lines[name]]
    lines[row] = line
    self.write(name, lines)
    try:
      return self.staged()
    finally:
      self.write(name, self.lines[name])

  def cells(self, name, row):
    return next(csv.reader([self.lines[name][row].decode()]))

  def staged(self):
    """Tables as text, and all counts."""
    out = self.folder / 'staged'
    shutil.rmtree(out, ignore_errors=True)
    chosen = Settings(
      mimic_iv=self.folder / 'raw/mimic-iv',
      mimic_iv_ecg=self.folder / 'raw/mimic-iv-ecg',
      static='extended' if self.task == 'cvd' else 'core',
    )
    result = stage(self.task, out, chosen, Resources())
    tables = {
      path.stem: sorted(map(repr, pd.read_parquet(path).to_numpy().tolist()))
      for path in out.glob('*.parquet')
    }
    return tables, json.dumps(result.cohort, sort_keys=True)


@pytest.fixture(scope='module', params=['mortality', 'cvd'])
def hospital(request, tmp_path_factory):
  return _Hospital(tmp_path_factory.mktemp(request.param), request.param)


def _place(data, hospital):
  """A table, a row of it and a column that is read."""
  name = data.draw(st.sampled_from(sorted(HEADERS)), 'table')
  header = hospital.cells(name, 0)
  row = data.draw(st.integers(1, len(hospital.lines[name]) - 1), 'row')
  wanted = [c for c in HEADERS[name].split(',') if c not in _TEXTS]
  column = data.draw(st.sampled_from(wanted), 'column')
  return name, row, header.index(column), column


def _line(cells):
  text = io.StringIO()
  csv.writer(text, lineterminator='').writerow(cells)
  return text.getvalue().encode()


@settings(max_examples=5, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_an_illegal_cell_is_counted_or_refused(hospital, data):
  name, row, position, _ = _place(data, hospital)
  cells = hospital.cells(name, row)
  cells[position] = data.draw(st.sampled_from(_ILLEGAL), 'cell')
  _check(hospital, name, row, _line(cells), cells[position])


@settings(max_examples=3, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_a_damaged_line_is_counted_or_refused(hospital, data):
  name = data.draw(st.sampled_from(sorted(HEADERS)), 'table')
  row = data.draw(st.integers(1, len(hospital.lines[name]) - 1), 'row')
  line = data.draw(st.sampled_from(_LINES), 'line')
  _check(hospital, name, row, line, None)


def _check(hospital, name, row, line, cell):
  try:
    tables, counts = hospital.with_line(name, row, line)
  except DataError as error:
    message = str(error)
    assert name.partition('/')[2] in message and '\n' not in message
    assert cell is None or len(cell) < 4 or cell not in message, 'a cell in a message'
    return
  expected, expected_counts = hospital.expected
  assert tables == expected or counts != expected_counts, 'changed, and not counted'


@settings(max_examples=3, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_another_spelling_is_the_same_cell(hospital, data):
  name, row, position, column = _place(data, hospital)
  cells = hospital.cells(name, row)
  text = cells[position]
  if column in _TIMES and text:
    spelling = data.draw(st.sampled_from(['{} ', '{}.000', '{}']), 'spelling')
    cells[position] = spelling.format(text.replace(' ', 'T'))
  elif text.isdigit() and column not in _NUMBERS:
    cells[position] = data.draw(st.sampled_from(['{}.0', ' {} ', '{}.', '+{}'])).format(
      text
    )
  elif not text and column not in _NUMBERS and not column.startswith('report'):
    cells[position] = data.draw(st.sampled_from(['NA', 'NULL', '\\N', ' ', 'nan']))
  assert hospital.with_line(name, row, _line(cells)) == hospital.expected
