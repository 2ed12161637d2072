"""Plain arrays: NumPy files and rows of tables, in either order of their axes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.ecg import arrays
from data_pipeline.ecg.arrays import Description, check_table, table_of
from data_pipeline.ecg.raw_recording import RawRecording, first_file, listed, read
from data_pipeline.ecg.reading import EcgError
from data_pipeline.format.modalities.waveform import ECG_LEADS
from data_pipeline.format.schema import DataError

LEADS = (*ECG_LEADS[6:], *ECG_LEADS[:6], 'V9')
MILLIVOLTS = Description(500.0, 'mV', ', '.join(LEADS))


@pytest.fixture
def signal():
  return np.random.default_rng(1).normal(size=(5000, 13))


def in_order(signal):
  return signal[:, [LEADS.index(lead) for lead in ECG_LEADS]]


def reason_of(path, description):
  with pytest.raises(EcgError) as caught:
    read(RawRecording(str(path), description))
  assert str(path).partition('#')[0] in caught.value.detail
  return caught.value.reason


@pytest.mark.parametrize('kind', ['float64', 'float32', 'int16'])
def test_both_orders_of_the_axes_and_any_numbers(tmp_path, signal, kind):
  stored = (signal * 1000).astype(kind)
  for name, array in (('a.npy', stored), ('b.npy', stored.T)):
    np.save(tmp_path / name, array)
    description = Description(250.0, 'uV', ' '.join(LEADS).lower())
    found, rate = read(RawRecording(str(tmp_path / name), description))
    np.testing.assert_array_equal(found, in_order(stored).astype(float) * 1e-3)
    assert rate == 250 and first_file(str(tmp_path / name)) == tmp_path / name


def lists(kind, *signals):
  return pa.array([array.tolist() for array in signals], kind)


@pytest.mark.parametrize(
  'kind',
  [
    pa.list_(pa.list_(pa.float64())),
    pa.large_list(pa.large_list(pa.float64())),
    pa.list_(pa.list_(pa.float64(), 5000), 13),
  ],
  ids=str,
)
def test_rows_of_a_table(tmp_path, signal, kind):
  signals = [(signal + row).T for row in range(5)]
  path = tmp_path / 'a table.parquet'
  table = pa.table({'other': range(5), 'samples': lists(kind, *signals)})
  pq.write_table(table, path, row_group_size=2)
  check_table(path)
  for row in (4, 0, 1, 3, 2, 3):
    found, _ = read(RawRecording(f'{path}#{row}', MILLIVOLTS))
    np.testing.assert_array_equal(found, in_order(signal + row))
  assert first_file(f'{path}#3') == path
  # A table that is written again is read again.
  pq.write_table(table.slice(1), path)
  found, _ = read(RawRecording(f'{path}#0', MILLIVOLTS))
  np.testing.assert_array_equal(found, in_order(signal + 1))
  assert reason_of(f'{path}#4', MILLIVOLTS) == 'missing_file'


def test_samples_that_are_not_available(tmp_path, signal):
  path = tmp_path / 't.parquet'
  whole, part = signal.T.tolist(), signal.T.tolist()
  part[2][7] = None
  ragged = [*part[:12], part[12][:-1]]
  rows = [whole, part, None, ragged, [], [*part[:12], None]]
  kind = pa.list_(pa.list_(pa.float32()))
  pq.write_table(pa.table({'samples': pa.array(rows, kind)}), path)
  found, _ = read(RawRecording(f'{path}#1', MILLIVOLTS))
  expected = signal.astype(np.float32).astype(float)
  expected[7, 2] = np.nan
  np.testing.assert_array_equal(found, in_order(expected))
  reasons = [reason_of(f'{path}#{row}', MILLIVOLTS) for row in (2, 3, 4, 5)]
  assert reasons == ['missing_file', 'bad_header', 'bad_header', 'bad_header']
  np.save(tmp_path / 'a.npy', np.where(signal > 2, np.inf, signal))
  found, _ = read(RawRecording(str(tmp_path / 'a.npy'), MILLIVOLTS))
  np.testing.assert_array_equal(np.isnan(found), in_order(signal) > 2)


@pytest.mark.parametrize(
  ('description', 'reason'),
  [
    (Description(None, 'mV', MILLIVOLTS.leads), 'bad_header'),
    (Description(float('nan'), 'mV', MILLIVOLTS.leads), 'bad_header'),
    (Description(-500.0, 'mV', MILLIVOLTS.leads), 'bad_header'),
    (Description(500.0, None, MILLIVOLTS.leads), 'unknown_unit'),
    (Description(500.0, 'furlong', MILLIVOLTS.leads), 'unknown_unit'),
    (Description(500.0, 'mV', None), 'missing_lead'),
    (Description(500.0, 'mV', ' , '), 'missing_lead'),
    (Description(500.0, 'mV', ','.join(ECG_LEADS)), 'bad_header'),  # twelve of thirteen
    (Description(500.0, 'mV', ','.join(['X', *LEADS[1:]])), 'missing_lead'),
  ],
)
def test_arrays_that_are_badly_described(tmp_path, signal, description, reason):
  np.save(tmp_path / 'a.npy', signal)
  assert reason_of(tmp_path / 'a.npy', description) == reason


def test_files_that_are_no_such_array(tmp_path, signal, monkeypatch):
  path = tmp_path / 'a.npy'
  assert reason_of(path, MILLIVOLTS) == 'missing_file'
  assert reason_of(tmp_path / 'no.parquet#1', MILLIVOLTS) == 'missing_file'
  path.write_bytes(b'no array')
  assert reason_of(path, MILLIVOLTS) == 'unreadable'
  np.save(path, np.array([{}], object))
  assert reason_of(path, MILLIVOLTS) == 'unreadable'
  for array in (signal[:, 0], signal[None], signal > 0, signal * 1j):
    np.save(path, array)
    assert reason_of(path, MILLIVOLTS) == 'bad_header'
  np.save(path, signal)
  monkeypatch.setattr(arrays, 'MOST_SAMPLES', 10_000)
  assert reason_of(path, MILLIVOLTS) == 'too_long'


def test_a_table_whose_rows_cannot_be_read_one_by_one(tmp_path, signal, monkeypatch):
  path = tmp_path / 't.parquet'
  kind = pa.list_(pa.list_(pa.float32()))
  table = pa.table({'samples': lists(kind, *[signal.T] * 6)})
  monkeypatch.setattr(arrays, 'MOST_GROUP_BYTES', 2 * signal.size * 4)
  pq.write_table(table, path, use_dictionary=False)
  with pytest.raises(DataError, match=r'6 recordings.*row_group_size=(1|2)\)') as error:
    check_table(path)
  rows = int(str(error.value)[-3])
  pq.write_table(table, path, use_dictionary=False, row_group_size=rows)
  check_table(path)
  for wrong in (pa.array([1.0]), pa.array([[1.0]]), pa.array([[['a']]])):
    pq.write_table(pa.table({'samples': wrong}), path)
    with pytest.raises(DataError, match='list of lists of numbers'):
      check_table(path)


def test_tables_without_descriptions_are_of_files():
  table = pa.table({'path': ['/a/1', '/b.npy']})
  assert listed(table) == [RawRecording('/a/1'), RawRecording('/b.npy')]
  table = pa.table({
    'path': ['/b.npy', '/a'], 'unit': ['mV', None], 'leads': ['I', None],
    'sampling_rate': [100.0, None],
  })  # fmt: skip
  assert listed(table) == [
    RawRecording('/b.npy', Description(100.0, 'mV', 'I')), RawRecording('/a'),
  ]  # fmt: skip
  assert table_of('/a#1/x.parquet#22') == '/a#1/x.parquet'
  assert table_of('/a/record#1') is None
