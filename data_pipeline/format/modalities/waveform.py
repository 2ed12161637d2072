"""Waveforms: recordings of a 12-lead ECG, each with its measurements and report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from data_pipeline.format.items import Item
from data_pipeline.format.modalities import base
from data_pipeline.format.modalities.base import Arrays, Cost, Feature, Table
from data_pipeline.format.modalities.staged import StagedRows

ECG_LEADS = ('I', 'II', 'III', 'aVR', 'aVL', 'aVF', 'V1', 'V2', 'V3', 'V4', 'V5', 'V6')
ECG_SAMPLING_RATE = 125  # Hz, after conditioning
ECG_SAMPLES = 1250  # 10 s
ECG_MEASUREMENTS = (
  'rr_interval', 'p_onset', 'p_end', 'qrs_onset', 'qrs_end', 't_end',
  'p_axis', 'qrs_axis', 't_axis',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Waveform(base.Modality):
  """Recordings: signal, machine measurements and the terms of the report.

  Staged as `recordings.parquet`: `sample_id`, `study_id` BIGINT, `path` VARCHAR (see
  `data_pipeline.ecg.raw_recording`), `time` FLOAT, the nine measurements DOUBLE (null =
  missing or sentinel), `terms` INTEGER[] (indices into `terms`). A data set has at most
  one waveform modality.

  Attributes:
    terms: SNOMED CT terms of report lines.
  """

  terms: tuple[str, ...]

  kind = 'waveform'
  layout = 'packed'
  prefix = '{name}'
  table = Table('recordings', order='time, study_id', raw_files=True)
  counted = 'time'
  noun = 'recordings'
  time = 'time'

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> Self:
    return cls(tuple(fields['terms']))

  @property
  def cost(self) -> Cost:
    return Cost('recordings', row_bytes=30_500, rows_per_second=200, parallel=True)

  @property
  def variables(self) -> tuple[Item, ...]:
    return tuple(Item(name, name) for name in (*ECG_MEASUREMENTS, *self.terms))

  def labels(self) -> list[tuple[str, bool]]:
    measurements = [(name, False) for name in ECG_MEASUREMENTS]
    return [*measurements, *((f'term {term}', True) for term in self.terms)]

  @property
  def arrays(self) -> dict[str, Feature]:
    measurements = (None, len(ECG_MEASUREMENTS))
    signal = (None, ECG_SAMPLES, len(ECG_LEADS))
    return {
      'signal': Feature(
        np.int16,
        signal,
        heavy=True,
        meaning='10 s at 125 Hz of the leads ' + ', '.join(ECG_LEADS),
      ),
      'gain': Feature(np.float32, (None,), meaning='units of the signal per mV'),
      'time': Feature(np.float32, (None,), meaning=base.HOURS),
      'study_id': Feature(np.int64, (None,), batch='unread'),
      'measurements': Feature(
        np.float32,
        measurements,
        meaning='machine measurements, in ms or degrees: ' + ', '.join(ECG_MEASUREMENTS),
      ),
      'measurements_mask': Feature(
        np.uint8, measurements, batch='flag', meaning='true if it is known'
      ),
      'terms': Feature(
        np.uint8,
        (None, len(self.terms)),
        absurd=1,
        meaning='1 if the report has the term',
      ),
    }

  def examples(self, rows: StagedRows) -> Iterator[dict[str, np.ndarray]]:
    terms_of = rows.listed('terms')
    time = rows.column('time').astype(np.float32)
    study_id = rows.column('study_id').astype(np.int64)
    measured = np.stack(
      [rows.column(name, np.float32) for name in ECG_MEASUREMENTS], axis=1
    )
    mask = np.isfinite(measured)
    terms = np.zeros((len(terms_of), len(self.terms)), np.uint8)
    for row, indices in enumerate(terms_of):
      terms[row, indices or []] = 1
    rows.check('time', time <= 0)
    assert rows.read_raw is not None
    for sample, of_sample in enumerate(rows.slices()):
      usable, signals = [], []
      for row in range(of_sample.start, of_sample.stop):
        recording = rows.read_raw(sample, row)
        if recording is not None:
          usable.append(row)
          signals.append(recording)
      signal = np.zeros((len(usable), ECG_SAMPLES, len(ECG_LEADS)), np.int16)
      for slot, recording in enumerate(signals):
        signal[slot] = recording[0]
      yield {
        'signal': signal,
        'gain': np.array([recording[1] for recording in signals], np.float32),
        'time': time[usable],
        'study_id': study_id[usable],
        'measurements': np.where(mask[usable], measured[usable], np.float32(0)),
        'measurements_mask': mask[usable].astype(np.uint8),
        'terms': terms[usable],
      }

  def aligned(self, data: Waveform, places: Sequence[int], arrays: Arrays) -> Arrays:
    del data
    terms = np.array(places[len(ECG_MEASUREMENTS) :], np.int64)
    terms = np.where(terms >= 0, terms - len(ECG_MEASUREMENTS), -1)
    missing = np.zeros((), arrays['terms'].dtype)
    return {**arrays, 'terms': base.chosen(arrays['terms'], terms, missing)}

  def last_values(self, arrays: Arrays) -> np.ndarray:
    value, mask = arrays['measurements'][-1:], arrays['measurements_mask'][-1:]
    terms = arrays['terms'][-1:]
    return np.concatenate(
      [base.last_seen(value, mask), base.last_seen(terms, np.ones_like(terms))]
    )

  def found(self, arrays: Arrays, rows: tuple[int, int]) -> np.ndarray:
    """A row has a report term if one of its reports contains it."""
    has = np.zeros((*rows, len(ECG_MEASUREMENTS) + len(self.terms)), bool)
    measured = arrays['measurements_mask'] & arrays['mask'][..., np.newaxis]
    reported = (arrays['terms'] > 0) & arrays['mask'][..., np.newaxis]
    each = np.concatenate([measured, reported], axis=-1)
    device = np.arange(rows[0])[:, np.newaxis]
    np.logical_or.at(has, (device, arrays['owner']), each)
    return has

  def invented(self, padding: Arrays, generator: np.random.Generator) -> Arrays:
    slots = np.arange(len(padding['mask']), dtype=np.int32)
    mask = slots < 2
    signal = generator.normal(0, 200, padding['signal'].shape).astype(np.int16)
    shape = padding['measurements'].shape
    measured = generator.normal(400, 100, shape).astype(np.float32)
    terms = generator.random(padding['terms'].shape) < 0.2
    fields = {
      'signal': signal,
      'gain': np.full(len(mask), 200, np.float32),
      'time': np.zeros(len(mask), np.float32),
      'measurements': measured,
      'measurements_mask': np.ones_like(measured, bool),
      'terms': terms.astype(padding['terms'].dtype),
      'owner': slots,
    }
    wide = lambda array: mask.reshape(-1, *(1,) * (array.ndim - 1))
    kept = {key: np.where(wide(one), one, one.dtype.type(0)) for key, one in fields.items()}
    return {**kept, 'mask': mask}
