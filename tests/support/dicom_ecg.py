"""DICOM waveform files as electrocardiographs write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, TwelveLeadECGWaveformStorage, generate_uid

# The order of many devices, which is that of the codes.
LEADS = ('I', 'II', 'V1', 'V2', 'V3', 'V4', 'V5', 'V6', 'III', 'aVR', 'aVL', 'aVF')
NUMBERS = dict(zip(LEADS, (1, 2, 3, 4, 5, 6, 7, 8, 61, 62, 63, 64), strict=True))
PADDING = -32768


def code(value: str, scheme: str, meaning: str) -> Dataset:
  item = Dataset()
  item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
  return item


def group(
  raw: np.ndarray,
  leads: Sequence[str] = LEADS,
  *,
  rate: float = 500.0,
  unit: str = 'uV',
  sensitivity: float = 4.88,
  correction: float = 1.0,
  baseline: float = 0.0,
  naming: str = 'MDC',
  originality: str = 'ORIGINAL',
) -> Dataset:
  """A multiplex group.

  Args:
    raw: int16 (samples, leads).
    leads: names, in the order of `raw`.
    rate: Hz.
    unit: of `sensitivity` and `baseline`.
    sensitivity: value of one unit of `raw`.
    correction: factor of it.
    baseline: value of 0.
    naming: 'MDC', 'SCPECG', or 'label': how a channel says its lead.
    originality: 'ORIGINAL' or 'DERIVED'.
  """
  item = Dataset()
  item.WaveformOriginality = originality
  item.NumberOfWaveformChannels = len(leads)
  item.NumberOfWaveformSamples = len(raw)
  item.SamplingFrequency = rate
  item.ChannelDefinitionSequence = []
  for lead in leads:
    channel = Dataset()
    if naming == 'label':
      channel.ChannelLabel = f'Lead {lead}'
      channel.ChannelSourceSequence = [code('X', '99LOCAL', 'an electrode')]
    else:
      prefix = {'MDC': '2:', 'SCPECG': '5.6.3-9-'}[naming]
      value = f'{prefix}{NUMBERS.get(lead, 99)}'
      channel.ChannelSourceSequence = [code(value, naming, f'Lead {lead}')]
    channel.ChannelSensitivity = sensitivity
    channel.ChannelSensitivityUnitsSequence = [code(unit, 'UCUM', unit)]
    channel.ChannelSensitivityCorrectionFactor = correction
    channel.ChannelBaseline = baseline
    channel.WaveformBitsStored = 16
    item.ChannelDefinitionSequence.append(channel)
  item.WaveformBitsAllocated = 16
  item.WaveformSampleInterpretation = 'SS'
  item.add_new('WaveformPaddingValue', 'OW', np.int16(PADDING).tobytes())
  item.add_new('WaveformData', 'OW', raw.astype('<i2').tobytes())
  return item


def write(
  path: Path, *groups: Dataset, sop_class: str = TwelveLeadECGWaveformStorage
) -> Path:
  """Writes a file with these groups."""
  dataset = Dataset()
  dataset.file_meta = FileMetaDataset()
  dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
  dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
  dataset.Modality = 'ECG'
  dataset.WaveformSequence = list(groups)
  dataset.save_as(path, enforce_file_format=True)
  return path
