"""Losses per prediction, unreduced; they are reduced in one place, `weighted_sum`.

Dimension letters: u predictions (samples, recordings or segments), c outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Loss = Callable[[Float[Array, 'u c'], Float[Array, ' u']], Float[Array, ' u']]


def nll(logits: Float[Array, 'u c'], label: Float[Array, ' u']) -> Float[Array, ' u']:
  """Negative log likelihood of the class index `label`, in nats."""
  log_probabilities = jax.nn.log_softmax(logits)
  index = label.astype(jnp.int32)[:, None]
  return -jnp.take_along_axis(log_probabilities, index, axis=1)[:, 0]


def squared(days: Float[Array, 'u 1'], label: Float[Array, ' u']) -> Float[Array, ' u']:
  """Squared error in days^2 (the paper's loss for length of stay)."""
  return jnp.square(days[:, 0] - label)


def absolute(days: Float[Array, 'u 1'], label: Float[Array, ' u']) -> Float[Array, ' u']:
  """Absolute error in days."""
  return jnp.abs(days[:, 0] - label)


LOSSES: dict[str, Loss] = {'nll': nll, 'squared': squared, 'absolute': absolute}


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
