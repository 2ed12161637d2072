"""Logistic regression on summary statistics; for days, ridge regression."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from data_pipeline.schema import Target
from medm2t_jax.baselines import choosing
from medm2t_jax.baselines.inputs import Inputs
from medm2t_jax.baselines.summary_statistics import Table

SETTINGS: dict[str, Any] = {
  # Inverse strengths of the L2 penalty on a sum over samples; Ridge takes 1 / C.
  'C': (1e-4, 1e-3, 1e-2, 1e-1),
  # Standard deviations: one wild value must not decide a linear prediction.
  'clip': 5.0,
  'max_iter': 5000,
}


def fit_predict(inputs: Inputs) -> np.ndarray:
  """Predictions of the test samples: (n c) probabilities, or days (n)."""
  tables = inputs.summaries
  model = fit(tables['train'], tables['validation'], inputs.target)
  return choosing.predict(model, tables['test'].value, inputs.target)


def fit(train: Table, validation: Table, target: Target) -> Any:
  """The pipeline with the penalty that is best on the validation samples.

  Medians, means, scales and coefficients are of the training samples. Missing values
  become the median, with an indicator column each.
  """
  if target.kind == 'classes' and len(np.unique(train.label)) == 1:
    return DummyClassifier().fit(train.value, train.label)
  candidates = [
    _pipeline(strength, target).fit(train.value, train.label) for strength in SETTINGS['C']
  ]
  return choosing.best(candidates, validation, target)


def _pipeline(strength: float, target: Target) -> Pipeline:
  days = target.kind == 'days'
  limits = {'a_min': -SETTINGS['clip'], 'a_max': SETTINGS['clip']}
  return make_pipeline(
    SimpleImputer(strategy='median', add_indicator=True, keep_empty_features=True),
    StandardScaler(),
    FunctionTransformer(np.clip, kw_args=limits),
    Ridge(alpha=1 / strength)
    if days
    else LogisticRegression(C=strength, max_iter=SETTINGS['max_iter']),
  )
