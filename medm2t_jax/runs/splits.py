"""The splits of a data set in one fold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from data_pipeline.format.dataset import Dataset, Split

# Split of a refit -> the splits of the data set that it consists of.
_OF_REFIT: Mapping[Split, tuple[Split, ...]] = {
  'train': ('train', 'validation'),
  'validation': (),
  'test': ('test',),
}


@dataclasses.dataclass(frozen=True)
class Splits:
  """The labelled samples that a run trains, validates and tests on.

  Attributes:
    dataset: the prepared data set.
    fold: whose subjects test.
    refit: whether validation subjects are training subjects.
  """

  dataset: Dataset
  fold: int
  refit: bool = False

  def rows(self, split: Split) -> np.ndarray:
    """Index rows of a split, ascending: int64 (rows,)."""
    parts = [self.dataset.rows(self.fold, part) for part in self._parts(split)]
    rows = np.sort(np.concatenate([np.empty(0, np.int64), *parts]))
    target, index = self.dataset.schema.target, self.dataset.index
    return rows[target.known(index['label'][rows])]

  def subject_hashes(self, split: Split) -> frozenset[str]:
    """Keyed hashes of the subjects of a split."""
    parts = [self.dataset.subjects(self.fold, part) for part in self._parts(split)]
    return frozenset().union(*parts)

  def has_samples(self, split: Split, modality: str | None = None) -> bool:
    """Whether a split has any sample, or any sample with a modality."""
    rows = self.rows(split)
    if modality is None:
      return bool(len(rows))
    return bool((self.dataset.lengths(modality)[rows] > 0).any())

  def _parts(self, split: Split) -> tuple[Split, ...]:
    return _OF_REFIT[split] if self.refit else (split,)
