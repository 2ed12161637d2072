"""DICOM waveforms: leads by their codes, physical values, and what is refused."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest

from data_pipeline.ecg import dicom, reading
from data_pipeline.ecg.dicom import read_dicom
from data_pipeline.ecg.raw_recording import RawRecording, first_file, read
from data_pipeline.ecg.reading import EcgError
from data_pipeline.format.modalities.waveform import ECG_LEADS
from data_pipeline.format.schema import DataError
from tests.support import dicom_ecg
from tests.support.dicom_ecg import LEADS, group, write


@pytest.fixture
def raw():
  return np.random.default_rng(0).integers(-900, 900, (5000, 12)).astype(np.int16)


def reason_of(path):
  with pytest.raises(EcgError) as caught:
    read_dicom(str(path))
  assert str(path) in caught.value.detail
  return caught.value.reason


def in_order(values, leads=LEADS):
  return values[:, [leads.index(lead) for lead in ECG_LEADS]]


@pytest.mark.parametrize('naming', ['MDC', 'SCPECG', 'label'])
def test_leads_are_found_by_code_meaning_or_label(tmp_path, raw, naming):
  path = write(tmp_path / 'a.dcm', group(raw, naming=naming))
  signal, rate = read_dicom(str(path))
  np.testing.assert_allclose(signal, in_order(raw) * 4.88e-3, rtol=1e-12)
  assert rate == 500


def test_sensitivity_correction_baseline_unit_and_padding(tmp_path, raw):
  raw[17, 3] = dicom_ecg.PADDING
  values = dict(sensitivity=0.5, correction=1.25, baseline=0.125)
  path = write(tmp_path / 'a.dcm', group(raw, unit='mV', rate=250, **values))
  signal, rate = read_dicom(str(path))
  expected = raw * 0.5 * 1.25 + 0.125
  expected[17, 3] = np.nan
  np.testing.assert_allclose(signal, in_order(expected), rtol=1e-12)
  assert rate == 250 and np.isnan(signal).sum() == 1


def test_the_recorded_group_with_all_leads_is_read(tmp_path, raw):
  beat = group(raw[:600] + 1, originality='DERIVED')
  rhythm = group(raw[:, :1] + 2, LEADS[1:2])
  path = write(tmp_path / 'a.dcm', beat, rhythm, group(raw), group(raw + 3))
  np.testing.assert_allclose(read_dicom(str(path))[0], in_order(raw) * 4.88e-3)


def test_a_file_without_ending_is_known_by_its_first_bytes(tmp_path, raw):
  path = write(tmp_path / '1.2.840.55', group(raw))
  found, _ = read(RawRecording(str(path)))
  np.testing.assert_allclose(found, in_order(raw) * 4.88e-3)
  assert first_file(str(path)) == path
  # A file that is neither is looked for as a WFDB record.
  (tmp_path / 'other').write_bytes(bytes(300))
  with pytest.raises(EcgError, match=r'missing_file: .*other\.hea'):
    read(RawRecording(str(tmp_path / 'other')))


def test_whatever_a_file_lacks_is_its_own_error(tmp_path, raw):
  path = tmp_path / 'a.dcm'
  assert reason_of(path) == 'missing_file'
  path.write_bytes(b'not DICOM at all' * 30)
  assert reason_of(path) == 'unreadable'
  write(path, group(raw), sop_class='1.2.840.10008.5.1.4.1.1.9.2.1')  # hemodynamics
  assert reason_of(path) == 'bad_header'
  write(path)
  assert reason_of(path) == 'bad_header'
  write(path, group(raw[:, :11], LEADS[:11]))
  assert reason_of(path) == 'missing_lead'
  write(path, group(raw, (*LEADS[:11], 'V9')))
  assert reason_of(path) == 'missing_lead'
  write(path, group(raw, unit='mm[Hg]'))
  assert reason_of(path) == 'unknown_unit'
  write(path, group(raw, rate=0.0))
  assert reason_of(path) == 'bad_header'
  short = group(raw)
  short.NumberOfWaveformSamples = 5001
  write(path, short)
  assert reason_of(path) == 'short_dat'
  logarithmic = group(raw)
  logarithmic.WaveformBitsAllocated, logarithmic.WaveformSampleInterpretation = 8, 'MB'
  write(path, logarithmic)
  assert reason_of(path) == 'bad_header'


def test_a_cut_file_costs_this_recording_alone(tmp_path, raw):
  path = write(tmp_path / 'a.dcm', group(raw))
  whole = path.read_bytes()
  for size in (len(whole) // 3, len(whole) - 100, 140, 10, 0):
    path.write_bytes(whole[:size])
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # pydicom's, of the cut
      assert reason_of(path) in ('unreadable', 'bad_header', 'short_dat')


def test_a_file_of_any_size_is_not_read_into_memory(tmp_path, raw, monkeypatch):
  path = write(tmp_path / 'a.dcm', group(raw))
  for module in (reading, dicom):
    monkeypatch.setattr(module, 'MOST_SAMPLES', 10_000)
  assert reason_of(path) == 'too_long'


def test_without_the_package_it_says_what_to_install(tmp_path, raw, monkeypatch):
  path = write(tmp_path / 'a.dcm', group(raw))
  monkeypatch.setitem(sys.modules, 'pydicom', None)
  with pytest.raises(DataError, match=r"pydicom: pip install 'medm2t_jax\[dicom\]'"):
    read(RawRecording(str(path)))
