"""Sparse Time Series Encoder for irregular events (paper section 3.1).

A token's vector is a product of a value vector and its item's vector, and a value id
belongs to one item. So the sum over the events of a window is a matrix of token
weights (windows x value ids) times the product table (value ids x width), and
accumulation over windows is a sum of those weights over the windows so far.
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from medm2t_jax.models.encoded import Encoded, summary_as_token
from medm2t_jax.models.events.event_statistics import (
  ItemStatistics,
  Observations,
  Thermometer,
)
from medm2t_jax.models.events.events_config import NUM_BINS, EventsConfig
from medm2t_jax.models.hierarchical_fusion import HierarchicalTimeAwareFusion
from medm2t_jax.models.layers.mlp import Mlp
from medm2t_jax.models.layers.recurrent import BidirectionalRecurrent
from medm2t_jax.models.layers.time_windows import window_of
from medm2t_jax.models.options import AttendOver


class SparseTimeSeriesEncoder(nn.Module):
  """Events to windows to one vector.

  Fitted variables: `knots` (items 12), `encoding_mean` (items 11), `item_seen`
  (items), `category_seen` (items, largest number of categories; absent without any),
  `time_cuts` (w - 1), hours (absent with one window).

  Attributes:
    config: sizes and options.
    axis_name: of BatchNorm.
    dtype: of the computation.
  """

  config: EventsConfig
  axis_name: str | None = None
  dtype: DTypeLike = jnp.float32

  def setup(self):
    config = self.config
    items, most = len(config.categories), max(config.categories, default=0)
    fitted = lambda name, *shape: self.variable('fitted', name, jnp.zeros, shape)
    seen = lambda name, *shape: self.variable('fitted', name, jnp.ones, shape, bool)
    self.knots = fitted('knots', items, NUM_BINS + 1)
    self.encoding_mean = fitted('encoding_mean', items, NUM_BINS)
    self.item_seen = seen('item_seen', items)
    if most:  # checkpoints hold no empty arrays
      self.category_seen = seen('category_seen', items, most)
    if config.windows > 1:
      self.time_cuts = fitted('time_cuts', config.windows - 1)
    if config.pooling == 'statistics':
      self.item_statistics = ItemStatistics(config, self.dtype)
    else:
      self._make_tables(items)
    if config.hierarchy:
      self.fusion = HierarchicalTimeAwareFusion(
        config.hierarchy, self.axis_name, self.dtype
      )
      return
    if config.sequence == 'lstm':
      self.recurrent = BidirectionalRecurrent(config.width // 2, dtype=self.dtype)
    self.mlp = Mlp((config.width, config.width), config.dropout, self.axis_name, self.dtype)
    self.token_linear = nn.Dense(config.width, dtype=self.dtype)

  def _make_tables(self, items: int) -> None:
    config = self.config
    table = nn.initializers.normal(1.0)
    self.value_table = self.param(
      'value_table', table, (len(config.item_of_id), config.width)
    )
    self.source_table = self.param('source_table', table, (items + 1, config.width))

  def __call__(
    self,
    events: Mapping[str, Array],
    valid: Bool[Array, ' b'],
    *,
    train: bool,
    attend_over: AttendOver = 'tokens',
  ) -> Encoded:
    """Encodes the events of each row.

    Args:
      events: `item`, `value`, `category`, `time`, `mask`, each (b n); docs/design.md.
      valid: rows that are not padding.
      train: whether to use dropout and the statistics of the batch.
      attend_over: whether tokens are the windows (with a hierarchy, its segments), or
        only the summary.
    """
    present = jnp.any(events['mask'], axis=1)
    windows, seen = self.windows(events, train=train)
    if self.config.hierarchy:
      seen = jnp.cumsum(seen, axis=1) > 0
      return self.fusion.fuse(
        windows, seen, seen, present, valid, train=train, attend_over=attend_over
      )
    if self.config.sequence == 'mean_last':
      outputs, final = windows, _mean_and_last(windows, seen)
    else:
      outputs, final = self.recurrent(windows)
    summary = self.mlp(final, valid & present, train=train)
    if attend_over == 'summary':
      return summary_as_token(summary, present)
    return Encoded(self.token_linear(outputs), seen, summary, present)

  def windows(
    self, events: Mapping[str, Array], *, train: bool = False
  ) -> tuple[Float[Array, 'b w e'], Bool[Array, 'b w']]:
    """The vector of each window, and whether it sees any event.

    A mean over tokens, or statistics of items; a window without events has the embedding of
    'none'.
    """
    config = self.config
    if config.pooling == 'statistics':
      return self._statistics(events, train)
    ids, weights, known = self.tokenize(events)
    count = lambda each: self._accumulate(self._count(events, known, each))
    counts = count(events['mask'].astype(jnp.float32))
    weights = self._accumulate(self._weigh(events, ids, weights))
    seen = jnp.sum(counts, axis=-1) > 0
    item_of_id = jnp.asarray(config.item_of_id)
    total = jnp.sum(counts, axis=-1)
    weights = weights / jnp.where(seen, total, 1.0)[..., jnp.newaxis]
    if 'token_gate' in events:
      # Weight that the gates remove goes to 'none', so that the total weight is unchanged.
      closed = count(jnp.where(events['mask'], 1 - events['token_gate'], 0.0))
      share = jnp.sum(closed, axis=-1) / jnp.where(seen, total, 1.0)
      weights = weights.at[..., -1].add(share)
    none = jnp.arange(len(config.item_of_id)) == len(config.item_of_id) - 1
    none = none.astype(weights.dtype)[jnp.newaxis, jnp.newaxis]
    weights = jnp.where(seen[..., jnp.newaxis], weights, none)
    table = self.value_table * jnp.take(self.source_table, item_of_id, axis=-2)
    table = table.astype(self.dtype)
    return jnp.einsum('bwi,ie->bwe', weights.astype(self.dtype), table), seen

  def _statistics(
    self, events: Mapping[str, Array], train: bool
  ) -> tuple[Float[Array, 'b w e'], Bool[Array, 'b w']]:
    config, items = self.config, len(self.config.categories)
    ids, weights, known = self.tokenize(events)
    counts = self._count(events, known, events['mask'].astype(jnp.float32))
    is_number = jnp.asarray(config.categories, jnp.int32)[events['item']] == 0
    observations = Observations(
      item=events['item'],
      window=window_of(events['time'], self._cuts()),
      value=jnp.where(is_number, events['value'], events['category'].astype(jnp.float32)),
      time=events['time'],
      mask=events['mask'] & known,
      gate=events.get('token_gate'),
    )
    vectors = self.item_statistics(
      self._weigh(events, ids, weights)[..., :-1],
      counts[..., :items],
      observations,
      jnp.append(self._cuts(), 0.0),
      self._thermometer(),
      train=train,
    )
    return vectors, jnp.sum(jnp.cumsum(counts, axis=1), axis=-1) > 0

  def _thermometer(self) -> Thermometer:
    config = self.config
    item = config.item_of_id[:-1]
    component = np.arange(len(item)) - config.first_ids[item]
    categorical = np.array(config.categories)[item] > 0
    piece = np.where(categorical, 0, component)
    knots = jnp.asarray(self.knots.value)
    return Thermometer(
      item=item,
      component=component,
      categorical=categorical,
      low=knots[item, piece],
      high=knots[item, piece + 1],
      mean=jnp.asarray(self.encoding_mean.value)[item, piece],
    )

  def _accumulate(self, inside: Float[Array, 'b w i']) -> Float[Array, 'b w i']:
    """Accumulates weights inside each window to what each window sees."""
    return inside if self.config.accumulation == 'none' else jnp.cumsum(inside, axis=1)

  def _count(
    self, events: Mapping[str, Array], known: Bool[Array, 'b n'], each: Float[Array, 'b n']
  ) -> Float[Array, 'b w j']:
    """Sum of `each` over the events of item j, or of unknown events, in each window."""
    items, window = len(self.config.categories), window_of(events['time'], self._cuts())
    row = jnp.arange(window.shape[0])[:, jnp.newaxis]
    counts = jnp.zeros((window.shape[0], self.config.windows, items + 1))
    return counts.at[row, window, jnp.where(known, events['item'], items)].add(each)

  def _weigh(
    self,
    events: Mapping[str, Array],
    ids: Int[Array, 'b n q'],
    weights: Float[Array, 'b n q'],
  ) -> Float[Array, 'b w i']:
    """Token weights per value id i, inside each window."""
    config, window = self.config, window_of(events['time'], self._cuts())[..., jnp.newaxis]
    if 'token_gate' in events:
      weights = weights * events['token_gate'][..., jnp.newaxis]
    row = jnp.arange(window.shape[0])[:, jnp.newaxis, jnp.newaxis]
    totals = jnp.zeros((window.shape[0], config.windows, len(config.item_of_id)))
    return totals.at[row, window, ids].add(
      jnp.where(events['mask'][..., jnp.newaxis], weights, 0.0)
    )

  def _cuts(self) -> Float[Array, ' c']:
    """Cuts between windows, in hours; empty with one window."""
    return jnp.asarray(self.time_cuts.value if self.config.windows > 1 else ())

  def tokenize(
    self, events: Mapping[str, Array]
  ) -> tuple[Int[Array, 'b n q'], Float[Array, 'b n q'], Bool[Array, 'b n']]:
    """Value ids of each event with their weights, and whether the event is known.

    Items and categories that no training subject had, and numbers of categorical items, are
    unknown: they get the id of 'none'.
    """
    config = self.config
    item, value, category = events['item'], events['value'], events['category']
    sizes = jnp.asarray(config.categories, jnp.int32)[item]
    first = jnp.asarray(config.first_ids)[item]
    numeric = (sizes == 0) & jnp.isfinite(value)
    known = jnp.asarray(self.item_seen.value)[item] & (
      numeric | (category >= 0) & (category < sizes)
    )
    if max(config.categories, default=0):
      known &= (
        numeric | jnp.asarray(self.category_seen.value)[item, jnp.maximum(category, 0)]
      )
    knots = jnp.asarray(self.knots.value)[item]
    value = jnp.where(numeric, value, 0.0)
    value = jnp.clip(value, knots[..., 0], knots[..., -1])[..., jnp.newaxis]
    if config.value_encoding == 'bins':
      # Right-closed bins: the inner knots strictly below the value.
      bins = jnp.sum(knots[..., 1:-1] < value, axis=-1)
      ids = (first + jnp.where(numeric, bins, category))[..., jnp.newaxis]
      weights = jnp.ones(ids.shape)
    elif config.value_encoding == 'piecewise_linear':
      step = jnp.diff(knots)
      filled = (value - knots[..., :-1]) / jnp.where(step > 0, step, 1.0)
      filled = jnp.where(step > 0, jnp.clip(filled, 0.0, 1.0), 0.0)
      centered = filled - jnp.asarray(self.encoding_mean.value)[item]
      component = jnp.arange(NUM_BINS)[jnp.newaxis, jnp.newaxis]
      one_hot = (component == 0).astype(jnp.float32)
      is_number = numeric[..., jnp.newaxis]
      weights = jnp.where(is_number, centered, one_hot)
      offset = jnp.where(is_number, component, category[..., jnp.newaxis])
      ids = first[..., jnp.newaxis] + offset
      weights = jnp.where(known[..., jnp.newaxis], weights, one_hot)
    else:
      raise ValueError(
        f"value_encoding is 'bins' or 'piecewise_linear', not {config.value_encoding!r}"
      )
    none = len(config.item_of_id) - 1
    return jnp.where(known[..., jnp.newaxis], ids, none), weights, known


def _mean_and_last(
  windows: Float[Array, 'b w e'], seen: Bool[Array, 'b w']
) -> Float[Array, 'b f']:
  known = seen.astype(jnp.float32)
  share = known / jnp.maximum(jnp.sum(known, axis=1, keepdims=True), 1)
  mean = jnp.einsum('bw,bwe->be', share.astype(windows.dtype), windows)
  return jnp.concatenate([mean, windows[:, -1]], axis=-1)
