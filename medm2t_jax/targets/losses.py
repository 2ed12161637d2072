"""Unreduced losses of units.

Letters: u units (samples, recordings or segments), c outputs, l labels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


def nll(logits: Float[Array, 'u c'], label: Float[Array, ' u']) -> Float[Array, ' u']:
  """Negative log likelihood of the class index `label`, in nats."""
  log_probabilities = jax.nn.log_softmax(logits)
  index = label.astype(jnp.int32)[:, None]
  return -jnp.take_along_axis(log_probabilities, index, axis=1)[:, 0]


def nll_of_labels(
  log_odds: Float[Array, 'u l'],
  label: Float[Array, 'u l'],
  positive_weights: tuple[float, ...] = (),
) -> Float[Array, ' u']:
  """Mean over the known labels of their negative log likelihood, in nats.

  Args:
    log_odds: of each label.
    label: 1 or 0; below 0 if unknown, which is left out of the mean.
    positive_weights: weight of each label if it is true, or empty.
  """
  known = label >= 0
  each = -jax.nn.log_sigmoid(jnp.where(label > 0, log_odds, -log_odds))
  if positive_weights:
    weights = jnp.asarray(positive_weights, jnp.float32)[jnp.newaxis]
    each = each * jnp.where(label > 0, weights, 1.0)
  count = jnp.maximum(jnp.sum(known, axis=1), 1).astype(each.dtype)
  return jnp.sum(each, axis=1, where=known) / count


def squared(value: Float[Array, 'u 1'], label: Float[Array, ' u']) -> Float[Array, ' u']:
  """Squared error (the paper's loss for length of stay, in days^2)."""
  return jnp.square(value[:, 0] - label)


def absolute(value: Float[Array, 'u 1'], label: Float[Array, ' u']) -> Float[Array, ' u']:
  """Absolute error, in the unit of the label."""
  return jnp.abs(value[:, 0] - label)


def huber(
  value: Float[Array, 'u 1'], label: Float[Array, ' u'], delta: float
) -> Float[Array, ' u']:
  """Half the squared error up to `delta`, linear with slope `delta` beyond."""
  return jnp.asarray(optax.losses.huber_loss(value[:, 0], label, delta=delta))


def log_squared(
  value: Float[Array, 'u 1'], label: Float[Array, ' u']
) -> Float[Array, ' u']:
  """Squared error of log(1 + value); the output itself stays in the label's unit.

  Values below 0, which a length of stay never has, are transformed by -log(1 - value), so
  that they have a gradient that increases them.
  """
  return jnp.square(_signed_log1p(value[:, 0]) - _signed_log1p(label))


def _signed_log1p(x: Float[Array, ' u']) -> Float[Array, ' u']:
  return jnp.sign(x) * jnp.log1p(jnp.abs(x))
