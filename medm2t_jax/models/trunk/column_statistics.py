"""Computes statistics of the observations of every item of a batch, with gates.

Letters: b rows, j items, o observations of a batch in any shape, g steps and v signals of a
grid, n columns, s statistics.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

STATISTICS = (
  'first', 'last', 'min', 'max', 'mean', 'variance', 'slope', 'count',
  'hours_since_last',
)  # fmt: skip
SEGMENT_STEPS = 12  # the paper's shorter segments


class Columns(NamedTuple):
  """Columns of a batch.

  Attributes:
    value: 0 if unknown.
    known: whether there is anything to summarise; a count is always known.
    gate: mean gate (`medm2t_jax.models.gates`) of the values that a column depends on, 1 if
      it depends on none; None without gates.
  """

  value: Float[Array, 'b n']
  known: Bool[Array, 'b n']
  gate: Float[Array, 'b n'] | None


class Observations(NamedTuple):
  """Observations of a batch, in arrays of any one shape.

  `value` is a number or the index of a category; `gate` is that of
  `medm2t_jax.models.gates`.
  """

  row: Int[Array, '*o']
  item: Int[Array, '*o']
  value: Float[Array, '*o'] | Int[Array, '*o']
  time: Float[Array, '*o']
  mask: Bool[Array, '*o']
  gate: Float[Array, '*o'] | None = None


def numeric_statistics(observed: Observations, shape: tuple[int, int]) -> Columns:
  """Each of `STATISTICS` on a last axis, (b j 9).

  A variance is 0 and a slope unknown if all observations have the same time. Of several at
  the same time, the smallest counts as the first and the largest as the last.

  Args:
    observed: numbers.
    shape: rows, items.
  """
  place, mask = (observed.row, observed.item), observed.mask[..., jnp.newaxis]
  value, time = observed.value, observed.time

  # All independent sums are one scatter, and so are all independent extremes.
  def total(*each: Array) -> list[Array]:
    x = jnp.where(mask, jnp.stack(each, axis=-1), 0.0)
    return _last_axis(jnp.zeros((*shape, len(each))).at[place].add(x))

  def greatest(*each: Array) -> list[Array]:
    x = jnp.where(mask, jnp.stack(each, axis=-1), -jnp.inf)
    return _last_axis(jnp.full((*shape, len(each)), -jnp.inf).at[place].max(x))

  count, value_sum, time_sum = total(jnp.ones_like(value), value, time)
  some = jnp.maximum(count, 1.0)
  mean = value_sum / some
  negative_low, high, negative_begin, end = greatest(-value, value, -time, time)
  low, begin = -negative_low, -negative_begin
  known = count > 0
  several = known & (end > begin)
  # Looked up together, because every lookup is a gather.
  looked_up = jnp.stack([mean, time_sum / some, begin, end, low, high], axis=-1)[place]
  of_mean, of_time, of_begin, of_end, of_low, of_high = _last_axis(looked_up)
  deviation, since = value - of_mean, time - of_time
  is_first, is_last = time == of_begin, time == of_end
  negative_first, last = greatest(
    jnp.where(is_first, -value, -jnp.inf), jnp.where(is_last, value, -jnp.inf)
  )
  first = -negative_first
  squares, products, spread = total(deviation**2, since * deviation, since**2)
  slope = products / jnp.where(several, spread, 1.0)
  values = [first, last, low, high, mean, squares / some, slope, count, -end]
  flags = jnp.stack([known] * 6 + [several, jnp.ones_like(known), known], axis=-1)
  gates = None
  if observed.gate is not None:
    found = [
      is_first & (value == first[place]),
      is_last & (value == last[place]),
      value == of_low,
      value == of_high,
      jnp.ones_like(is_first),
    ]
    # Separate, because gates may have another axis, that of the nodes of an explanation.
    sums = total(*(jnp.where(one, observed.gate, 0.0) for one in found))
    counts = total(*(one.astype(jnp.float32) for one in found))
    of_first, of_last, of_low, of_high, of_all = (
      jnp.where(among > 0, gate / jnp.maximum(among, 1.0), 1.0)
      for gate, among in zip(sums, counts, strict=True)
    )
    ones = jnp.ones(shape)  # presence and times of measurements are not gated
    gates = jnp.stack(
      [of_first, of_last, of_low, of_high, of_all, of_all, of_all, ones, ones], axis=-1
    )
  return Columns(jnp.where(flags, jnp.stack(values, axis=-1), 0.0), flags, gates)


def cell_statistics(
  value: Float[Array, 'b g v'],
  observed: Bool[Array, 'b g v'],
  step_hours: float,
  gate: Float[Array, 'b g v'] | None,
) -> Columns:
  """`numeric_statistics` of the signals of a grid, (b v 9): there are no ties in time."""
  steps = observed.shape[1]
  time = (jnp.arange(steps, dtype=jnp.float32) + 0.5 - steps) * step_hours
  time = time[jnp.newaxis, :, jnp.newaxis]
  total = lambda x: jnp.sum(jnp.where(observed, x, 0.0), axis=1)
  low = jnp.min(jnp.where(observed, value, jnp.inf), axis=1)
  high = jnp.max(jnp.where(observed, value, -jnp.inf), axis=1)
  count = jnp.sum(observed, axis=1).astype(jnp.float32)
  known, some = count > 0, jnp.maximum(count, 1.0)
  mean, mean_time = total(value) / some, total(time) / some
  lead = lambda x: x[:, jnp.newaxis]
  deviation, since = value - lead(mean), time - lead(mean_time)

  begin = jnp.argmax(observed, axis=1)
  end = steps - 1 - jnp.argmax(jnp.flip(observed, 1), axis=1)
  at = lambda x, step: jnp.take_along_axis(x, lead(step), axis=1)[:, 0]
  several = known & (end > begin)
  slope = total(since * deviation) / jnp.where(several, total(since * since), 1.0)
  hours = (steps - 0.5 - end.astype(jnp.float32)) * step_hours
  values = [
    at(value, begin), at(value, end), low, high, mean, total(deviation**2) / some, slope,
    count, hours,
  ]  # fmt: skip
  flags = jnp.stack([known] * 6 + [several, jnp.ones_like(known), known], axis=-1)
  gates = None
  if gate is not None:
    among = lambda found: jnp.where(
      known,
      total(jnp.where(found, gate, 0.0))
      / jnp.maximum(jnp.sum(observed & found, axis=1), 1).astype(jnp.float32),
      1.0,
    )
    of_all = among(jnp.ones_like(observed))
    of_ends = [jnp.where(known, at(gate, step), 1.0) for step in (begin, end)]
    extremes = [among(value == lead(low)), among(value == lead(high))]
    ones = jnp.ones_like(of_all)
    gates = jnp.stack([*of_ends, *extremes, of_all, of_all, of_all, ones, ones], axis=-1)
  return Columns(jnp.where(flags, jnp.stack(values, axis=-1), 0.0), flags, gates)


def _last_axis(x: Float[Array, '*o s']) -> list[Array]:
  """The arrays that were stacked on the last axis."""
  return [x[..., index] for index in range(x.shape[-1])]


def cell_spread(
  value: Float[Array, 'b g v'], observed: Bool[Array, 'b g v']
) -> tuple[Float[Array, 'b v'], Bool[Array, 'b v']]:
  """Standard deviation inside segments of `SEGMENT_STEPS`, pooled over the segments.

  It measures variation within segments, not between them. Unknown if no segment has two
  observations.
  """
  rows, steps, signals = observed.shape
  segments = -(-steps // SEGMENT_STEPS)
  # The last segment ends with the grid.
  pad = ((0, 0), (segments * SEGMENT_STEPS - steps, 0), (0, 0))
  cut = lambda x: jnp.pad(x, pad).reshape(rows, segments, SEGMENT_STEPS, signals)
  value, observed = cut(value), cut(observed)
  count = jnp.sum(observed, axis=2)
  mean = jnp.sum(value, axis=2) / jnp.maximum(count, 1).astype(jnp.float32)
  deviation = jnp.where(observed, value - mean[:, :, jnp.newaxis], 0.0)
  free = jnp.sum(jnp.maximum(count - 1, 0), axis=1)
  total = jnp.sum(deviation * deviation, axis=(1, 2))
  known = free > 0
  # The root has no gradient at 0, and none is needed.
  return jnp.sqrt(total / jnp.maximum(free, 1).astype(jnp.float32)), known


def categorical_statistics(
  observed: Observations, rows: int, levels: np.ndarray
) -> Columns:
  """Columns of categorical items: whether each level was last, its count; then hours."""
  items, most = len(levels), int(levels.max())
  place = (observed.row, observed.item)
  level = observed.value.astype(jnp.int32)
  number = level.astype(jnp.float32)
  greatest = lambda x: (
    jnp.full((rows, items), -jnp.inf).at[place].max(jnp.where(observed.mask, x, -jnp.inf))
  )
  end = greatest(observed.time)
  is_last = observed.time == end[place]
  last = greatest(jnp.where(is_last, number, -jnp.inf))

  def total(*each: Array) -> list[Array]:
    x = jnp.where(observed.mask[..., jnp.newaxis], jnp.stack(each, axis=-1), 0.0)
    sums = jnp.zeros((rows, items, most, len(each))).at[(*place, level)].add(x)
    return _last_axis(sums)

  decides = (is_last & (number == last[place])).astype(jnp.float32)
  (count,) = total(jnp.ones_like(observed.time))
  is_known = jnp.isfinite(end)
  each_level = jnp.arange(most, dtype=jnp.float32)[jnp.newaxis, jnp.newaxis]
  was_last = (last[..., jnp.newaxis] == each_level).astype(jnp.float32)
  # A pair per level, then the hours; levels that an item does not have are left out.
  pairs = lambda a, b: jnp.stack([a, b], axis=-1).reshape(rows, items, 2 * most)
  with_hours = lambda x, hours: jnp.concatenate([x, hours[..., jnp.newaxis]], axis=-1)
  hours = jnp.where(is_known, -end, 0.0)
  value = with_hours(pairs(was_last, count), hours)
  known = with_hours(jnp.ones((rows, items, 2 * most), bool), is_known)
  gate = None
  if observed.gate is not None:
    of_level, of_last, among = total(observed.gate, observed.gate * decides, decides)
    share = lambda gate, count: jnp.where(count > 0, gate / jnp.maximum(count, 1.0), 1.0)
    gate_of_last = share(jnp.sum(of_last, axis=-1), jnp.sum(among, axis=-1))
    spread = jnp.broadcast_to(gate_of_last[..., jnp.newaxis], count.shape)
    gate = with_hours(pairs(spread, share(of_level, count)), jnp.ones((rows, items)))
  kept = [
    item * (2 * most + 1) + part
    for item in np.flatnonzero(levels)
    for part in (*range(2 * int(levels[item])), 2 * most)
  ]
  chosen = lambda x: x.reshape(rows, -1)[:, np.array(kept)]
  return jax.tree.map(chosen, Columns(value, known, gate))
