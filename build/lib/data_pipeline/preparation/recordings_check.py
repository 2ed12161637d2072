"""Whether the raw recordings of a data set are there, and enough of them can be used."""

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
  'Fetch the missing files, or name the right folder; to do without them, raise '
  '--max_dropped_recordings (a share, at most 1).'
)


def require_some(recordings: Path, most: float) -> None:
  """Looks, before the work of hours, whether the folder has the listed files at all.

  Args:
    recordings: the staged table of recordings.
    most: share that may be unusable.

  Raises:
    DataError: of many paths that are looked at, none exists.
  """
  paths = pq.read_table(recordings, columns=['path'])['path']
  if not len(paths) or most >= 1:
    return
  places = np.unique(np.linspace(0, len(paths) - 1, _LOOKED_AT).astype(int))
  looked_at = sorted({paths[int(place)].as_py() for place in places})
  if all(raw_recording.first_file(path) is None for path in looked_at):
    raise DataError(
      f'{len(paths)} recordings are listed, and none of {len(looked_at)} that were looked '
      f'for is there, the first {raw_recording.possible_files(looked_at[0])[0]}. {_REMEDY}'
    )


def require_enough(
  jobs: Sequence[Job], manifests: Sequence[Mapping[str, Any]], most: float
) -> None:
  """Stops where a larger share than `most` of the recordings could not be used.

  The shards with such recordings are then not finished any more: once the files are
  mended, they are read again. Fewer are a line on stderr.

  Raises:
    DataError: the share, the commonest reason and the first path.
  """
  read = sum(manifest['recordings_read'] for manifest in manifests)
  dropped = [one for manifest in manifests for one in manifest['recordings_dropped']]
  if not dropped:
    return
  [(reason, n)] = Counter(one['reason'] for one in dropped).most_common(1)
  first = next(one for one in dropped if one['reason'] == reason)
  found = (
    f'{len(dropped)} of {read} recordings cannot be used, {n} for {reason}, the first '
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
