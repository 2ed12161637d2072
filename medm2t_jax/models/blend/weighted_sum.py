"""Blends the outputs of several predictors.

Each predictor contributes the difference of its output from the prior; the blend is the
prior plus the weighted sum of these differences. Outputs are normalised on the scale of the
target's link (`models/link.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medm2t_jax.models.link import Link

OURS = 'model'  # name of our model among the predictors of a blend


def blend(
  outputs: Mapping[str, Any], weights: Mapping[str, float], prior: Any, link: Link
) -> Any:
  """The blended outputs, normalised.

  Args:
    outputs: name of a predictor -> float (... c), all NumPy or all JAX.
    weights: of these predictors (`training/blend_weights.py`).
    prior: outputs (c) that predict the average of the training subjects.
    link: of the outputs.

  Returns:
    float (... c), NumPy or JAX as the outputs.
  """
  score = summed(outputs, weights, prior)
  xp = score.__array_namespace__()
  if link != 'softmax':
    return score
  score = score - score.max(axis=-1, keepdims=True)
  return score - xp.log(xp.exp(score).sum(axis=-1, keepdims=True))


def summed(outputs: Mapping[str, Any], weights: Mapping[str, float], prior: Any) -> Any:
  """`blend` before normalisation: scores of classes may have any common constant."""
  first = next(iter(outputs.values()))
  xp = first.__array_namespace__()
  prior = xp.broadcast_to(xp.asarray(prior), first.shape)
  return prior + sum(weights[name] * (outputs[name] - prior) for name in sorted(weights))
