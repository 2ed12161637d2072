"""Reads the raw recordings behind a prepared data set again and damages them on purpose.

A prepared data set holds conditioned signals only; its `recordings.parquet` says where each
came from. After the damage a recording goes through `conditioning.condition`, like any
recording of a source; without damage the prepared bytes result again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline.ecg import noise, raw_recording
from data_pipeline.ecg.conditioning import condition
from data_pipeline.ecg.raw_recording import RawRecording
from data_pipeline.ecg.reading import EcgError
from data_pipeline.format.dataset import RECORDINGS, Dataset
from data_pipeline.format.schema import DataError


class RawRecordingsNotFound(DataError):
  """The raw files are not where they were when the data set was prepared."""


@dataclasses.dataclass(frozen=True)
class Recording:
  """A recording of a prepared data set."""

  study_id: int
  raw: RawRecording


@dataclasses.dataclass(frozen=True)
class Damage:
  """A change to a raw recording.

  Attributes:
    kind: one of `noise.KINDS`.
    level: the signal-to-noise ratio in dB.
  """

  kind: str
  level: float


def locate(
  dataset: Dataset, rows: Sequence[int] | np.ndarray, most: int
) -> dict[int, tuple[Recording, ...]]:
  """Finds the raw recordings of some samples.

  Args:
    dataset: a prepared data set with ECG.
    rows: of its index.
    most: number of recordings, the most recent ones, that a batch keeps per sample.

  Returns:
    Row -> its recordings in the order of the batch.

  Raises:
    RawRecordingsNotFound: the list of recordings or one of the files does not exist.
    DataError: a shard is damaged, or does not fit the list.
  """
  # Imported late: it imports tensorflow_datasets, which building a model does not need.
  from data_pipeline.format import heads

  rows = np.asarray(rows, np.int64)
  listed = _listed(dataset, rows)
  result = {}
  for row in rows.tolist():
    sample = int(dataset.index['sample_id'][row])
    studies = heads.read_head(dataset, row)['ecg/study_id'][-most:].tolist()
    unlisted = [study for study in studies if (sample, study) not in listed]
    if unlisted:
      raise DataError(
        f'{dataset.directory / RECORDINGS}: study {unlisted[0]} of sample '
        f'{sample} is not listed. Prepare the data set again.'
      )
    result[row] = tuple(Recording(study, listed[sample, study]) for study in studies)
  paths = sorted({each.raw.path for recordings in result.values() for each in recordings})
  absent = [path for path in paths if raw_recording.first_file(path) is None]
  if absent:
    first = raw_recording.possible_files(absent[0])[0]
    raise RawRecordingsNotFound(
      f'raw recordings not found at {first} ({len(absent)} of {len(paths)})'
    )
  return result


def read_damaged(
  recording: Recording, damage: Damage | None, seed: int
) -> tuple[np.ndarray, float] | None:
  """Reads, damages and conditions a raw recording.

  Args:
    recording: from `locate`.
    damage: None for none.
    seed: of the noise.

  Returns:
    int16 (1250, 12) and the gain in units per mV; None if the conditioning refuses the
    damaged recording, so that a preparation would have dropped it.

  Raises:
    DataError: the file can no longer be read.
  """
  try:
    signal, rate = raw_recording.read(recording.raw)
  except EcgError as error:
    raise DataError(
      f'raw recording {recording.raw.path} can no longer be read ({error}). Restore the '
      'file as it was when the data set was prepared, or leave robustness out of '
      '--config.evaluation.sections.'
    ) from error
  if damage is None:
    return condition(signal, rate)
  signal = noise.add_noise(
    signal, rate, damage.kind, damage.level, seed=seed, study_id=recording.study_id
  )
  try:
    return condition(signal, rate)
  except EcgError:
    return None


def _listed(dataset: Dataset, rows: np.ndarray) -> dict[tuple[int, int], RawRecording]:
  """(sample, study) -> location of the recording."""
  path = dataset.directory / RECORDINGS
  if not path.exists():
    raise RawRecordingsNotFound(
      f'raw recordings not found: {path} does not exist, prepare the data set again'
    )
  samples = dataset.index['sample_id'][rows]
  table = pq.read_table(path, filters=pc.field('sample_id').isin(samples.tolist()))
  keys = zip(table['sample_id'].to_pylist(), table['study_id'].to_pylist(), strict=True)
  return dict(zip(keys, raw_recording.listed(table), strict=True))
