"""Fits the weights of a blend of several predictors on validation subjects.

The blend is that of `medm2t_jax.models.blend.weighted_sum`. Weights are shrunk towards
equal weights that sum to 1, so that few subjects cannot move them far.

Outputs are normalised on the scale of the target's link (`models/link.py`). Letters: n
samples, c outputs, m predictors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float
from scipy import optimize

from data_pipeline.format.schema import Target
from medm2t_jax import targets


def fit_weights(
  outputs: Mapping[str, Float[np.ndarray, 'n c']],
  label: np.ndarray,
  weight: np.ndarray,
  prior: Float[np.ndarray, ' c'],
  target: Target,
  weight_sd: float = 0.2,
) -> dict[str, float]:
  """Most probable non-negative weights, given a normal prior around 1/m for each.

  Samples count by their weight: many with a small weight count as much as one of weight 1.

  Args:
    outputs: name of a predictor -> its outputs.
    label: (n) or, of a multilabel target, (n l).
    weight: of the samples, (n).
    prior: outputs that predict the average of the training subjects.
    target: what the label means.
    weight_sd: standard deviation of the prior of a weight.

  Returns:
    Name -> weight, in the order of `outputs`. The order has no influence; a single
    predictor has weight 1.

  Raises:
    ValueError: an output, label or prior is not finite.
  """
  if len(outputs) == 1:
    return dict.fromkeys(outputs, 1.0)
  names = sorted(outputs)
  prior, label, weight = (np.asarray(x, np.float64) for x in (prior, label, weight))
  said = np.stack([np.asarray(outputs[name], np.float64) for name in names]) - prior
  if not (np.isfinite(said).all() and np.isfinite(label).all()):
    raise ValueError('outputs, labels and prior must be finite')
  result = optimize.minimize(
    _objective(said, label, weight, prior, target, weight_sd),
    np.full(len(names), 1 / len(names)),
    jac=True,
    method='L-BFGS-B',
    bounds=[(0, None)] * len(names),
    options={'ftol': 1e-13, 'gtol': 1e-9},
  )
  weights = dict(zip(names, result.x.tolist(), strict=True))
  return {name: weights[name] for name in outputs}


def _objective(
  said: Float[np.ndarray, 'm n c'],
  label: np.ndarray,
  weight: np.ndarray,
  prior: Float[np.ndarray, ' c'],
  target: Target,
  weight_sd: float,
) -> Callable[[Float[np.ndarray, ' m']], tuple[float, Float[np.ndarray, ' m']]]:
  """Loss and penalty of the weights, divided by the total sample weight, with gradient."""
  total = weight.sum()
  equal = np.full(len(said), 1 / len(said))
  blended = lambda weights: prior + np.tensordot(weights, said, 1)
  loss = targets.of(target).summed_loss
  # For numbers: scaled by the mean error of equal weights, so that the loss is in nats too.
  scale = 1.0
  if target.numeric:
    scale = loss(blended(equal), label, weight)[0] / total

  def objective(weights):
    value, slope = loss(blended(weights), label, weight)
    apart = weights - equal
    value = value / scale + np.square(apart).sum() / (2 * weight_sd**2)
    gradient = np.tensordot(said, slope, 2) / scale + apart / weight_sd**2
    return value / total, gradient / total

  return objective
