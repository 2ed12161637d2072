"""Gradient-boosted trees on summary statistics; splits handle missing values directly."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from data_pipeline.format.schema import Target
from medm2t_jax.baselines import choosing
from medm2t_jax.baselines.inputs import Inputs
from medm2t_jax.baselines.summary_statistics import Table, joined

_FIXED: dict[str, Any] = {
  'learning_rate': 0.05,
  # The number of trees is chosen on validation subjects.
  'max_iter': 1000,
  'early_stopping': True,
  'n_iter_no_change': 30,
  # There are many similar columns, so each split considers a random part of them.
  'max_features': 0.2,
  'min_samples_leaf': 20,
  'l2_regularization': 1.0,
}
# Every combination is fitted; the one that is best on validation subjects is used.
_GRID: dict[str, tuple[Any, ...]] = {'max_leaf_nodes': (6, 16)}
_NUMBER_GRID: dict[str, tuple[Any, ...]] = {
  **_GRID,
  'loss': ('absolute_error', 'squared_error'),
}
SETTINGS = {'fixed': _FIXED, 'grid': _GRID, 'number_grid': _NUMBER_GRID}


def fit_predict(inputs: Inputs) -> np.ndarray:
  """Predictions of the test samples: (n c) probabilities, or numbers (n)."""
  final = fitted(inputs).final
  return choosing.predict(final, inputs.summaries['test'].value, inputs.target)


def fitted(inputs: Inputs) -> choosing.Fitted:
  """`fit` with the samples of a fold."""
  return inputs.fitted('boosted_trees', _fit)


def _fit(inputs: Inputs) -> choosing.Fitted:
  tables = inputs.summaries
  return fit(
    tables['train'], tables['validation'], inputs.target, inputs.seed[0], refit=inputs.refit
  )


def fit(
  train: Table, validation: Table, target: Target, seed: int, *, refit: bool
) -> choosing.Fitted:
  """Fits trees to the training samples and chooses the best on the validation samples.

  Args:
    train: training samples.
    validation: validation samples.
    target: what the label means.
    seed: of the columns that a split considers.
    refit: whether to fit again on both, with the same settings and number of trees.
  """
  one = functools.partial(_fit_one, seed=seed, refit=refit)
  return choosing.fit(one, train, validation, target)


def _fit_one(
  train: Table, validation: Table, target: Target, *, seed: int, refit: bool
) -> choosing.Fitted:
  """`fit` for samples with one label."""
  if not target.numeric and len(np.unique(train.label)) == 1:
    chosen = DummyClassifier().fit(train.value, train.label)  # weights do not matter
  else:
    chosen = _chosen(train, validation, target, seed)
  if not refit:
    return choosing.Fitted(chosen, chosen)
  final: Any = clone(chosen)
  if not isinstance(chosen, DummyClassifier):
    final.set_params(early_stopping=False, max_iter=chosen.n_iter_)
  both = joined([train, validation])
  final = final.fit(_binnable(both.value), both.label, both.sample_weight)
  return choosing.Fitted(chosen, final)


def _chosen(train: Table, validation: Table, target: Target, seed: int) -> Any:
  numeric = target.numeric
  kind = HistGradientBoostingRegressor if numeric else HistGradientBoostingClassifier
  # A class without training samples has no loss that could stop early.
  stops = np.ones(len(validation.label), bool)
  if not numeric:
    stops = np.isin(validation.label, train.label)
  value, weight = _binnable(train.value), train.sample_weight
  grid = _NUMBER_GRID if numeric else _GRID
  candidates = []
  for values in itertools.product(*grid.values()):
    options = dict(zip(grid, values, strict=True))
    trees = kind(random_state=seed, **_FIXED, **options)
    candidates.append(
      trees.fit(
        value,
        train.label,
        weight,
        X_val=validation.value[stops],
        y_val=validation.label[stops],
        sample_weight_val=None if weight is None else validation.weight[stops],
      )
    )
  return choosing.best(candidates, validation, target)


def _binnable(value: np.ndarray) -> np.ndarray:
  """Replaces columns without any value by constants, which scikit-learn can bin."""
  return np.where(np.isnan(value).all(axis=0), np.float32(0), value)
