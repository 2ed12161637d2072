"""Gradient-boosted trees on summary statistics; missing values are split on as such."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from data_pipeline.schema import Target
from medm2t_jax.baselines import choosing
from medm2t_jax.baselines.inputs import Inputs
from medm2t_jax.baselines.summary_statistics import Table

_FIXED: dict[str, Any] = {
  'learning_rate': 0.05,
  # The number of trees is chosen on validation subjects.
  'max_iter': 1000,
  'early_stopping': True,
  'n_iter_no_change': 30,
  # Columns are many and alike: a split sees some of them.
  'max_features': 0.2,
  'min_samples_leaf': 20,
  'l2_regularization': 1.0,
}
# Each combination is fitted; the best on validation subjects predicts.
_GRID: dict[str, tuple[Any, ...]] = {'max_leaf_nodes': (6, 16)}
_DAYS_GRID: dict[str, tuple[Any, ...]] = {
  **_GRID,
  'loss': ('absolute_error', 'squared_error'),
}
SETTINGS = {'fixed': _FIXED, 'grid': _GRID, 'days_grid': _DAYS_GRID}


def fit_predict(inputs: Inputs) -> np.ndarray:
  """Predictions of the test samples: (n c) probabilities, or days (n)."""
  tables = inputs.summaries
  model = fit(tables['train'], tables['validation'], inputs.target, inputs.seed[0])
  return choosing.predict(model, tables['test'].value, inputs.target)


def fit(train: Table, validation: Table, target: Target, seed: int) -> Any:
  """The trees that are best on the validation samples, fitted on the training samples."""
  if target.kind == 'classes' and len(np.unique(train.label)) == 1:
    return DummyClassifier().fit(train.value, train.label)
  days = target.kind == 'days'
  kind = HistGradientBoostingRegressor if days else HistGradientBoostingClassifier
  # A class that nobody trained on has no loss to stop by.
  stops = np.ones(len(validation.label), bool)
  if not days:
    stops = np.isin(validation.label, train.label)
  # scikit-learn cannot bin a column without any value; one of a constant is never used.
  never = np.isnan(train.value).all(axis=0)
  value = np.where(never, np.float32(0), train.value)
  grid = _DAYS_GRID if days else _GRID
  candidates = []
  for values in itertools.product(*grid.values()):
    options = dict(zip(grid, values, strict=True))
    trees = kind(random_state=seed, **_FIXED, **options)
    candidates.append(
      trees.fit(
        value,
        train.label,
        X_val=validation.value[stops],
        y_val=validation.label[stops],
      )
    )
  return choosing.best(candidates, validation, target)
