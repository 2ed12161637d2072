"""Check: no subject is in two splits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_pipeline.format.schema import NUM_FOLDS
from medm2t_jax.audit.check import Check
from medm2t_jax.audit.scan import SPLITS, Scan


def check(scan: Scan, folds: Sequence[int]) -> list[Check]:
  """Finds subjects in several splits, and subjects not tested exactly once.

  Args:
    scan: of the records, which must agree with the index.
    folds: whose splits are compared. All five folds of the data set are always compared for
      test subjects, unless a split file replaces them.
  """
  dataset = scan.dataset
  checks = [
    Check(
      'records and index',
      scan.disagreeing == 0,
      scan.disagreeing,
      f'{scan.disagreeing} of {len(dataset)} samples have another subject, label or fold '
      'in their record than in the index that the splits are made from',
    )
  ]
  subject = dataset.index['subject_id']
  for fold in folds:
    parts = [np.unique(subject[dataset.rows(fold, split)]) for split in SPLITS]
    names, times = np.unique(np.concatenate(parts), return_counts=True)
    shared = int((times > 1).sum())
    sizes = ', '.join(
      f'{len(part)} {split}' for part, split in zip(parts, SPLITS, strict=True)
    )
    checks.append(
      Check(
        f'splits, fold {fold}',
        shared == 0,
        shared,
        f'{shared} of {len(names)} subjects are in two splits ({sizes}): the model must '
        'not be trained on test or validation subjects',
      )
    )
  if dataset.splits is None:
    parts = [np.unique(subject[dataset.rows(k, 'test')]) for k in range(NUM_FOLDS)]
    names, times = np.unique(np.concatenate(parts), return_counts=True)
    missing = len(np.unique(subject)) - len(names)
    wrong = missing + int((times > 1).sum())
    checks.append(
      Check(
        'all folds together',
        wrong == 0,
        wrong,
        f'{wrong} of {len(names) + missing} subjects are not tested in exactly one of the '
        f'{NUM_FOLDS} folds: pooled test predictions must count every subject once',
      )
    )
  return checks
