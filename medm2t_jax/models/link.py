"""Converts a network's outputs to predictions: the link of its target.

`softmax`: one score per class, exactly one of which is true. `sigmoid`: the log odds of
each label. `identity`: a number. Letters: k members, u units, c outputs.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Link = Literal['softmax', 'sigmoid', 'identity']
# Beyond this, float32 has no finite logarithm of a probability.
LEAST_PROBABILITY = 1e-15


def normalized(outputs: Float[Array, '... c'], link: Link) -> Float[Array, '... c']:
  """Class scores as log probabilities; log odds and numbers unchanged."""
  return jax.nn.log_softmax(outputs) if link == 'softmax' else outputs


def predicted(outputs: Float[Array, '... c'], link: Link) -> Float[Array, ' ...']:
  """Probabilities (... c), or numbers (...) of one output."""
  if link == 'identity':
    return outputs[..., 0]
  return jax.nn.softmax(outputs) if link == 'softmax' else jax.nn.sigmoid(outputs)


def ensemble_mean(members: Float[Array, 'k u c'], link: Link) -> Float[Array, 'u c']:
  """The output that corresponds to the members' mean prediction.

  For classes the logarithm of the mean probability, for labels its log odds, for numbers
  the mean.
  """
  if link == 'identity':
    return jnp.mean(members, axis=0)
  if link == 'sigmoid':
    true, false = (jax.nn.log_sigmoid(each) for each in (members, -members))
    return jax.nn.logsumexp(true, axis=0) - jax.nn.logsumexp(false, axis=0)
  total = jax.nn.logsumexp(jax.nn.log_softmax(members), axis=0)
  return total - jnp.log(jnp.float32(len(members)))


def explained(
  outputs: Float[Array, 'u c'], chosen: Bool[Array, 'u c'], link: Link
) -> Float[Array, ' u']:
  """The number per unit that an explanation divides among the inputs.

  Args:
    outputs: of the network.
    chosen: classes, which are explained together against the first one; or one label, whose
      log odds are explained. Ignored for a number.
    link: of the outputs.
  """
  if link == 'identity':
    return outputs[:, 0]
  if link == 'sigmoid':
    return jnp.sum(outputs, where=chosen, axis=1)
  # Not `where=`, with which an improbable choice has the gradient 0 times an overflow.
  among = jnp.where(chosen, outputs, -jnp.inf)
  return jax.nn.logsumexp(among, axis=1) - outputs[:, 0]
