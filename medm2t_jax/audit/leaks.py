"""Check: no input is an identifier or reveals the label.

Tested by name against `FORBIDDEN`, and by data for each column of `columns.py` separately.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from scipy import stats

from data_pipeline.format.schema import Schema, Target
from medm2t_jax import targets
from medm2t_jax.audit.check import Check
from medm2t_jax.audit.columns import columns
from medm2t_jax.audit.scan import Scan

# Whole words of an item's code or name; `_` stands for anything but letters and digits.
FORBIDDEN = (
  r'(subject|patient|person|hadm|stay|icustay|transfer|sample|study|row|encounter)_?id',
  r'record_?id|recordid|mrn|uid|anchor_year',
  r'(disch|death|out|dod|end|outcome)_?time|death_?(date|flag)|dod|dead|died|deceased',
  r'discharge(_(time|date|location|disposition|status))?',
  r'(hospital_)?expire_?flag|expired|mortality|survival|survived|in_hospital_death',
  r'length_of_stay|los|label|outcome',
  r'saps(_?(i|1|ii|2|iii|3))?|sofa|q_?sofa|apache\w*|oasis|apsiii|lods',
)
MOST_AUROC = 0.98  # of one column; for numbers, of the absolute rank correlation
SIGNIFICANCE = 0.01  # over all columns together
_FEWEST = 50  # fewest values that show an identifier
_DISTINCT = 0.99  # float32 rounds long identifiers to even numbers


def check(scan: Scan) -> list[Check]:
  """Checks that no input is an identifier and none reveals the label."""
  return [by_name(scan.dataset.schema), by_label(scan), by_identifier(scan)]


def by_name(schema: Schema) -> Check:
  """Items whose code or name is on the list."""
  pattern = re.compile(rf'(^|_)({"|".join(FORBIDDEN)})(_|$)')
  named = [
    column
    for column in columns(schema)
    if any(pattern.search(_words(text)) for text in (column.itemid, column.name))
  ]
  return Check(
    'inputs by name',
    not named,
    len(named),
    f'{len(named)} of {len(columns(schema))} inputs are named like an identifier, an '
    f'outcome or a severity score{_listed(named)}',
  )


def _words(text: str) -> str:
  return re.sub(r'[^a-z0-9]+', '_', text.lower()).strip('_')


def by_label(scan: Scan) -> Check:
  """Columns whose last value, or presence, alone predicts the label.

  A metric only counts if it is significant after Bonferroni's correction: with five
  observations, chance can separate two classes.
  """
  label = scan.dataset.index['label']
  target = scan.dataset.schema.target
  best, named = 0.0, []
  level = SIGNIFICANCE / max(1, 2 * len(scan.columns))
  for number, column in enumerate(scan.columns):
    values, rows = scan.sampled(number)
    metrics = [
      *_of_value(values, label[rows], column.categorical, target),
      *_of_presence(scan, number),
    ]
    sure = [metric for metric, p in metrics if p < level]
    strongest = max(sure, default=0.0)
    best = max(best, strongest)
    if strongest > MOST_AUROC:
      named.append(f'{column} {strongest:.4f}')
  metric = 'AUROC' if not target.numeric else 'rank correlation'
  return Check(
    'inputs against the label',
    not named,
    best,
    f'the best single input reaches {metric} {best:.3f} beyond chance (0: none does); '
    f'above {MOST_AUROC} an input reveals the label{_listed(named)}',
  )


def _of_value(
  values: np.ndarray, label: np.ndarray, categorical: bool, target: Target
) -> list[tuple[float, float]]:
  """(metric, p) of values (r,): one pair per class or label, one pair for numbers."""
  if len(values) < 4 or np.ptp(values) == 0:
    return []
  if target.numeric:
    score = _encoded(values, label) if categorical else values
    if np.ptp(score) == 0 or np.ptp(label) == 0:
      return []  # the correlation is undefined
    correlation, p = np.asarray(stats.spearmanr(score, label), float).tolist()
    return [(abs(correlation), p)]
  metrics = []
  for true in targets.of(target).is_true(label).T:
    known = ~np.isnan(true)
    positive, of_known = true[known] == 1, values[known]
    if 0 < positive.sum() < len(positive):
      score = _encoded(of_known, positive) if categorical else of_known
      metrics.append(_auroc_and_p(score, positive))
  return metrics


def _auroc_and_p(score: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
  test = stats.mannwhitneyu(score[positive], score[~positive])
  area = float(test.statistic) / (positive.sum() * (~positive).sum())
  return max(area, 1 - area), float(test.pvalue)


def _encoded(category: np.ndarray, label: np.ndarray) -> np.ndarray:
  """The mean label of a sample's category in the other half of the samples."""
  _, code = np.unique(category, return_inverse=True)
  half = np.arange(len(code)) % 2
  score = np.zeros(len(code))
  for this in (0, 1):
    others = half != this
    count = np.bincount(code[others], minlength=code.max() + 1)
    total = np.bincount(code[others], label[others], minlength=code.max() + 1)
    mean = np.where(count > 0, total / np.maximum(count, 1), label[others].mean())
    score[~others] = mean[code[~others]]
  return score


def _of_presence(scan: Scan, number: int) -> list[tuple[float, float]]:
  """(AUROC, p) of the presence of the column, one pair per class, from exact counts."""
  true = targets.of(scan.dataset.schema.target).is_true(scan.dataset.index['label'])
  metrics = []
  for each, present in enumerate(scan.label_present[:, number].tolist()):
    positives = int((true[:, each] == 1).sum())
    negatives = int((true[:, each] == 0).sum())
    others = int(scan.label_absent[each, number])
    if not positives or not negatives:
      continue
    area = 0.5 + (present / positives - others / negatives) / 2
    table = [[present, positives - present], [others, negatives - others]]
    metrics.append((max(area, 1 - area), float(np.asarray(stats.fisher_exact(table)[1]))))
  return metrics


def by_identifier(scan: Scan) -> Check:
  """Columns that identify the subject or the sample.

  Such a column has one value per subject (or sample), different for each, and is either
  whole numbers or sorted like the identifier. Continuous measurements, which also differ
  between all subjects, are neither.
  """
  named = []
  for number, column in enumerate(scan.columns):
    values, rows = scan.sampled(number)
    for name in ('subject_id', 'sample_id'):
      if _identifies(values, scan.dataset.index[name][rows]):
        named.append(f'{column} = {name}')
  return Check(
    'inputs against identifiers',
    not named,
    len(named),
    f'{len(named)} of {len(scan.columns)} inputs identify the subject or the sample'
    f'{_listed(named)}',
  )


def _identifies(values: np.ndarray, identifier: np.ndarray) -> bool:
  ids = np.unique(identifier)
  pairs = np.unique(np.stack([values, identifier.astype(np.float64)], axis=1), axis=0)
  if len(ids) < _FEWEST or len(pairs) > len(ids):
    return False
  if len(np.unique(values)) < _DISTINCT * len(ids):
    return False
  whole = bool((values == np.round(values)).all())
  ranks = stats.rankdata(np.stack([values, identifier]), axis=1)
  return whole or abs(float(np.corrcoef(ranks)[0, 1])) > 0.999


def _listed(names: Iterable[object]) -> str:
  text = '; '.join(str(name) for name in names)
  return f': {text}' if text else ''
