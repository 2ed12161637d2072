"""Assigns subjects to folds, stratified by label and available modalities.

The test subjects of split k are those of fold k. Of all other subjects, 20 %, stratified in
the same way, validate. Both are fixed when the data set is prepared, so every stage, run
and report shares them. Neither depends on the order of rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np

from data_pipeline.format.schema import NUM_FOLDS, DataError, Target
from data_pipeline.format.subjects import hash_subject

_VALIDATION_PARTS = 5  # one of five parts: 20 %
_LABEL_BINS = 5  # quantile bins of a numeric label


@dataclasses.dataclass(frozen=True)
class Folds:
  """The fold of each subject, and the folds in which it validates.

  Attributes:
    subjects: int64 (s,), sorted and unique.
    fold: int64 (s,), 0..4.
    validates: uint8 (s, 5): 1 if the subject validates when fold k is the test fold.
  """

  subjects: np.ndarray
  fold: np.ndarray
  validates: np.ndarray


def assign_folds(
  subject_id: np.ndarray,
  label: np.ndarray,
  available: Mapping[str, np.ndarray],
  target: Target,
  *,
  tested: np.ndarray | None = None,
  seed: int = 0,
) -> Folds:
  """Assigns every subject to a fold, and to the folds in which it validates.

  Subjects are assigned one by one, those with most samples first, to the fold in which
  samples like theirs (by label, and by modality given the label) are rarest so far: the
  fold that minimises the chi-square distance from equal shares.

  Args:
    subject_id: int64 (n,), one per sample.
    label: float (n,) or (n, l), as `target` says; NaN if unknown.
    available: modality -> bool (n,): whether the sample has it.
    target: what the label means; numbers are stratified by quintile, several labels by each
      of them.
    tested: bool (n,): samples whose subjects form fold 0; all others are assigned to the
      other folds. None: all subjects are assigned to all folds.
    seed: of the order of equal subjects.

  Returns:
    The folds; they depend on the set of samples, not on their order.

  Raises:
    DataError: there are fewer subjects than folds.
  """
  subjects, owner = np.unique(subject_id, return_inverse=True)
  if len(subjects) < NUM_FOLDS and np.isfinite(label).any():
    raise DataError(
      f'the cohort has {len(subjects)} subjects and {len(subject_id)} samples; '
      f'{NUM_FOLDS} folds need at least {NUM_FOLDS} subjects. See the inclusion '
      'steps in cohort.json, and check the raw tables and --task.'
    )
  kinds = _kinds(np.asarray(label, np.float64).reshape(len(label), -1), available, target)
  counts = np.zeros((len(subjects), kinds.shape[1]))
  np.add.at(counts, owner, kinds)
  counts = np.concatenate([counts, np.ones((len(subjects), 1))], axis=1)

  if tested is None:
    fold = _assign(subjects, counts, parts=NUM_FOLDS, salt=f'{seed}/test')
  else:
    fold = np.zeros(len(subjects), np.int64)
    rest = np.setdiff1d(np.arange(len(subjects)), owner[tested])
    parts = NUM_FOLDS - 1
    fold[rest] = 1 + _assign(subjects[rest], counts[rest], parts=parts, salt=f'{seed}/test')
  validates = np.zeros((len(subjects), NUM_FOLDS), np.uint8)
  for k in range(NUM_FOLDS):
    others = np.flatnonzero(fold != k)
    part = _assign(
      subjects[others],
      counts[others],
      parts=_VALIDATION_PARTS,
      salt=f'{seed}/validation of fold {k}',
    )
    validates[others[part == 0], k] = 1
  return Folds(subjects, fold, validates)


def _kinds(
  label: np.ndarray, available: Mapping[str, np.ndarray], target: Target
) -> np.ndarray:
  """Membership of samples in strata: float (n, strata)."""
  if target.numeric:
    number = label[:, 0]
    known = number[np.isfinite(number)]
    places = np.linspace(0, 1, _LABEL_BINS + 1)[1:-1]
    cuts = np.quantile(known, places) if len(known) else np.zeros(0)
    stratum = np.where(np.isfinite(number), np.searchsorted(cuts, number), np.nan)
    strata = [stratum == level for level in range(_LABEL_BINS if len(known) else 0)]
  elif target.kind == 'multilabel':
    strata = list(label.T == 1)
  else:
    strata = [label[:, 0] == level for level in range(len(target.classes))]
  columns = [np.ones(len(label), bool)]
  for has_label in strata:
    columns.append(has_label)
    columns.extend(has_label & available[name] for name in sorted(available))
  kinds = np.stack(columns, axis=1).astype(np.float64)
  return kinds[:, kinds.any(axis=0)]


def _assign(
  subjects: np.ndarray, counts: np.ndarray, *, parts: int, salt: str
) -> np.ndarray:
  """Assigns subjects (s,) with `counts` (s, strata) to equal parts: int64 (s,)."""
  key = hashlib.blake2b(salt.encode(), digest_size=16).hexdigest()
  ties = [hash_subject(subject, key) for subject in subjects]
  samples = counts[:, 0]
  order = sorted(range(len(subjects)), key=lambda i: (-samples[i], ties[i]))

  totals = np.maximum(counts.sum(axis=0), 1)  # a stratum may be absent here
  assigned = np.zeros((parts, counts.shape[1]))
  part = np.zeros(len(subjects), np.int64)
  for i in order:
    # Adding x to a part raises sum(assigned^2 / total) by 2 assigned.x / total plus a
    # term that is the same for all parts.
    chosen = int(np.argmin(assigned @ (counts[i] / totals)))
    assigned[chosen] += counts[i]
    part[i] = chosen
  return part
