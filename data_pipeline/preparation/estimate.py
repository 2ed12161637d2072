"""Estimates disk space and time of a preparation, announced before each long part."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_pipeline.format.modalities.base import sample_bytes, table_of
from data_pipeline.format.schema import DataError, Schema
from data_pipeline.preparation import staging

# Per byte of raw tables as stored (csv.gz of the simulated hospital).
_RAW_BYTES_PER_SECOND = 18_000_000
_SCRATCH_SHARE = 0.4
_RAW_ENDINGS = ('.csv', '.csv.gz', '.parquet', '.txt', '.tar.gz', '.tar.xz', '.zip')


def announce_reading(out: Path, settings: Any) -> None:
  """Logs one line before the first step: size of the raw tables and time to read them.

  A rough estimate: only sizes are known, and of all tables in the raw folders.
  `announce_writing` follows when the cohort is known.
  """
  size = 0
  for field in dataclasses.fields(settings):
    path = getattr(settings, field.name)
    if isinstance(path, Path) and path.exists():
      # No deeper, because MIMIC-IV-ECG has hundreds of thousands of folders below.
      below = [] if path.is_file() else [*path.glob('*'), *path.glob('*/*')]
      below += path.glob('*/*/*.parquet')
      size += sum(
        file.stat().st_size for file in [path, *below] if file.name.endswith(_RAW_ENDINGS)
      )
  if size:
    free = shutil.disk_usage(out).free
    _say(
      f'{size / 1e9:.1f} GB of raw tables: roughly up to '
      f'{size / _RAW_BYTES_PER_SECOND / 60:.0f} minutes and '
      f'{size * _SCRATCH_SHARE / 1e9:.1f} GB of scratch disk ({free / 1e9:.1f} GB free) '
      'until the cohort is known.'
    )


def announce_writing(
  out: Path,
  schema: Schema,
  tables: Path,
  assignment: staging.Assignment,
  workers: int,
) -> None:
  """Logs one line: disk space and time of the remaining work.

  Raises:
    DataError: there is not enough disk space.
  """
  samples, need, seconds = assignment.samples.num_rows, 0, 0.0
  counts: Counter[str] = Counter()
  for name, modality in schema.modalities.items():
    cost, table = modality.cost, table_of(name, modality).name
    rows = pq.read_metadata(tables / f'{table}.parquet').num_rows
    counts[cost.rows] += rows
    need += rows * cost.row_bytes
    seconds += rows / (cost.rows_per_second * (workers if cost.parallel else 1))
    need += samples * sample_bytes(modality)
  listed = ', '.join(f'{count:,} {what}' for what, count in counts.items() if what)
  free = shutil.disk_usage(out).free
  _say(
    f'{samples:,} samples, {listed}: about '
    f'{need / 1e9:.1f} GB ({free / 1e9:.1f} GB free) and {seconds / 60:.0f} minutes '
    f'with {workers} workers, {len(assignment.shards)} shards.'
  )
  if need > free:
    raise DataError(
      f'--out={out}: about {need / 1e9:.1f} GB are needed, but only {free / 1e9:.1f} GB '
      'are free. Make room and run the same command again, or use another disk.'
    )


def _say(line: str) -> None:
  print(line, file=sys.stderr, flush=True)
