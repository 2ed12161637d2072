"""Direct format-16 reading against wfdb, and every way a record can be unusable."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.ecg import conditioning, reading
from data_pipeline.ecg.raw_recording import RawRecording
from data_pipeline.ecg.reading import EcgError, read_record
from data_pipeline.format.modalities.waveform import ECG_LEADS

with warnings.catch_warnings():
  # wfdb uses a pandas argument that newer versions deprecate, at import.
  warnings.simplefilter('ignore', DeprecationWarning)
  import wfdb

pytestmark = pytest.mark.filterwarnings('ignore:The inplace keyword:DeprecationWarning')

# The order of MIMIC-IV-ECG headers: aVF before aVL.
MIMIC_LEADS = ['I', 'II', 'III', 'aVR', 'aVF', 'aVL', 'V1', 'V2', 'V3', 'V4', 'V5', 'V6']


GOOD = 'r.dat 16 200.0(0)/mV 16 0 0 0 0 {lead}'


def write(folder, leads=MIMIC_LEADS, fmt='16', rate=500, samples=5000, units='mV'):
  rng = np.random.default_rng(0)
  signal = np.cumsum(rng.normal(size=(samples, len(leads))), axis=0) / 100
  signal[100:110, 3] = np.nan
  wfdb.wrsamp(
    'r', fs=rate, units=[units] * len(leads), sig_name=leads, p_signal=signal,
    fmt=[fmt] * len(leads), write_dir=str(folder),
  )  # fmt: skip
  return folder / 'r'


def test_direct_read_equals_wfdb_and_orders_leads_by_name(tmp_path):
  path = write(tmp_path)
  signal, rate = read_record(path)
  record = wfdb.rdrecord(str(path))
  expected = record.p_signal[:, [record.sig_name.index(lead) for lead in ECG_LEADS]]
  np.testing.assert_array_equal(signal, expected)
  assert rate == 500
  assert signal.dtype == np.float64
  assert np.isnan(signal[100:110, ECG_LEADS.index('aVR')]).all()


@pytest.mark.parametrize('fmt', ['212', '24', '80'])
def test_other_formats_go_through_wfdb(tmp_path, fmt):
  path = write(tmp_path, fmt=fmt)
  signal, _ = read_record(path)
  record = wfdb.rdrecord(str(path))
  np.testing.assert_array_equal(
    signal, record.p_signal[:, [record.sig_name.index(lead) for lead in ECG_LEADS]]
  )


def test_units_become_millivolts(tmp_path):
  in_millivolts, _ = read_record(write(tmp_path))
  header = tmp_path / 'r.hea'
  header.write_text(header.read_text().replace('/mV', '/uV'))
  in_microvolts, _ = read_record(tmp_path / 'r')
  np.testing.assert_allclose(in_microvolts, in_millivolts * 1e-3)
  for spelling in ('µV', 'μV', 'UV', 'mcV'):  # both characters for micro
    text = header.read_text().replace('/uV', f'/{spelling}')
    header.write_text(text, encoding='utf-8')
    np.testing.assert_array_equal(read_record(tmp_path / 'r')[0], in_microvolts)
    header.write_text(text.replace(f'/{spelling}', '/uV'))
  header.write_text(header.read_text().replace('/uV', '/bananas'))
  with pytest.raises(EcgError, match='unknown_unit'):
    read_record(tmp_path / 'r')


def test_missing_lead(tmp_path):
  path = write(tmp_path, leads=MIMIC_LEADS[:-1])
  with pytest.raises(EcgError, match='V6') as caught:
    read_record(path)
  assert caught.value.reason == 'missing_lead'


def test_dat_shorter_than_its_header(tmp_path):
  path = write(tmp_path)
  dat = tmp_path / 'r.dat'
  dat.write_bytes(dat.read_bytes()[:-10])
  with pytest.raises(EcgError) as caught:
    read_record(path)
  assert caught.value.reason == 'short_dat'


@pytest.mark.parametrize('absent', ['r.hea', 'r.dat'])
def test_absent_file(tmp_path, absent):
  path = write(tmp_path)
  (tmp_path / absent).unlink()
  with pytest.raises(EcgError) as caught:
    read_record(path)
  assert caught.value.reason == 'missing_file'


@pytest.mark.parametrize('text', ['', '# nothing\n', 'r 12 500 5000\nr.dat\n'])
def test_malformed_header(tmp_path, text):
  (tmp_path / 'r.hea').write_text(text)
  with pytest.raises(EcgError) as caught:
    read_record(tmp_path / 'r')
  assert caught.value.reason == 'bad_header'


@pytest.mark.parametrize(
  ('change', 'reason'),
  [
    (('r 12 500 5000', 'r 12 500 4294967295'), 'too_long'),
    (('r 12 500 5000', 'r 12 500 50000'), 'short_dat'),
    (('r 12 500 5000', 'r 12 5e 5000'), 'bad_header'),
    (('r 12 500 5000', 'r 12 1e999 5000'), 'bad_header'),
    (('r 12 500 5000', 'r 99999 500 5000'), 'bad_header'),
    (('r 12 500 5000', 'r/3 12 500 5000'), 'unreadable'),
    (('(0)/mV', '.0.0(0)/mV'), 'bad_header'),
    (('r.dat 16 ', 'r.dat 999 '), 'unreadable'),
    (('r.dat 16 ', '/dev/zero 16 '), 'unreadable'),
  ],
)
def test_a_damaged_header_costs_this_recording_alone(tmp_path, change, reason):
  header = tmp_path / 'r.hea'
  write(tmp_path)
  text = re.sub(r'[-\d.]+\(-?\d+\)/mV', '200(0)/mV', header.read_text())
  assert change[0] in text
  header.write_text(text.replace(*change))
  with pytest.raises(EcgError) as caught:
    conditioning.load(RawRecording(str(tmp_path / 'r')))
  assert caught.value.reason == reason
  assert str(tmp_path / 'r') in caught.value.detail


def test_a_file_of_any_size_is_not_read_into_memory(tmp_path, monkeypatch):
  monkeypatch.setattr(reading, 'MOST_SAMPLES', 10_000)
  for fmt in ('16', '212'):
    path = write(tmp_path, fmt=fmt)
    header = tmp_path / 'r.hea'
    header.write_text(header.read_text().replace(' 5000', '', 1))  # its length unsaid
    with pytest.raises(EcgError) as caught:
      read_record(path)
    assert caught.value.reason == 'too_long', fmt


@settings(max_examples=60, deadline=None, database=None)
@given(data=st.data())
def test_whatever_a_header_says_is_an_error_of_the_recording(tmp_path_factory, data):
  folder = tmp_path_factory.mktemp('fuzz')
  lines = ['r 12 500 1250', *(GOOD.format(lead=lead) for lead in MIMIC_LEADS)]
  rows = st.integers(0, len(lines) - 1)
  pieces = st.one_of(
    st.text(alphabet='0123456789 .-+()/:xmuVeE#\x00é', max_size=8), st.text(max_size=8)
  )
  for _ in range(data.draw(st.integers(1, 3))):
    row = data.draw(rows)
    words = lines[row].split(' ')
    words[data.draw(st.integers(0, len(words) - 1))] = data.draw(pieces)
    lines[row] = ' '.join(words)
  (folder / 'r.hea').write_text('\n'.join(lines), encoding='utf-8', newline='')
  (folder / 'r.dat').write_bytes(bytes(range(250)) * 120)
  try:
    signal, rate = read_record(folder / 'r')
  except EcgError as error:
    assert error.reason and str(folder) in error.detail
  else:
    assert signal.shape[1] == 12 and rate > 0


def test_short_dat_of_another_format_is_counted_too(tmp_path):
  path = write(tmp_path, fmt='212')
  dat = tmp_path / 'r.dat'
  dat.write_bytes(dat.read_bytes()[:1000])
  with pytest.raises(EcgError) as caught:
    read_record(path)
  assert caught.value.reason == 'unreadable'
