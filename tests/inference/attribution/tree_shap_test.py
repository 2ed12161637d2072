"""TreeSHAP against the Shapley values of its game, all subsets enumerated."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from data_pipeline.format.schema import Target
from medm2t_jax.baselines import choosing, logistic_regression
from medm2t_jax.baselines.fitted_arrays import as_arrays
from medm2t_jax.baselines.summary_statistics import Table
from medm2t_jax.inference.attribution import tree_shap
from medm2t_jax.inference.attribution.additive import additive

BINARY = Target('binary', ('no', 'yes'))
THREE = Target('multiclass', ('none', 'chd', 'stroke'))
DAYS = Target('regression', unit='days', low=0.0)
LABELS = Target('multilabel', ('one', 'other'))
TARGETS = {'binary': BINARY, 'multiclass': THREE, 'days': DAYS}
COLUMNS, WITHOUT_MISSING = 5, 3


def values(seed, rows=150):
  rng = np.random.default_rng(seed)
  value = rng.normal(size=(rows, COLUMNS))
  value[:, 1] = rng.integers(0, 3, rows)
  value[rng.random(value.shape) < 0.25] = np.nan
  value[:, WITHOUT_MISSING] = rng.normal(size=rows)
  return value.astype(np.float32)


def labels(value, target):
  score = np.nan_to_num(value[:, 0], nan=1.0) * np.nan_to_num(value[:, 1], nan=-1.0)
  score += np.maximum(value[:, WITHOUT_MISSING], 0)
  if target.numeric:
    return 5 + score
  quantiles = np.linspace(0, 1, len(target.classes) + 1)[1:-1]
  return np.searchsorted(np.quantile(score, quantiles), score).astype(float)


def trees(target, leaves=8):
  kind: Any = (
    HistGradientBoostingRegressor if target.numeric else HistGradientBoostingClassifier
  )
  value = values(0)
  return kind(
    max_iter=4, max_leaf_nodes=leaves, min_samples_leaf=3, early_stopping=False
  ).fit(value, labels(value, target))


def expectation(arrays, node, x, known):
  """What a tree is expected to say from a node on, where some columns are known."""
  left = arrays['left'][node]
  if left == node:
    return float(arrays['leaf_value'][node])
  column = arrays['feature'][node]
  if column in known:
    goes_left = x[column] <= arrays['threshold'][node]
    if np.isnan(x[column]):
      goes_left = arrays['missing_left'][node]
    return expectation(arrays, left + (not goes_left), x, known)
  children = (left, left + 1)
  assert arrays['cover'][left] + arrays['cover'][left + 1] == arrays['cover'][node]
  return sum(
    arrays['cover'][child] * expectation(arrays, child, x, known) for child in children
  ) / float(arrays['cover'][node])


def oracle(arrays, x, root):
  """Shapley values of one tree: the mean over all orders in which columns become known."""
  worth = {
    known: expectation(arrays, root, x, known)
    for size in range(COLUMNS + 1)
    for known in map(frozenset, itertools.combinations(range(COLUMNS), size))
  }
  result = np.zeros(COLUMNS)
  for column in range(COLUMNS):
    for known, value in worth.items():
      if column not in known:
        rest = COLUMNS - len(known) - 1
        ways = math.factorial(len(known)) * math.factorial(rest) / math.factorial(COLUMNS)
        result[column] += ways * (worth[known | {column}] - value)
  return result, worth[frozenset()]


@pytest.mark.parametrize('name', TARGETS)
def test_attributions_are_the_shapley_values_of_every_tree(name):
  arrays = as_arrays(trees(TARGETS[name]), TARGETS[name])
  rows = values(1, rows=4)
  rows[0, WITHOUT_MISSING] = np.nan  # never in training
  paths = tree_shap.paths_of(arrays)
  found = tree_shap.attributions(paths, rows)
  start = arrays['start'].astype(float)
  for x, attributions in zip(rows, found, strict=True):
    expected, base = np.zeros(attributions.shape), start.copy()
    for iteration in arrays['root']:
      for root, output in zip(iteration, arrays['tree_class'], strict=True):
        each, empty = oracle(arrays, x, root)
        expected[:, output] += each
        base[output] += empty
    np.testing.assert_allclose(attributions, expected, atol=1e-9)
    np.testing.assert_allclose(tree_shap.expected(paths), base, atol=1e-9)
  assert np.abs(found).max() > 0.01


@pytest.mark.parametrize('name', TARGETS)
@pytest.mark.parametrize('leaves', [3, 31])
def test_they_add_up_to_the_scores_of_scikit_learn(name, leaves):
  model = trees(TARGETS[name], leaves)
  rows = values(2)
  paths = tree_shap.paths_of(as_arrays(model, TARGETS[name]))
  found = tree_shap.expected(paths) + tree_shap.attributions(paths, rows).sum(axis=1)
  if TARGETS[name].numeric:
    expected = model.predict(rows)[:, np.newaxis]
  else:
    expected = model.decision_function(rows)
  if name == 'binary':  # of two classes the second is scored against 0
    expected = np.stack([np.zeros(len(rows)), expected], axis=1)
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_tree_without_a_split_has_no_attributions():
  value = values(3, rows=8)
  model = HistGradientBoostingRegressor(max_iter=2, min_samples_leaf=20)
  arrays = as_arrays(model.fit(value, np.arange(8.0)), DAYS)
  each = additive(arrays)
  assert not each.attributions(value).any()
  np.testing.assert_allclose(each.expected, [3.5], atol=1e-6)


def table(value, label):
  count = len(value)
  return Table(np.arange(count), label, np.ones(count), value, ('',) * COLUMNS)


@pytest.mark.parametrize('name', TARGETS)
def test_of_a_linear_model_each_column_has_its_own_term(name):
  target, value = TARGETS[name], values(4)
  label = labels(value, target)
  train = table(value, label)
  model = logistic_regression.fit(train, train, target, refit=False).final
  each = additive(as_arrays(model, target))
  rows = values(5, rows=6)
  rows[0, WITHOUT_MISSING] = np.nan
  rows[1, 0] = 1e9  # clipped
  found = each.attributions(rows)
  scores = each.expected + found.sum(axis=1)
  expected = choosing.predict(model, rows, target)
  if target.numeric:
    np.testing.assert_allclose(scores[:, 0], expected, rtol=1e-5)
  else:
    likelihood = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(likelihood, expected, rtol=1e-5, atol=1e-7)
  # Of the training samples the mean is what is expected, but for what is clipped.
  np.testing.assert_allclose(each.attributions(value).mean(axis=0), 0, atol=5e-4)
  # Only the column that changes has another attribution.
  other = rows.copy()
  other[2, 1] = np.nan if np.isfinite(rows[2, 1]) else 1
  moved = each.attributions(other) - found
  assert np.abs(moved[2, 1]).max() > 1e-4
  moved[2, 1] = 0
  assert not moved.any()


def test_a_label_or_class_that_is_constant_has_none():
  value = values(6)
  label = np.stack([labels(value, BINARY), np.zeros(len(value))], axis=1)
  train = table(value, label)
  model = logistic_regression.fit(train, train, LABELS, refit=False).final
  each = additive(as_arrays(model, LABELS))
  found = each.attributions(value)
  assert found.shape == (len(value), COLUMNS, 2, 2)
  assert found[:, :, 0].any() and not found[:, :, 1].any()
