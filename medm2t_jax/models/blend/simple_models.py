"""Predicts with boosted trees and linear models given as plain arrays.

`medm2t_jax.baselines.fitted_arrays` makes the arrays from fitted estimators. Their names
identify the kind of model; for a multilabel target: index of each label -> its arrays.

  constant                       (c): the prediction, whatever the inputs
  root                           int32 (t k): the first node of every tree
  feature, threshold, missing_left, left, leaf_value, cover   of all nodes of all trees in
    one array; the right child follows the left one; a leaf is its own left child, and
    every value goes left; the cover is the unweighted number of training samples that
    reached the node, for explanations
  depth, tree_class (k), start (c)
  median, mean, scale (n), limit, coefficient, missing_coefficient (n c), intercept (c)
  missing_share (n)                  of the training samples, unweighted

Letters: b samples, n columns, c outputs, t trees, k trees per iteration of boosting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from medm2t_jax.models.link import LEAST_PROBABILITY


def outputs(arrays: Mapping[str, Any], value: Float[Array, 'b n']) -> Float[Array, 'b c']:
  """Log probability of every class, log odds of every label, or a number (c = 1), float32.

  Rows do not influence each other. No probability is below `LEAST_PROBABILITY`, which is
  that of a class without training samples.

  Args:
    arrays: from `as_arrays`.
    value: float32, NaN where missing; the columns that the model was fitted on.
  """
  if '0' in arrays:
    each = [outputs(arrays[str(place)], value) for place in range(len(arrays))]
    return jnp.stack([both[:, 1] - both[:, 0] for both in each], axis=1)
  arrays = {name: jnp.asarray(array) for name, array in arrays.items()}
  if 'constant' in arrays:
    constant = arrays['constant']
    return jnp.broadcast_to(constant, (value.shape[0], len(constant)))
  score = _tree_scores(arrays, value) if 'root' in arrays else _linear_scores(arrays, value)
  return of_scores(score)


def of_scores(score: Float[Array, 'b c'] | Float[Array, 'b l 2']) -> Float[Array, 'b c']:
  """Converts scores of trees or linear models to `outputs`.

  Args:
    score: of classes, or a number (c = 1); for labels, l, those of false and true.
  """
  if score.ndim == 3:
    both = _log_probability(score)
    return both[..., 1] - both[..., 0]
  return score if score.shape[1] == 1 else _log_probability(score)


def _log_probability(score: Float[Array, '... c']) -> Float[Array, '... c']:
  return jnp.maximum(jax.nn.log_softmax(score), np.log(LEAST_PROBABILITY))


def shifted(arrays: Mapping[str, Any], by: Float[np.ndarray, ' c']) -> dict[str, Any]:
  """The same model with a constant added to its outputs, for another prior.

  Args:
    arrays: from `as_arrays`.
    by: one constant per output.
  """
  if '0' in arrays:
    return {
      place: shifted(each, np.array([0.0, by[int(place)]]))
      for place, each in arrays.items()
    }
  (base,) = {'constant', 'start', 'intercept'} & arrays.keys()
  return {**arrays, base: (arrays[base] + by).astype(np.float32)}


def _tree_scores(
  arrays: Mapping[str, Array], value: Float[Array, 'b n']
) -> Float[Array, 'b c']:
  root = arrays['root']
  # Piecewise constant: there is no gradient.
  value = jax.lax.stop_gradient(value)

  def descend(_: Any, node: Int[Array, 'b t']) -> Int[Array, 'b t']:
    x = jnp.take_along_axis(value, arrays['feature'][node], axis=1)
    goes_left = jnp.where(
      jnp.isnan(x), arrays['missing_left'][node], x <= arrays['threshold'][node]
    )
    return arrays['left'][node] + (~goes_left).astype(node.dtype)

  node = jnp.broadcast_to(root.reshape(-1), (value.shape[0], root.size))
  node = jax.lax.fori_loop(0, arrays['depth'], descend, node)
  total = arrays['leaf_value'][node].reshape(-1, *root.shape).sum(axis=1)
  start = jnp.broadcast_to(arrays['start'], (value.shape[0], len(arrays['start'])))
  return start.at[:, arrays['tree_class']].add(total)


def _linear_scores(
  arrays: Mapping[str, Array], value: Float[Array, 'b n']
) -> Float[Array, 'b c']:
  row = lambda name: arrays[name][jnp.newaxis]
  product = lambda x, y: jnp.matmul(x, y, precision='highest')
  missing = jnp.isnan(value)
  x = jnp.where(missing, row('median'), value)
  x = (x - row('mean')) / row('scale')
  x = jnp.clip(x, -arrays['limit'], arrays['limit'])
  return (
    product(x, arrays['coefficient'])
    + product(missing.astype(x.dtype), arrays['missing_coefficient'])
    + row('intercept')
  )
