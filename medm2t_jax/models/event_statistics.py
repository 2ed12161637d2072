"""What a time window knows of each item: statistics of its values, so far and inside.

A mean over all tokens lets a heart rate that was measured sixty times drown a lactate
that was measured once. Here every item keeps its own place in the vector of a window: a
few statistics, each as the quantile thermometer of the item, centred at the item's mean,
so that an item that has not been measured adds nothing.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# 'mean' and 'mean_inside' are of encodings, the others encodings of a value.
STATISTICS = ('mean', 'mean_inside', 'last', 'maximum', 'minimum')
RATES = ('count', 'count_inside', 'freshness')
FRESH_HOURS = 12.0


class Observations(NamedTuple):
  """Events that are known, of n places; `value` is a number or the index of a category."""

  item: Int[Array, 'b n']
  window: Int[Array, 'b n']
  value: Float[Array, 'b n']
  time: Float[Array, 'b n']
  mask: Bool[Array, 'b n']


@dataclasses.dataclass(frozen=True)
class Thermometer:
  """Encoding of one number per item, or of one category, as weights of value ids i.

  Attributes:
    item: of each value id, int32 (i).
    component: place of the id within its item, int32 (i).
    categorical: whether the item has categories, bool (i).
    low: knot below the component; high: the one above; mean: of the encoding, all (i).
  """

  item: np.ndarray
  component: np.ndarray
  categorical: np.ndarray
  low: Float[Array, ' i']
  high: Float[Array, ' i']
  mean: Float[Array, ' i']

  def __call__(
    self, value: Float[Array, 'b w j'], known: Bool[Array, 'b w j']
  ) -> Float[Array, 'b w i']:
    """Weights of the value ids; 0 where an item is not known."""
    lead = lambda x: jnp.asarray(x)[jnp.newaxis, jnp.newaxis]
    known = known[..., self.item]
    value = jnp.where(known, value[..., self.item], 0.0)
    width = self.high - self.low
    filled = (value - lead(self.low)) / lead(jnp.where(width > 0, width, 1.0))
    filled = jnp.where(lead(width > 0), jnp.clip(filled, 0.0, 1.0), 0.0) - lead(self.mean)
    one_hot = (value == lead(self.component)).astype(filled.dtype)
    return jnp.where(known, jnp.where(lead(self.categorical), one_hot, filled), 0.0)


def statistics(
  weights: Float[Array, 'b w i'],
  counts: Float[Array, 'b w j'],
  observations: Observations,
  ends: Float[Array, ' w'],
  encode: Thermometer,
) -> tuple[Float[Array, 'b w s i'], Float[Array, 'b w r j']]:
  """`STATISTICS` per value id i, and `RATES` per item j, of every window.

  Of events at the same time the largest is the last. An item without an event has 0
  everywhere. Maximum and minimum of a categorical item are the highest and the lowest
  index of its categories that occurred.

  Args:
    weights: sums of the token weights inside each window.
    counts: events per item inside each window.
    observations: the events.
    ends: of the windows, hours.
    encode: of the items.
  """
  so_far = jnp.cumsum(counts, axis=1)
  known = so_far > 0
  per_item = lambda total, count: total / jnp.maximum(count, 1.0)[..., encode.item]
  shape = counts.shape
  row = jnp.arange(shape[0])[:, jnp.newaxis]
  place = (row, observations.window, observations.item)
  largest = lambda x: (
    jnp.full(shape, -jnp.inf).at[place].max(jnp.where(observations.mask, x, -jnp.inf))
  )
  time = largest(observations.time)
  is_last = observations.time == time[place]
  last = largest(jnp.where(is_last, observations.value, -jnp.inf))
  # The most recent window that holds the item.
  steps = jnp.arange(shape[1])[jnp.newaxis, :, jnp.newaxis]
  recent = jax.lax.cummax(jnp.where(counts > 0, steps, 0), axis=1)
  carried = lambda x: jnp.take_along_axis(x, recent, axis=1)
  maximum = jax.lax.cummax(largest(observations.value), axis=1)
  minimum = -jax.lax.cummax(largest(-observations.value), axis=1)
  encoded = [
    per_item(jnp.cumsum(weights, axis=1), so_far),
    per_item(weights, counts),
    *(encode(value, known) for value in (carried(last), maximum, minimum)),
  ]
  age = ends[jnp.newaxis, :, jnp.newaxis] - jnp.where(known, carried(time), 0.0)
  freshness = jnp.where(known, jnp.exp(-age / FRESH_HOURS), 0.0)
  rates = [jnp.log1p(so_far), jnp.log1p(counts), freshness]
  return jnp.stack(encoded, axis=2), jnp.stack(rates, axis=2)
