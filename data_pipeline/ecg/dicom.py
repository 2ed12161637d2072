"""Reads 12-lead ECGs from DICOM waveforms, as electrocardiographs store them.

Reads the first multiplex group of a file that was recorded (not derived, as a median beat
is) and has all twelve leads. Leads are named by their source (CID 3001 of DICOM PS3.16: MDC
and SCP-ECG codes), or else by its meaning or the channel's label.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from data_pipeline.ecg.reading import (
  MOST_SAMPLES,
  EcgError,
  costing_one_file,
  in_millivolts,
)
from data_pipeline.format.modalities.waveform import ECG_LEADS
from data_pipeline.format.schema import DataError

ENDINGS = ('.dcm', '.dicom')
_ECG_CLASSES = {
  '1.2.840.10008.5.1.4.1.1.9.1.1': '12-lead ECG',
  '1.2.840.10008.5.1.4.1.1.9.1.2': 'General ECG',
  '1.2.840.10008.5.1.4.1.1.9.1.4': 'General 32-bit ECG',
}
_NUMBERS = (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8)  # lead numbers in MDC and SCP-ECG
_LEAD_OF = {
  f'{prefix}{number}': lead
  for prefix in ('2:', '5.6.3-9-')
  for number, lead in zip(_NUMBERS, ECG_LEADS, strict=True)
}
_MEANING = re.compile(r'\(.*\)|\b(?:ecg|ekg|lead)\b|[\s_:]+', re.IGNORECASE)


def pydicom_package() -> ModuleType:
  """The package that reads DICOM.

  Raises:
    DataError: it is not installed.
  """
  try:
    import pydicom
  except ImportError as error:
    raise DataError(
      f"DICOM waveforms need {error.name}: pip install 'medm2t_jax[dicom]'"
    ) from None
  return pydicom


def is_dicom(path: str) -> bool:
  """Whether a path is that of a DICOM file, by its extension or its first bytes."""
  if path.lower().endswith(ENDINGS):
    return True
  try:
    with open(path, 'rb') as file:
      return file.read(132)[128:] == b'DICM'
  except OSError:
    return False


def read_dicom(path: str) -> tuple[np.ndarray, float]:
  """Reads the 12-lead ECG of a DICOM file.

  Returns:
    The signal in mV, float64 (samples, 12), leads in the order of `schema.ECG_LEADS`,
    NaN where the file has padding; and the sampling rate in Hz.

  Raises:
    EcgError: 'missing_file', 'bad_header' (no ECG waveform), 'short_dat', 'too_long',
      'missing_lead', 'unknown_unit', or 'unreadable' for any other failure.
    DataError: pydicom is not installed.
  """
  pydicom = pydicom_package()
  with costing_one_file(Path(path)):
    try:
      size = Path(path).stat().st_size
    except FileNotFoundError:
      raise EcgError('missing_file', f'{path} does not exist') from None
    if size > 4 * MOST_SAMPLES:
      raise EcgError('too_long', f'{path}: larger than {MOST_SAMPLES} samples')
    return _read(pydicom.dcmread(path), path)


def _read(dataset: Any, path: str) -> tuple[np.ndarray, float]:
  kind = str(dataset.get('SOPClassUID', ''))
  groups = list(dataset.get('WaveformSequence') or ())
  if kind not in _ECG_CLASSES or not groups:
    raise EcgError(
      'bad_header', f'{path}: SOP class {kind or "none"} is not a 12-lead ECG waveform'
    )
  if not dataset.original_encoding[1]:
    raise EcgError('bad_header', f'{path}: big-endian samples')
  recorded = [each for each in groups if each.get('WaveformOriginality') != 'DERIVED']
  complete = (each for each in recorded if {*ECG_LEADS} <= {*_leads(each)})
  group = next(complete, (recorded or groups)[0])
  rate = float(group.get('SamplingFrequency') or 0)
  if not 0 < rate < float('inf'):
    raise EcgError('bad_header', f'{path}: sampling frequency {rate}')
  channels = group.ChannelDefinitionSequence
  units = [_code(one, 'ChannelSensitivityUnitsSequence', 'CodeValue') for one in channels]
  return in_millivolts(_values(group, path), _leads(group), units, path), rate


def _values(group: Any, path: str) -> np.ndarray:
  """The values of a group in the units of its channels: float64 (samples, channels)."""
  from pydicom.waveforms.numpy_handler import WAVEFORM_DTYPES

  samples, count = group.NumberOfWaveformSamples, group.NumberOfWaveformChannels
  if samples * count > MOST_SAMPLES:
    raise EcgError('too_long', f'{path}: {samples} samples of {count} channels')
  interpretation = (group.WaveformBitsAllocated, group.WaveformSampleInterpretation)
  if interpretation[1] in ('MB', 'AB') or interpretation not in WAVEFORM_DTYPES:
    raise EcgError('bad_header', f'{path}: samples of {interpretation} are not linear')
  kind = np.dtype(WAVEFORM_DTYPES[interpretation]).newbyteorder('<')
  stored = group.WaveformData
  if len(stored) < samples * count * kind.itemsize or samples == 0:
    raise EcgError('short_dat', f'{path}: shorter than its header says')
  raw = np.frombuffer(stored, kind, samples * count).reshape(samples, count)
  number = lambda name, usual: np.array(
    [float(one.get(name, usual)) for one in group.ChannelDefinitionSequence]
  )
  scale = number('ChannelSensitivity', 1) * number('ChannelSensitivityCorrectionFactor', 1)
  values = raw * scale + number('ChannelBaseline', 0)
  padding = group.get('WaveformPaddingValue')
  if padding:
    values[raw == np.frombuffer(padding, kind, 1)[0]] = np.nan
  return values


def _leads(group: Any) -> list[str]:
  """Names of the channels, as in `schema.ECG_LEADS` for the twelve leads."""
  known = {lead.lower(): lead for lead in ECG_LEADS}
  names = []
  for channel in group.ChannelDefinitionSequence:
    source = _LEAD_OF.get(_code(channel, 'ChannelSourceSequence', 'CodeValue'))
    said = (
      _code(channel, 'ChannelSourceSequence', 'CodeMeaning'),
      str(channel.get('ChannelLabel', '')),
    )
    meant = (known.get(_MEANING.sub('', text).lower()) for text in said)
    names.append(source or next(filter(None, meant), said[0] or said[1]))
  return names


def _code(channel: Any, sequence: str, field: str) -> str:
  items = channel.get(sequence) or [{}]
  return str(items[0].get(field, ''))
