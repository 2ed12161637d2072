"""Reads a 12-lead WFDB record in millivolts, with leads looked up by name.

MIMIC-IV-ECG stores format 16 (little-endian int16, leads interleaved), which
NumPy reads at memory speed; wfdb reads every other format. Headers of
MIMIC-IV-ECG list aVF before aVL, so leads are always looked up by name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data_pipeline.format.modalities.waveform import ECG_LEADS
from data_pipeline.sources.common.units import unit_key

_INVALID_FORMAT_16 = -32768  # WFDB: sample not available
# Samples of all leads: 12 leads at 1,000 Hz for over an hour. Only ten seconds of a
# recording are used, and a damaged header may ask for any amount of memory.
MOST_SAMPLES = 50_000_000
_MILLIVOLTS = {'mv': 1.0, 'uv': 1e-3, 'v': 1e3}
_RECORD_LINE = re.compile(
  r'^(?P<name>[^\s/]+)(?P<segments>/\d+)?\s+(?P<signals>\d+)'
  r'(?:\s+(?P<rate>[\d.eE+]+)(?:/\S+)?(?:\([^)]*\))?(?:\s+(?P<samples>\d+))?)?'
)
_SIGNAL_LINE = re.compile(
  r'^(?P<file>\S+)\s+(?P<format>\S+)'
  r'(?:\s+(?P<gain>[-\d.eE+]+)(?:\((?P<baseline>-?\d+)\))?(?:/(?P<unit>\S+))?'
  r'(?:\s+\d+(?:\s+(?P<zero>-?\d+)(?:\s+-?\d+(?:\s+-?\d+(?:\s+-?\d+'
  r'(?:\s+(?P<lead>.+))?)?)?)?)?)?)?\s*$'
)


class EcgError(Exception):
  """A recording that cannot be used.

  Attributes:
    reason: a short code for counting, for example 'missing_lead'.
  """

  def __init__(self, reason: str, detail: str):
    super().__init__(f'{reason}: {detail}')
    self.reason = reason
    self.detail = detail

  def __reduce__(self):  # so that it survives a process pool
    return type(self), (self.reason, self.detail)


@dataclasses.dataclass(frozen=True)
class _Signal:
  file: str
  format: str
  gain: float  # ADC units per physical unit
  baseline: int
  unit: str
  lead: str


@dataclasses.dataclass(frozen=True)
class _Header:
  sampling_rate: float
  samples: int  # 0: not given
  count: int  # of signals
  segments: bool
  signals: tuple[_Signal, ...]


def read_record(path: Path | str) -> tuple[np.ndarray, float]:
  """Reads a record.

  Args:
    path: the record's path without extension, as in `record_list.csv`.

  Returns:
    The signal in mV, float64 (samples, 12), leads in the order of
    `schema.ECG_LEADS`, NaN where a sample is not available; and the sampling
    rate in Hz.

  Raises:
    EcgError: 'missing_file', 'bad_header', 'short_dat', 'too_long', 'missing_lead',
      'unknown_unit', or 'unreadable' for any other failure.
  """
  path = Path(path)
  with costing_one_file(path):
    return _read(path)


@contextlib.contextmanager
def costing_one_file(path: Path) -> Iterator[None]:
  """Turns any failure to read a recording into an `EcgError`.

  The content of a file can make WFDB's decoders raise any exception, even `MemoryError`.
  """
  try:
    yield
  except EcgError:
    raise
  except Exception as error:
    raise EcgError('unreadable', f'{path}: {type(error).__name__}: {error}') from error


def in_millivolts(
  signal: np.ndarray, leads: Sequence[str], units: Sequence[str], where: str
) -> np.ndarray:
  """The twelve leads of a signal, found by name, in mV.

  Args:
    signal: (samples, leads) in these units.
    leads: names in any order and case; further leads are allowed.
    units: one per lead.
    where: the file, for the message.

  Returns:
    float64 (samples, 12), in the order of `schema.ECG_LEADS`.

  Raises:
    EcgError: 'missing_lead' or 'unknown_unit'.
  """
  position = {lead.lower(): column for column, lead in enumerate(leads)}
  missing = [lead for lead in ECG_LEADS if lead.lower() not in position]
  if missing:
    raise EcgError('missing_lead', f'{where}: no lead {", ".join(missing)}')
  order = [position[lead.lower()] for lead in ECG_LEADS]
  scales = [_MILLIVOLTS.get(unit_key(units[column])) for column in order]
  if None in scales:
    raise EcgError('unknown_unit', f'{where}: unit is none of mV, uV, V')
  return signal[:, order] * np.asarray(scales, np.float64)


def _read(path: Path) -> tuple[np.ndarray, float]:
  header = _read_header(path)
  if header.samples * header.count > MOST_SAMPLES:
    raise EcgError(
      'too_long', f'{path}.hea: {header.samples} samples of {header.count} signals'
    )
  files = {path.with_name(signal.file) for signal in header.signals}
  if sum(file.stat().st_size for file in files if file.exists()) > 4 * MOST_SAMPLES:
    raise EcgError(
      'too_long', f'{path}: its signals are larger than {MOST_SAMPLES} samples'
    )
  if _is_plain_format_16(header):
    signal = _read_format_16(path, header)
    units = [entry.unit for entry in header.signals]
    leads = [entry.lead for entry in header.signals]
    rate = header.sampling_rate
  else:
    signal, units, leads, rate = _read_with_wfdb(path)
  return in_millivolts(signal, leads, units, f'{path}.hea'), rate


def _read_header(path: Path) -> _Header:
  file = path.with_name(path.name + '.hea')
  try:
    text = file.read_text(encoding='utf-8', errors='replace')
  except FileNotFoundError:
    raise EcgError('missing_file', f'{file} does not exist') from None
  lines = [line for line in text.splitlines() if line.strip() and not line.startswith('#')]
  record = _RECORD_LINE.match(lines[0]) if lines else None
  if record is None:
    raise EcgError('bad_header', f'{file}: no record line')
  segments = record['segments'] is not None
  signals = []
  for line in [] if segments else lines[1 : 1 + int(record['signals'])]:
    match = _SIGNAL_LINE.match(line)
    if match is None:
      raise EcgError('bad_header', f'{file}: malformed signal line')
    zero = int(match['zero'] or 0)
    gain = _number(match['gain'], file)
    signals.append(
      _Signal(
        file=match['file'],
        format=match['format'],
        gain=gain or 200.0,  # WFDB's default gain
        baseline=int(match['baseline']) if match['baseline'] else zero,
        unit=match['unit'] or 'mV',
        lead=(match['lead'] or '').strip(),
      )
    )
  if not segments and len(signals) != int(record['signals']):
    raise EcgError('bad_header', f'{file}: fewer signal lines than signals')
  rate = _number(record['rate'], file) or 250.0  # WFDB's default rate
  if rate <= 0:
    raise EcgError('bad_header', f'{file}: sampling rate {rate}')
  count = int(record['signals'])
  return _Header(rate, int(record['samples'] or 0), count, segments, tuple(signals))


def _number(text: str | None, file: Path) -> float:
  """A number of a header; 0 if it is absent."""
  try:
    number = float(text or 0)
  except ValueError:
    number = math.nan
  if not math.isfinite(number):
    raise EcgError('bad_header', f'{file}: a gain or rate is not a number')
  return number


def _is_plain_format_16(header: _Header) -> bool:
  return (
    not header.segments
    and bool(header.signals)
    and all(entry.format == '16' for entry in header.signals)
    and len({entry.file for entry in header.signals}) == 1
  )


def _read_format_16(path: Path, header: _Header) -> np.ndarray:
  file = path.with_name(header.signals[0].file)
  count = len(header.signals)
  try:
    stored = file.stat().st_size // 2
  except FileNotFoundError:
    raise EcgError('missing_file', f'{file} does not exist') from None
  samples = header.samples or stored // count
  if stored < samples * count or samples == 0:
    raise EcgError('short_dat', f'{file}: shorter than its header says')
  raw = np.fromfile(file, '<i2', count=samples * count).reshape(samples, count)
  baseline = np.array([entry.baseline for entry in header.signals], np.float64)
  gain = np.array([entry.gain for entry in header.signals], np.float64)
  signal = (raw - baseline) / gain
  signal[raw == _INVALID_FORMAT_16] = np.nan
  return signal


def _read_with_wfdb(path: Path) -> tuple[np.ndarray, list[str], list[str], float]:
  import wfdb  # imported late, because it imports pandas; MIMIC-IV-ECG does not need it

  try:
    record = wfdb.rdrecord(str(path))
  except FileNotFoundError:
    raise EcgError('missing_file', f'{path}: a file of the record is absent') from None
  assert isinstance(record, wfdb.Record)
  signal = np.asarray(record.p_signal, np.float64)
  return (
    signal,
    list(record.units or ()),
    list(record.sig_name or ()),
    float(record.fs or 0),
  )
