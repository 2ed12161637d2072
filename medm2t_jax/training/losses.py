"""Losses per prediction, unreduced; they are reduced in one place, `weighted_sum`.

Dimension letters: u predictions (samples, recordings or segments), c outputs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from data_pipeline.format.schema import DataError, Target

Loss = Callable[[Float[Array, 'u c'], Float[Array, ' u']], Float[Array, ' u']]


def nll(logits: Float[Array, 'u c'], label: Float[Array, ' u']) -> Float[Array, ' u']:
  """Negative log likelihood of the class index `label`, in nats."""
  log_probabilities = jax.nn.log_softmax(logits)
  index = label.astype(jnp.int32)[:, None]
  return -jnp.take_along_axis(log_probabilities, index, axis=1)[:, 0]


def focal(
  logits: Float[Array, 'u c'], label: Float[Array, ' u'], gamma: float
) -> Float[Array, ' u']:
  """Focal loss (Lin et al. 2017) over any number of classes: (1 - p)^gamma * -log p.

  Args:
    logits: class scores.
    label: class index, whose probability is p.
    gamma: how much less a prediction counts that is already good; 0 is `nll`.
  """
  others = jnp.arange(logits.shape[1])[jnp.newaxis] != label.astype(jnp.int32)[:, None]
  # In logarithms: the gradient of (1 - p)^gamma at p = 1 is infinite for gamma < 1.
  log_others = jax.nn.logsumexp(logits, axis=1, where=others)
  log_rest = log_others - jax.nn.logsumexp(logits, axis=1)
  return jnp.exp(gamma * log_rest) * nll(logits, label)


def squared(days: Float[Array, 'u 1'], label: Float[Array, ' u']) -> Float[Array, ' u']:
  """Squared error in days^2 (the paper's loss for length of stay)."""
  return jnp.square(days[:, 0] - label)


def absolute(days: Float[Array, 'u 1'], label: Float[Array, ' u']) -> Float[Array, ' u']:
  """Absolute error in days."""
  return jnp.abs(days[:, 0] - label)


def huber(
  days: Float[Array, 'u 1'], label: Float[Array, ' u'], delta: float
) -> Float[Array, ' u']:
  """Half the squared error up to `delta` days, linear with slope `delta` beyond."""
  return jnp.asarray(optax.losses.huber_loss(days[:, 0], label, delta=delta))


def log_squared(days: Float[Array, 'u 1'], label: Float[Array, ' u']) -> Float[Array, ' u']:
  """Squared error of log(1 + days); the output itself stays in days.

  A prediction below 0, which a length of stay never is, goes through
  -log(1 - days), so that it still has a gradient that lifts it.
  """
  return jnp.square(_signed_log1p(days[:, 0]) - _signed_log1p(label))


def _signed_log1p(x: Float[Array, ' u']) -> Float[Array, ' u']:
  return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def prior_corrected_nll(
  logits: Float[Array, 'u c'],
  label: Float[Array, ' u'],
  class_weights: Sequence[float],
) -> Float[Array, ' u']:
  """`nll` of the logits shifted by the log of the class weights.

  Training with class weights w moves the optimum from p(c | x) to w_c p(c | x), as if
  the classes had other priors. With this shift inside the loss, and only there, the
  shifted logits learn the latter, so the logits themselves p(c | x): probabilities are
  calibrated, although rare classes weighed more in every gradient.
  """
  shift = np.log(np.asarray(class_weights, np.float32))
  return nll(logits + shift[np.newaxis], label)


# Kind of target -> name -> the loss with the numbers of a stage's recipe.
_MAKERS: dict[str, dict[str, Callable[[Mapping[str, Any]], Loss]]] = {
  'classes': {
    'nll': lambda recipe: nll,
    'focal': lambda recipe: functools.partial(focal, gamma=recipe['focal_gamma']),
  },
  'days': {
    'squared': lambda recipe: squared,
    'absolute': lambda recipe: absolute,
    'huber': lambda recipe: functools.partial(huber, delta=recipe['huber_delta']),
    'log_squared': lambda recipe: log_squared,
  },
}


def make_loss(recipe: Mapping[str, Any], target: Target, stage: str) -> Loss:
  """The unreduced loss of a stage; class weights are applied by `weighted_sum`.

  Args:
    recipe: `configs.common.stage(...)`.
    target: of the data set.
    stage: for messages.

  Raises:
    DataError: a loss, or class weights, that this kind of target does not have.
  """
  where = f'config.recipe.{stage}'
  makers = _MAKERS[target.kind]
  if recipe['loss'] not in makers:
    raise DataError(
      f'{where}.loss={recipe["loss"]!r}: for this task it is one of {", ".join(makers)}'
    )
  if recipe['focal_gamma'] < 0 or recipe['huber_delta'] <= 0:
    raise DataError(f'{where}: focal_gamma is at least 0, huber_delta above 0')
  weights = tuple(recipe['class_weights'])
  if weights and (target.kind != 'classes' or len(weights) != target.outputs):
    raise DataError(
      f'{where}.class_weights={weights}: give none, or one for each class; this task has '
      f'{target.outputs if target.kind == "classes" else "no"} classes'
    )
  if weights and min(weights) <= 0:
    raise DataError(f'{where}.class_weights={weights}: they are above 0')
  if not recipe['prior_correction']:
    return makers[recipe['loss']](recipe)
  if recipe['loss'] != 'nll' or not weights:
    raise DataError(
      f"{where}.prior_correction corrects loss='nll' for class_weights; here loss="
      f'{recipe["loss"]!r}, class_weights={weights}'
    )
  return functools.partial(prior_corrected_nll, class_weights=weights)


def of_heads(
  loss: Loss, heads: Float[Array, 'h u c'], label: Float[Array, ' u'], members: int
) -> Float[Array, ' u']:
  """The loss of each unit: of an ensemble's members, and of a deep network beside them.

  Every head has a loss of its own. Together the members count as much as what stands
  beside them.

  Args:
    loss: unreduced.
    heads: outputs of the members, then those of what is beside them, if anything is.
    label: of the units.
    members: how many heads are members of one ensemble.
  """
  found = jax.vmap(loss, in_axes=(0, None))(heads, label)
  parts = [jnp.mean(found[:members], axis=0), *found[members:]]
  return jnp.mean(jnp.stack(parts), axis=0)


def weighted_sum(
  loss: Float[Array, ' u'],
  label: Float[Array, ' u'],
  weight: Float[Array, ' u'],
  class_weights: Sequence[float],
) -> tuple[Float[Array, ''], Float[Array, '']]:
  """Sum of weighted losses and sum of weights; their ratio is the mean loss.

  Args:
    loss: unreduced loss; it may be anything finite where `weight` is 0.
    label: class index where `class_weights` is given.
    weight: 0 for padding and absent predictions.
    class_weights: one weight per class, or empty for equal weights.
  """
  if class_weights:
    weight = weight * jnp.asarray(class_weights, jnp.float32)[label.astype(jnp.int32)]
  return jnp.sum(jnp.where(weight > 0, loss, 0.0) * weight), jnp.sum(weight)
