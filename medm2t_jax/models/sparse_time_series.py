"""Sparse Time Series Encoder for irregular events (paper section 3.1).

A token's vector is a product of a value vector and its item's vector, and a value id
belongs to one item. So the sum over the events of a window is a matrix of token
weights (windows x value ids) times the product table (value ids x width), and
accumulation over windows is a sum of those weights over the windows so far.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from medm2t_jax.models.dropout import Dropout
from medm2t_jax.models.encoded import Encoded, summary_as_token
from medm2t_jax.models.event_statistics import (
  RATES,
  STATISTICS,
  Observations,
  Thermometer,
  statistics,
)
from medm2t_jax.models.mlp import Mlp
from medm2t_jax.models.recurrent import BidirectionalRecurrent, Cell

# Adam moves a parameter by about its rate in a step: tables of size 1 would hardly move.
STATISTICS_SCALE = 0.02
NUM_BINS = 11  # between the 5, 15, ..., 95 percentiles of an item


@dataclasses.dataclass(frozen=True)
class EventsConfig:
  """Sizes and options of one event modality.

  Attributes:
    categories: number of categories per item, 0 for a numeric item.
    windows: number of time windows.
    width: of embeddings, recurrent outputs and the summary.
    dropout: of the MLP.
    value_encoding: 'bins' (one-hot) or 'piecewise_linear' (quantile thermometer,
      centred at the item's mean).
    pooling: mean over all 'tokens', or per 'item' first, or 'statistics' of each item
      (`event_statistics`; piecewise-linear values, accumulation 'mean', shared tables).
    accumulation: a window sees all tokens so far alike ('mean'), weighted by a learned
      positive weight per pair of windows ('learned', at first all 1), or only its own
      ('none').
    tables: one pair of tables for all windows ('shared'), or one each ('per_window').
    sequence: recurrent cell, or 'mean_last': the mean of the windows that have seen an
      event beside the last window.
    input_dropout: of the statistics of an item in all windows, with 'statistics'.
    window_dropout: of the windows' vectors, with 'statistics'.
    decoder: hidden width of the stage's decoder.
    decoder_dropout: its rate.
  """

  categories: tuple[int, ...]
  windows: int
  width: int
  dropout: float
  value_encoding: Literal['bins', 'piecewise_linear']
  pooling: Literal['tokens', 'item', 'statistics']
  accumulation: Literal['mean', 'learned', 'none']
  tables: Literal['shared', 'per_window']
  sequence: Cell | Literal['mean_last']
  input_dropout: float
  window_dropout: float
  decoder: int
  decoder_dropout: float

  @property
  def item_sizes(self) -> np.ndarray:
    """Value ids per item."""
    return np.array([count or NUM_BINS for count in self.categories], np.int32)

  @property
  def first_ids(self) -> np.ndarray:
    """First value id of each item; the last entry is the id of 'none', (items + 1,)."""
    return np.concatenate([[0], np.cumsum(self.item_sizes)]).astype(np.int32)

  @property
  def item_of_id(self) -> np.ndarray:
    """Item of each value id; 'none' belongs to item `items`, (value ids + 1,)."""
    items = len(self.categories)
    sizes = [*self.item_sizes, 1]
    return np.repeat(np.arange(items + 1), sizes).astype(np.int32)


class SparseTimeSeriesEncoder(nn.Module):
  """Events to windows to one vector.

  Fitted variables: `knots` (items 12), `encoding_mean` (items 11), `item_seen`
  (items), `category_seen` (items, most categories; not there without any),
  `time_cuts` (w - 1), hours (not there with one window).

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
      small = nn.initializers.normal(STATISTICS_SCALE)
      values = len(config.item_of_id) - 1
      self.statistic_table = self.param(
        'statistic_table', small, (len(STATISTICS), values, config.width)
      )
      self.rate_table = self.param('rate_table', small, (len(RATES), items, config.width))
      self.window_norm = nn.LayerNorm(dtype=self.dtype)
      self.window_drop = Dropout(config.window_dropout)
    else:
      self._make_tables(items)
    if config.sequence != 'mean_last':
      self.recurrent = BidirectionalRecurrent(
        config.width // 2, cell=config.sequence, dtype=self.dtype
      )
    self.mlp = Mlp((config.width, config.width), config.dropout, self.axis_name, self.dtype)
    self.token_linear = nn.Dense(config.width, dtype=self.dtype)

  def _make_tables(self, items: int) -> None:
    config = self.config
    table = nn.initializers.normal(1.0)
    lead = {'shared': (), 'per_window': (config.windows,)}[config.tables]
    self.value_table = self.param(
      'value_table', table, (*lead, len(config.item_of_id), config.width)
    )
    self.source_table = self.param('source_table', table, (*lead, items + 1, config.width))
    if config.accumulation == 'learned':
      self.log_weights = self.param(
        'log_weights', nn.initializers.zeros, (config.windows, config.windows)
      )

  def __call__(
    self,
    events: Mapping[str, Array],
    valid: Bool[Array, ' b'],
    *,
    train: bool,
    attend_over: Literal['tokens', 'summary'] = 'tokens',
  ) -> Encoded:
    """Encodes the events of each row.

    Args:
      events: `item`, `value`, `category`, `time`, `mask`, each (b n); docs/design.md.
      valid: rows that are not padding.
      train: dropout and statistics of the batch.
      attend_over: tokens are the windows, or the summary alone.
    """
    present = jnp.any(events['mask'], axis=1)
    windows, seen = self.windows(events, train=train)
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
    """The vector of what each window sees, and whether it sees any event.

    By default a mean over tokens; a window that sees no event holds the embedding of
    'none'.
    """
    config = self.config
    if config.pooling == 'statistics':
      return self._statistics(events, train)
    weights, counts = self._accumulate(*self._count(events))
    seen = jnp.sum(counts, axis=-1) > 0
    item_of_id = jnp.asarray(config.item_of_id)
    if config.pooling == 'item':
      weights = weights / jnp.where(counts > 0, counts, 1.0)[:, :, item_of_id]
      total = jnp.sum(counts > 0, axis=-1)
    elif config.pooling == 'tokens':
      total = jnp.sum(counts, axis=-1)
    else:
      raise ValueError(f"pooling is 'tokens' or 'item', not {config.pooling!r}")
    weights = weights / jnp.where(seen, total, 1.0)[..., jnp.newaxis]
    none = jnp.arange(len(config.item_of_id)) == len(config.item_of_id) - 1
    weights = jnp.where(seen[..., jnp.newaxis], weights, none[jnp.newaxis, jnp.newaxis])
    table = self.value_table * jnp.take(self.source_table, item_of_id, axis=-2)
    product = {'shared': 'bwi,ie->bwe', 'per_window': 'bwi,wie->bwe'}[config.tables]
    return jnp.einsum(product, weights.astype(self.dtype), table.astype(self.dtype)), seen

  def _statistics(
    self, events: Mapping[str, Array], train: bool
  ) -> tuple[Float[Array, 'b w e'], Bool[Array, 'b w']]:
    config, items = self.config, len(self.config.categories)
    weights, counts = self._count(events)
    _, _, known = self.tokenize(events)
    is_number = jnp.asarray(config.categories, jnp.int32)[events['item']] == 0
    observations = Observations(
      item=events['item'],
      window=self._window(events['time']),
      value=jnp.where(is_number, events['value'], events['category'].astype(jnp.float32)),
      time=events['time'],
      mask=events['mask'] & known,
    )
    ends = jnp.append(self._cuts(), 0.0)
    values, rates = statistics(
      weights[..., :-1], counts[..., :items], observations, ends, self._thermometer()
    )
    if train and config.input_dropout:
      shape = (len(weights), 1, len(STATISTICS) + len(RATES), items)
      keep = 1 - config.input_dropout
      kept = jax.random.bernoulli(self.make_rng('dropout'), keep, shape) / keep
      of_values, of_rates = jnp.split(kept, [len(STATISTICS)], axis=2)
      values = values * of_values[..., config.item_of_id[:-1]]
      rates = rates * of_rates
    product = lambda x, table: jnp.einsum(
      'bwsi,sie->bwe', x.astype(self.dtype), table.astype(self.dtype)
    )
    total = product(values, self.statistic_table) + product(rates, self.rate_table)
    vectors = self.window_drop(self.window_norm(total), deterministic=not train)
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

  def _accumulate(
    self, weights: Float[Array, 'b w i'], counts: Float[Array, 'b w j']
  ) -> tuple[Float[Array, 'b w i'], Float[Array, 'b w j']]:
    """What each window sees, from what is inside each."""
    if self.config.accumulation == 'none':
      return weights, counts
    if self.config.accumulation == 'mean':
      return jnp.cumsum(weights, axis=1), jnp.cumsum(counts, axis=1)
    if self.config.accumulation != 'learned':
      raise ValueError(
        f"accumulation is 'mean', 'learned' or 'none', not {self.config.accumulation!r}"
      )
    so_far = jnp.tril(jnp.exp(self.log_weights))
    mix = lambda x: jnp.einsum('wu,bui->bwi', so_far, x)
    return mix(weights), mix(counts)

  def _count(
    self, events: Mapping[str, Array]
  ) -> tuple[Float[Array, 'b w i'], Float[Array, 'b w j']]:
    """Token weights per value id i and events per item j, inside each window."""
    config, mask = self.config, events['mask']
    ids, weights, known = self.tokenize(events)
    window = self._window(events['time'])
    row = jnp.arange(mask.shape[0])[:, jnp.newaxis]
    item = jnp.where(known, events['item'], len(config.categories))
    shape = (mask.shape[0], config.windows)
    counts = jnp.zeros((*shape, len(config.categories) + 1))
    counts = counts.at[row, window, item].add(mask.astype(jnp.float32))
    totals = jnp.zeros((*shape, len(config.item_of_id)))
    totals = totals.at[row[..., jnp.newaxis], window[..., jnp.newaxis], ids].add(
      jnp.where(mask[..., jnp.newaxis], weights, 0.0)
    )
    return totals, counts

  def _window(self, time: Float[Array, 'b n']) -> Int[Array, 'b n']:
    """Window w holds cuts[w - 1] < time <= cuts[w]."""
    cuts = self._cuts()[jnp.newaxis, jnp.newaxis]
    return jnp.sum(cuts < time[..., jnp.newaxis], axis=-1)

  def _cuts(self) -> Float[Array, ' c']:
    """Cuts between windows, in hours; of one window none."""
    return jnp.asarray(self.time_cuts.value if self.config.windows > 1 else ())

  def tokenize(
    self, events: Mapping[str, Array]
  ) -> tuple[Int[Array, 'b n q'], Float[Array, 'b n q'], Bool[Array, 'b n']]:
    """Value ids of each event with their weights, and whether the event is known.

    An item or category that training subjects never had, and a number where a
    category belongs, is unknown: it gets the id of 'none'.
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
  share = seen / jnp.maximum(jnp.sum(seen, axis=1, keepdims=True), 1)
  mean = jnp.einsum('bw,bwe->be', share.astype(windows.dtype), windows)
  return jnp.concatenate([mean, windows[:, -1]], axis=-1)
