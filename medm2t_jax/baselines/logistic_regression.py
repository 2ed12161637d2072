"""Logistic regression on summary statistics; for numbers, ridge regression."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from data_pipeline.format.schema import Target
from medm2t_jax.baselines import choosing
from medm2t_jax.baselines.inputs import Inputs
from medm2t_jax.baselines.summary_statistics import Table, joined

SETTINGS: dict[str, Any] = {
  # Inverse strengths of the L2 penalty on a sum over samples; Ridge uses 1 / C.
  'C': (1e-4, 1e-3, 1e-2, 1e-1),
  # Limit in standard deviations: one outlier must not decide a linear prediction.
  'clip': 5.0,
  'max_iter': 5000,
}


def fit_predict(inputs: Inputs) -> np.ndarray:
  """Predictions of the test samples: (n c) probabilities, or numbers (n)."""
  final = fitted(inputs).final
  return choosing.predict(final, inputs.summaries['test'].value, inputs.target)


def fitted(inputs: Inputs) -> choosing.Fitted:
  """`fit` with the samples of a fold."""
  return inputs.fitted('logistic_regression', _fit)


def _fit(inputs: Inputs) -> choosing.Fitted:
  tables = inputs.summaries
  return fit(tables['train'], tables['validation'], inputs.target, refit=inputs.refit)


def fit(train: Table, validation: Table, target: Target, *, refit: bool) -> choosing.Fitted:
  """Fits pipelines and chooses the penalty that is best on the validation samples.

  Medians, means, scales and coefficients come from the samples that the pipeline is fitted
  on. The penalty is on the sum of their weighted losses. Missing values become the median,
  with one indicator column each.

  Args:
    train: training samples.
    validation: validation samples.
    target: what the label means.
    refit: whether to fit the final one on both.
  """
  return choosing.fit(functools.partial(_fit_one, refit=refit), train, validation, target)


def _fit_one(
  train: Table, validation: Table, target: Target, *, refit: bool
) -> choosing.Fitted:
  """`fit` for samples with one label."""
  candidates: list[Any]
  if not target.numeric and len(np.unique(train.label)) == 1:
    candidates = [DummyClassifier()]
  else:
    candidates = [_pipeline(strength, target) for strength in SETTINGS['C']]
  fitted = [_fitted(each, train) for each in candidates]
  chosen = choosing.best(fitted, validation, target)
  if not refit:
    return choosing.Fitted(chosen, chosen)
  both = joined([train, validation])
  return choosing.Fitted(chosen, _fitted(clone(chosen), both))


def _fitted(estimator: Any, table: Table) -> Any:
  """Fits coefficients to the weighted samples; medians and scales ignore weights."""
  last = f'{estimator.steps[-1][0]}__' if isinstance(estimator, Pipeline) else ''
  weight = {f'{last}sample_weight': table.sample_weight}
  return estimator.fit(table.value, table.label, **weight)


def _pipeline(strength: float, target: Target) -> Pipeline:
  limits = {'a_min': -SETTINGS['clip'], 'a_max': SETTINGS['clip']}
  return make_pipeline(
    SimpleImputer(strategy='median', add_indicator=True, keep_empty_features=True),
    StandardScaler(),
    FunctionTransformer(np.clip, kw_args=limits),
    Ridge(alpha=1 / strength)
    if target.numeric
    else LogisticRegression(C=strength, max_iter=SETTINGS['max_iter']),
  )
