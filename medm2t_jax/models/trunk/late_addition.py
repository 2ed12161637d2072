"""Late addition: what an ensemble and a deep network say apart, added at the end.

Classes are added as log probabilities, days as they are. Letters: k members, m parts,
u units, c outputs.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class LateAddition(nn.Module):
  """The prior, plus the weighted sum of what each part says beyond it.

  Fitted variables: `offset` (outputs), the log class prior or the mean label in days;
  `part_weights` (m), equal until they are fitted on validation subjects.

  Attributes:
    outputs: number of classes, or 1.
    parts: their number.
  """

  outputs: int
  parts: int

  def setup(self):
    self.offset = self.variable('fitted', 'offset', jnp.zeros, (self.outputs,))
    self.part_weights = self.variable('fitted', 'part_weights', jnp.ones, (self.parts,))

  def prior(self) -> Float[Array, ' c']:
    """What is predicted where no part says anything."""
    return jnp.asarray(self.offset.value)

  def __call__(self, parts: Float[Array, 'm u c']) -> Float[Array, 'u c']:
    """Args: parts: log probabilities, or days. Returns log probabilities, or days."""
    if len(parts) == 1:
      return parts[0]
    weights = jnp.asarray(self.part_weights.value)
    offset = self.prior()[jnp.newaxis]
    beyond = jnp.einsum('m,muc->uc', weights, parts - offset[jnp.newaxis])
    return log_probabilities(offset + beyond)


def log_probabilities(outputs: Float[Array, '... c']) -> Float[Array, '... c']:
  """Class scores as log probabilities; days (c = 1) as they are."""
  return outputs if outputs.shape[-1] == 1 else jax.nn.log_softmax(outputs)


def ensemble_mean(members: Float[Array, 'k u c']) -> Float[Array, 'u c']:
  """The logarithm of the members' mean probability, or their mean days."""
  if members.shape[-1] == 1:
    return jnp.mean(members, axis=0)
  total = jax.nn.logsumexp(jax.nn.log_softmax(members), axis=0)
  return total - jnp.log(jnp.float32(len(members)))
