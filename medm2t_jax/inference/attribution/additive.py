"""Exact additive attributions of the columns to the scores of a blend's simple models.

For trees they are TreeSHAP values (`tree_shap`). For a linear model, the attribution of a
column is its term minus the term at the mean of the training samples. The term is the
standardised value (the median if missing) times its coefficient, plus the missing indicator
times its coefficient. A constant model has no attributions.

Scores are a model's outputs before normalisation; for a multilabel target, those of false
and true per label. Letters: b samples, n columns, c outputs, l labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from medm2t_jax.inference.attribution import tree_shap


class Additive(NamedTuple):
  """A simple model, explained.

  Attributes:
    expected: scores without any attribution, (c) or (l 2).
    attributions: of rows (b n), NaN where missing, to each score: (b n c) or (b n l 2).
  """

  expected: Float[np.ndarray, ' ...']
  attributions: Callable[[Float[np.ndarray, 'b n']], Float[np.ndarray, 'b n ...']]


def additive(arrays: Mapping[str, Any]) -> Additive:
  """Writes a simple model as a sum over columns, in float64.

  Args:
    arrays: of `medm2t_jax.models.blend.simple_models`.
  """
  if '0' in arrays:
    labels = [additive(arrays[str(place)]) for place in range(len(arrays))]
    return Additive(
      np.stack([each.expected for each in labels]),
      lambda value: np.stack([each.attributions(value) for each in labels], axis=2),
    )
  if 'constant' in arrays:
    constant = np.asarray(arrays['constant'], np.float64)
    return Additive(constant, lambda value: np.zeros((*value.shape, len(constant))))
  if 'root' in arrays:
    paths = tree_shap.paths_of(arrays)
    return Additive(
      tree_shap.expected(paths), lambda value: tree_shap.attributions(paths, value)
    )
  return _linear({name: np.asarray(x, np.float64) for name, x in arrays.items()})


def _linear(arrays: Mapping[str, np.ndarray]) -> Additive:
  coefficient, of_missing = arrays['coefficient'], arrays['missing_coefficient']
  share = arrays['missing_share']

  def attributions(value: Float[np.ndarray, 'b n']) -> Float[np.ndarray, 'b n c']:
    missing = np.isnan(value)
    x = np.where(missing, arrays['median'], value)
    x = (x - arrays['mean']) / arrays['scale']
    x = np.clip(x, -arrays['limit'], arrays['limit'])
    return (
      x[..., np.newaxis] * coefficient + (missing - share)[..., np.newaxis] * of_missing
    )

  return Additive(arrays['intercept'] + share @ of_missing, attributions)
