"""Dropout whose mask is a hash of each entry's position.

A generator writes its random bits to memory before they are compared, which took a sixth of
a training step on a CPU (docs/performance.md). A hash of (seed, position) is computed where
it is used, in the same loop as the activation, and again in the backward pass.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt


class Dropout(nn.Module):
  """Sets entries to 0 with probability `rate`, scales the others by 1 / (1 - rate).

  The seed of every call is drawn from the random numbers 'dropout'.

  Attributes:
    rate: from 0, which changes nothing, to below 1.
  """

  rate: float

  @nn.compact
  def __call__(
    self, x: Float[Array, '*shape'], *, deterministic: bool
  ) -> Float[Array, '*shape']:
    """Drops activations of `x` at random; `deterministic` leaves them unchanged."""
    if deterministic or not self.rate:
      return x
    seed = jax.random.bits(self.make_rng('dropout'), (2,), jnp.uint32)
    place = jax.lax.iota(jnp.uint32, math.prod(x.shape)).reshape(x.shape)
    keep = _hash(_hash(place ^ seed[0]) + seed[1]) >= jnp.uint32(self.rate * 2**32)
    return jnp.where(keep, x * jnp.asarray(1 / (1 - self.rate), x.dtype), 0)


def _hash(bits: UInt[Array, '*shape']) -> UInt[Array, '*shape']:
  """A bijection of 32 bits in which every input bit changes half of the output bits.

  Shifts and factors: `lowbias32` of Wellons, "Prospecting for hash functions" (2018).
  """
  bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
  bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
  return bits ^ (bits >> 16)
