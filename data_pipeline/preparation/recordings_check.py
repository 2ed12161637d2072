"""Checks that the raw recordings of a data set exist, and that enough are usable."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from data_pipeline.ecg import raw_recording
from data_pipeline.format.schema import DataError
from data_pipeline.preparation.shards import DROPPED_RECORDINGS, Job

_LOOKED_AT = 200
_REMEDY = (
  'Fetch the missing files, or give the right folder; to continue without them, raise '
  '--max_dropped_recordings (a share, at most 1).'
)


def require_some(recordings: Path, most: float) -> None:
  """Checks, before hours of work, that the folder has the listed files at all.

  Args:
    recordings: the staged table of recordings.
    most: largest share of unusable recordings.

  Raises:
    DataError: none of many checked paths exists.
  """
  paths = pq.read_table(recordings, columns=['path'])['path']
  if not len(paths) or most >= 1:
    return
  places = np.unique(np.linspace(0, len(paths) - 1, _LOOKED_AT).astype(int))
  looked_at = sorted({paths[int(place)].as_py() for place in places})
  if all(raw_recording.first_file(path) is None for path in looked_at):
    raise DataError(
      f'{len(paths)} recordings are listed, but none of {len(looked_at)} checked files '
      f'exists, the first {raw_recording.possible_files(looked_at[0])[0]}. {_REMEDY}'
    )


def require_enough(
  jobs: Sequence[Job], manifests: Sequence[Mapping[str, Any]], most: float
) -> None:
  """Raises if a larger share than `most` of the recordings is unusable.

  The shards with such recordings then count as unfinished, so that corrected files are read
  again. If there are fewer, a warning goes to stderr.

  Raises:
    DataError: the share is too large; the message has the commonest reason and the first
      path.
  """
  read = sum(manifest['recordings_read'] for manifest in manifests)
  dropped = [one for manifest in manifests for one in manifest['recordings_dropped']]
  if not dropped:
    return
  [(reason, n)] = Counter(one['reason'] for one in dropped).most_common(1)
  first = next(one for one in dropped if one['reason'] == reason)
  found = (
    f'{len(dropped)} of {read} recordings are unusable, {n} because of {reason}, the first '
    f'{first["path"]}'
  )
  if len(dropped) <= max(1, most * read):  # one bad file costs one file
    print(f'warning: {found}; all are in {DROPPED_RECORDINGS}', file=sys.stderr)
    return
  for job, manifest in zip(jobs, manifests, strict=True):
    if manifest['recordings_dropped']:
      job.manifest.unlink()
  raise DataError(
    f'{found} ({first["detail"]}): more than --max_dropped_recordings={most:g}. {_REMEDY}'
  )
