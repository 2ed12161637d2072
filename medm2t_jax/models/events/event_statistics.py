"""Statistics of each item's values, so far and inside a time window.

In a mean over all tokens, a heart rate measured sixty times drowns a lactate measured once.
Here every item has its own place in the vector of a window: a few statistics, each as the
quantile thermometer of the item, centred at the item's mean, so that an item that was not
measured adds nothing.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from medm2t_jax.models.events.events_config import EventsConfig
from medm2t_jax.models.layers.dropout import Dropout

# 'mean' and 'mean_inside' are means of encodings, the others encodings of a value.
STATISTICS = ('mean', 'mean_inside', 'last', 'maximum', 'minimum')
RATES = ('count', 'count_inside', 'freshness')
FRESH_HOURS = 12.0
# Adam moves a parameter by about the learning rate per step, so tables of size 1 would
# hardly move.
_SCALE = 0.02


class Observations(NamedTuple):
  """Known events, at n places.

  `value` is a number or the index of a category, `gate` is that of
  `medm2t_jax.models.gates`.
  """

  item: Int[Array, 'b n']
  window: Int[Array, 'b n']
  value: Float[Array, 'b n']
  time: Float[Array, 'b n']
  mask: Bool[Array, 'b n']
  gate: Float[Array, 'b n'] | None = None


@dataclasses.dataclass(frozen=True)
class Thermometer:
  """Encodes one number or category per item as weights of value ids i.

  Attributes:
    item: of each value id, int32 (i).
    component: index of the id within its item, int32 (i).
    categorical: whether the item has categories, bool (i).
    low: knot below the component, (i).
    high: knot above it, (i).
    mean: of the encoding, (i).
  """

  item: Int[np.ndarray, ' i']
  component: Int[np.ndarray, ' i']
  categorical: Bool[np.ndarray, ' i']
  low: Float[Array, ' i']
  high: Float[Array, ' i']
  mean: Float[Array, ' i']

  def __call__(
    self, value: Float[Array, 'b w j'], known: Bool[Array, 'b w j']
  ) -> Float[Array, 'b w i']:
    """Weights of the value ids; 0 if an item is unknown."""
    lead = lambda x: jnp.asarray(x)[jnp.newaxis, jnp.newaxis]
    known = known[..., self.item]
    value = jnp.where(known, value[..., self.item], 0.0)
    width = self.high - self.low
    filled = (value - lead(self.low)) / lead(jnp.where(width > 0, width, 1.0))
    filled = jnp.where(lead(width > 0), jnp.clip(filled, 0.0, 1.0), 0.0) - lead(self.mean)
    one_hot = (value == lead(self.component).astype(value.dtype)).astype(filled.dtype)
    return jnp.where(known, jnp.where(lead(self.categorical), one_hot, filled), 0.0)


class ItemStatistics(nn.Module):
  """The vector of every window, from the statistics of its items.

  Attributes:
    config: sizes and options.
    dtype: of the computation.
  """

  config: EventsConfig
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    weights: Float[Array, 'b w i'],
    counts: Float[Array, 'b w j'],
    observations: Observations,
    ends: Float[Array, ' w'],
    encode: Thermometer,
    *,
    train: bool,
  ) -> Float[Array, 'b w e']:
    """Encodes windows. Arguments are those of `statistics`; `train` turns dropout on."""
    config = self.config
    values, rates = statistics(weights, counts, observations, ends, encode)
    if train and config.input_dropout:
      shape = (counts.shape[0], 1, len(STATISTICS) + len(RATES), counts.shape[-1])
      keep = 1 - config.input_dropout
      kept = jax.random.bernoulli(self.make_rng('dropout'), keep, shape)
      kept = kept.astype(jnp.float32) / keep
      of_values, of_rates = jnp.split(kept, [len(STATISTICS)], axis=2)
      values = values * of_values[..., encode.item]
      rates = rates * of_rates

    def product(name: str, x: Float[Array, 'b w s i']) -> Float[Array, 'b w e']:
      small = nn.initializers.normal(_SCALE)
      table = self.param(name, small, (*x.shape[2:], config.width))
      return jnp.einsum('bwsi,sie->bwe', x.astype(self.dtype), table.astype(self.dtype))

    total = product('statistic_table', values) + product('rate_table', rates)
    normed = nn.LayerNorm(dtype=self.dtype, name='norm')(total)
    return Dropout(config.window_dropout)(normed, deterministic=not train)


def statistics(
  weights: Float[Array, 'b w i'],
  counts: Float[Array, 'b w j'],
  observations: Observations,
  ends: Float[Array, ' w'],
  encode: Thermometer,
) -> tuple[Float[Array, 'b w s i'], Float[Array, 'b w r j']]:
  """`STATISTICS` per value id i, and `RATES` per item j, of every window.

  Of events at the same time, the largest counts as the last. An item without events has 0
  everywhere. Maximum and minimum of a categorical item are the highest and the lowest index
  of its observed categories.

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
  inside, gate, mask = counts > 0, observations.gate, observations.mask
  row = jnp.arange(counts.shape[0])[:, jnp.newaxis]
  place = (row, observations.window, observations.item)
  largest = lambda x: (
    jnp.full(counts.shape, -jnp.inf).at[place].max(jnp.where(mask, x, -jnp.inf))
  )
  steps = jnp.arange(counts.shape[1])[jnp.newaxis, :, jnp.newaxis]

  def encoded(
    found: Float[Array, 'b w j'],
    is_found: Bool[Array, 'b n'],
    window_of: Int[Array, 'b w j'],
  ) -> Float[Array, 'b w i']:
    """Encodings of the found values, each taken from the latest window that has one."""
    taken = lambda x: jnp.take_along_axis(x, window_of, axis=1)
    result = encode(taken(found), known)
    if gate is None:
      return result
    total = lambda x: (
      jnp.zeros(counts.shape).at[place].add(jnp.where(mask & is_found, x, 0.0))
    )
    return result * taken(total(gate) / jnp.maximum(total(1.0), 1.0))[..., encode.item]

  def extreme(x: Float[Array, 'b n'], sign: int) -> Float[Array, 'b w i']:
    found = largest(sign * x)
    is_new = inside & (found == jax.lax.cummax(found, axis=1))
    window_of = jax.lax.cummax(jnp.where(is_new, steps, 0), axis=1)
    return encoded(sign * found, sign * x == found[place], window_of)

  value = observations.value
  time = largest(observations.time)
  is_last = observations.time == time[place]
  last = largest(jnp.where(is_last, value, -jnp.inf))
  recent = jax.lax.cummax(jnp.where(inside, steps, 0), axis=1)
  of_values = [
    per_item(jnp.cumsum(weights, axis=1), so_far),
    per_item(weights, counts),
    encoded(last, is_last & (value == last[place]), recent),
    extreme(value, 1),
    extreme(value, -1),
  ]
  age = ends[jnp.newaxis, :, jnp.newaxis] - jnp.where(
    known, jnp.take_along_axis(time, recent, axis=1), 0.0
  )
  freshness = jnp.where(known, jnp.exp(-age / FRESH_HOURS), 0.0)
  of_rates = [jnp.log1p(so_far), jnp.log1p(counts), freshness]
  return jnp.stack(of_values, axis=2), jnp.stack(of_rates, axis=2)
