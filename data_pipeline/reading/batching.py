"""Options that turn samples into batches of fixed shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from data_pipeline.format.options import Count, NotNegative, Options


@dataclasses.dataclass(frozen=True)
class Batching(Options):
  """Capacities of a batch.

  Attributes:
    buckets: padded modality -> number of entries, ascending; a sample goes to the first
      bucket that holds it. A modality without an entry has the same length in all buckets
      (`planning.buckets_of`).
    max_recordings: a sample with more recordings keeps the most recent ones.
    recordings_per_row: capacity for packed recordings, per sample of a batch; 0: a sixth
      more than the mean over the data set, so that all splits share the shapes of their
      batches. A full batch closes early.
  """

  buckets: tuple[Mapping[str, Count], ...] = ()
  max_recordings: Count = 8
  recordings_per_row: NotNegative = 0.0
