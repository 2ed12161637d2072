"""Converts fitted estimators of scikit-learn to plain arrays.

`as_arrays` accepts the results of `boosted_trees.fit` and `logistic_regression.fit`: trees,
a linear pipeline, or a constant if there was one class.
`medm2t_jax.models.blend.simple_models` predicts from the arrays without scikit-learn, so
that they can be kept in a checkpoint and be part of a compiled step.

Letters: c outputs, k trees per iteration of boosting, or scores of a linear model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline

from data_pipeline.format.schema import Target
from medm2t_jax.baselines import choosing
from medm2t_jax.models.link import LEAST_PROBABILITY
from medm2t_jax.targets.kind import OF_LABEL

FORMAT = 2  # of the arrays: a blend kept in another format is fitted again
# The score of a class without training samples.
_NEVER = float(np.finfo(np.float32).min)


def as_arrays(model: Any, target: Target) -> dict[str, Any]:
  """The arrays from which `simple_models.outputs` makes the predictions of a fitted model.

  Args:
    model: from `boosted_trees.fit` or `logistic_regression.fit`.
    target: that it was fitted for.

  Returns:
    Arrays of float32, int32 and bool, none of them empty. Their names identify the kind of
      model. For a multilabel target: index of each label -> its arrays.

  Raises:
    TypeError: the model is of another kind.
  """
  if isinstance(model, choosing.OfLabels):
    return {
      str(place): as_arrays(each, OF_LABEL) for place, each in enumerate(model.estimators)
    }
  known = np.asarray(getattr(model, 'classes_', [0])).astype(int)
  if isinstance(model, DummyClassifier):
    probability = np.full(target.outputs, LEAST_PROBABILITY)
    probability[known] = model.class_prior_
    return {'constant': np.log(probability).astype(np.float32)}
  if isinstance(model, HistGradientBoostingClassifier | HistGradientBoostingRegressor):
    return _trees(model, known, target.outputs)
  if isinstance(model, Pipeline):
    return _linear(model, known, target.outputs)
  raise TypeError(f'no arrays for a {type(model).__name__}')


def _scores(known: np.ndarray, of_known: np.ndarray, count: int, fill: float) -> np.ndarray:
  """Scores (... c), float32, from those of the classes with training samples (... k).

  With two classes scikit-learn only scores the second one, against 0 for the first.
  """
  result = np.full((*of_known.shape[:-1], count), fill, np.float32)
  result[..., known] = 0
  result[..., known[-of_known.shape[-1] :]] = of_known
  return result


def _trees(model: Any, known: np.ndarray, count: int) -> dict[str, np.ndarray]:
  """Nodes of all trees in one array; the right child follows the left one.

  A leaf is its own left child, and every value goes left.
  """
  parts: dict[str, list[np.ndarray]] = {}
  root, depth = [], 0
  first = 0
  for predictor in (each for iteration in model._predictors for each in iteration):
    nodes = predictor.nodes
    leaf = nodes['is_leaf'].astype(bool)
    pair = 1 + 2 * np.arange((~leaf).sum())
    place = np.zeros(len(nodes), int)
    place[nodes['left'][~leaf]] = pair
    place[nodes['right'][~leaf]] = pair + 1
    left = place.copy()
    left[~leaf] = pair
    columns = {
      'feature': np.where(leaf, 0, nodes['feature_idx']).astype(np.int32),
      'threshold': np.where(leaf, np.inf, _rounded_down(nodes['num_threshold'])),
      'missing_left': leaf | nodes['missing_go_to_left'].astype(bool),
      'left': (first + left).astype(np.int32),
      'leaf_value': np.where(leaf, nodes['value'], 0).astype(np.float32),
      'cover': nodes['count'].astype(np.int32),
    }
    order = np.argsort(place)
    for name, column in columns.items():
      parts.setdefault(name, []).append(column[order])
    root.append(first)
    first += len(nodes)
    depth = max(depth, predictor.get_max_depth())
  trees = model.n_trees_per_iteration_
  return {
    **{name: np.concatenate(each) for name, each in parts.items()},
    'root': np.asarray(root, np.int32).reshape(-1, trees),
    'depth': np.asarray(depth, np.int32),
    'tree_class': known[-trees:].astype(np.int32),
    'start': _scores(known, model._baseline_prediction[0], count, _NEVER),
  }


def _rounded_down(threshold: np.ndarray) -> np.ndarray:
  """The largest float32 that is <= each float64, so that comparisons of float32 agree."""
  with np.errstate(over='ignore'):
    nearest = threshold.astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
  return np.where(nearest > threshold, below, nearest)


def _linear(model: Pipeline, known: np.ndarray, count: int) -> dict[str, np.ndarray]:
  """Imputation, scaling and coefficients; an indicator becomes a coefficient of missing.

  An indicator has two values, so its scaled and clipped values are folded into the
  intercept and into the coefficient of missing.
  """
  imputer, scaler, clipper, linear = (step for _, step in model.steps)
  median = imputer.statistics_
  columns = len(median)
  coefficient = np.atleast_2d(linear.coef_).T
  limit = clipper.kw_args['a_max']
  mean, scale = scaler.mean_, scaler.scale_
  absent, present = (
    np.clip((value - mean[columns:]) / scale[columns:], -limit, limit)[:, np.newaxis]
    for value in (0, 1)
  )
  missing = np.zeros((columns, coefficient.shape[1]))
  missing[imputer.indicator_.features_] = (present - absent) * coefficient[columns:]
  missing_share = np.zeros(columns)
  missing_share[imputer.indicator_.features_] = mean[columns:]
  intercept = (absent * coefficient[columns:]).sum(axis=0) + linear.intercept_
  return {
    'median': median.astype(np.float32),
    # scikit-learn also rounds them to the float32 of the values.
    'mean': mean[:columns].astype(np.float32),
    'scale': scale[:columns].astype(np.float32),
    'limit': np.asarray(limit, np.float32),
    'coefficient': _scores(known, coefficient[:columns], count, 0),
    'missing_coefficient': _scores(known, missing, count, 0),
    'missing_share': missing_share.astype(np.float32),
    'intercept': _scores(known, intercept, count, _NEVER),
  }
