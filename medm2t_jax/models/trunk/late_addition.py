"""Late addition: adds the outputs of an ensemble and a deep network at the end.

Classes are added as log probabilities, labels as log odds, numbers unchanged. Letters: m
parts, u units, c outputs.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from medm2t_jax.models.link import Link, normalized


class LateAddition(nn.Module):
  """The prior, plus the weighted sum of each part's difference from the prior.

  Fitted variables: `offset` (outputs), as in a decoder; `part_weights` (m), equal until
  they are fitted on validation subjects.

  Attributes:
    outputs: number of classes or labels, or 1.
    parts: number of parts.
    link: of the outputs.
  """

  outputs: int
  parts: int
  link: Link

  def setup(self):
    self.offset = self.variable('fitted', 'offset', jnp.zeros, (self.outputs,))
    self.part_weights = self.variable('fitted', 'part_weights', jnp.ones, (self.parts,))

  def prior(self) -> Float[Array, ' c']:
    """The prediction without any part."""
    return jnp.asarray(self.offset.value)

  def __call__(self, parts: Float[Array, 'm u c']) -> Float[Array, 'u c']:
    """Adds the normalised outputs of all parts; returns normalised outputs."""
    if len(parts) == 1:
      return parts[0]
    weights = jnp.asarray(self.part_weights.value)
    offset = self.prior()[jnp.newaxis]
    beyond = jnp.einsum('m,muc->uc', weights, parts - offset[jnp.newaxis])
    return normalized(offset + beyond, self.link)
