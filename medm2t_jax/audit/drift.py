"""Check: test subjects are similar to training subjects, item by item.

Compares each fold's test split with its training split, using one sample per subject. Two
tests per item: whether its last values have the same distribution (Kolmogorov-Smirnov; for
categories, chi-squared), and whether it is present equally often (two proportions). The
false discovery rate over all tests is controlled (Benjamini-Hochberg). The check fails if
drift is gross: beyond chance and larger than the limits below, as after a wrong unit, a
shifted clock or a lost table, but not from seasons and the mix of wards.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import stats

from medm2t_jax.audit.check import Check
from medm2t_jax.audit.scan import SPLITS, Scan

FALSE_DISCOVERIES = 0.001
GROSS_SMD = 1.0  # standard deviations between the means
GROSS_KS = 0.5  # largest distance between distributions; for categories, total variation
GROSS_MISSING = 0.3  # difference of the shares of samples that have the item
_EXACT = 10_000  # largest product of sample sizes for which exact p-values are fast
_FEWEST = 8  # subjects with the item on each side
_NAMED = 5


@dataclasses.dataclass(frozen=True)
class _Drift:
  """One comparison: its p-value, its size relative to the limit (1 = at it), and a text."""

  p: float
  size: float
  text: str


def check(scan: Scan, fold: int, number: int) -> Check:
  """Compares a fold's test split with its training split.

  Args:
    scan: of the records.
    fold: the fold.
    number: index of the fold in the scan.
  """
  rows = {split: scan.dataset.rows(fold, split) for split in ('train', 'test')}
  found = []
  for column in range(len(scan.columns)):
    found += _values(scan, column, rows)
    found += _missing(scan, column, number, rows)
  name = f'drift, fold {fold}'
  if not found:
    return Check(name, False, None, 'no item has enough values on both sides to compare')
  adjusted = stats.false_discovery_control([one.p for one in found])
  sure = adjusted < FALSE_DISCOVERIES
  real = [one for one, beyond in zip(found, sure, strict=True) if beyond]
  gross = [one for one in real if one.size > 1]
  worst = sorted(real, key=lambda one: -one.size)[:_NAMED]
  listed = ''.join(f'; {one.text}' for one in worst)
  return Check(
    name,
    not gross,
    len(gross),
    f'of {len(found)} comparisons of test with training subjects {len(real)} differ beyond '
    f'chance and {len(gross)} grossly (means {GROSS_SMD:g} SD or distributions '
    f'{GROSS_KS:g} apart, or {GROSS_MISSING:.0%} more or fewer missing){listed}',
  )


def _values(scan: Scan, column: int, rows: dict[str, np.ndarray]) -> list[_Drift]:
  values, row = scan.sampled(column)
  # Samples of a subject are similar; treated as independent, they would look like drift.
  _, first = np.unique(scan.dataset.index['subject_id'][row], return_index=True)
  values, row = values[first], row[first]
  train, test = (values[np.isin(row, rows[split])] for split in ('train', 'test'))
  if min(len(train), len(test)) < _FEWEST:
    return []
  name = scan.columns[column]
  if scan.columns[column].categorical:
    levels, code = np.unique(np.concatenate([train, test]), return_inverse=True)
    counts = np.stack(
      [np.bincount(part, minlength=len(levels)) for part in np.split(code, [len(train)])]
    )
    distance = np.abs(np.diff(counts / counts.sum(axis=1, keepdims=True), axis=0)).sum() / 2
    p = float(np.asarray(stats.chi2_contingency(counts)[1])) if len(levels) > 1 else 1.0
    text = f'{name}: shares of categories {distance:.2f} apart'
    return [_Drift(p, float(distance) / GROSS_KS, text)]
  spread = np.sqrt((train.var() + test.var()) / 2)
  shift = float(test.mean() - train.mean())
  smd = 0.0 if shift == 0 else float(np.divide(shift, max(spread, 1e-12)))
  method = 'exact' if len(train) * len(test) <= _EXACT else 'asymp'
  distance, p = np.asarray(stats.ks_2samp(train, test, method=method), float).tolist()
  size = max(abs(smd) / GROSS_SMD, distance / GROSS_KS)
  text = (
    f'{name}: mean {train.mean():.4g} in training, {test.mean():.4g} in test '
    f'(SMD {smd:.2f}, KS {distance:.2f})'
  )
  return [_Drift(p, size, text)]


def _missing(
  scan: Scan, column: int, number: int, rows: dict[str, np.ndarray]
) -> list[_Drift]:
  subject = scan.dataset.index['subject_id']
  shares, weights = [], []
  for split in ('train', 'test'):
    present = scan.split_present[number, SPLITS.index(split), column]
    if not len(rows[split]):
      return []
    shares.append(present / len(rows[split]))
    weights.append(len(np.unique(subject[rows[split]])))
  train, test = shares
  # Counts subjects as independent observations, for the reason above.
  pooled = np.average(shares, weights=weights)
  error = np.sqrt(pooled * (1 - pooled) * (1 / weights[0] + 1 / weights[1]))
  if error == 0:
    return []
  p = float(2 * stats.norm.sf(abs(test - train) / error))
  text = f'{scan.columns[column]}: in {train:.0%} of training, {test:.0%} of test samples'
  return [_Drift(p, float(abs(test - train)) / GROSS_MISSING, text)]
