"""Events: their fitted statistics, encoder, and attributions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from jax.typing import DTypeLike

from data_pipeline.format import modalities as format_kinds
from data_pipeline.format.items import Item
from data_pipeline.format.modalities import base as format_base
from medm2t_jax.modalities import base
from medm2t_jax.modalities.ablation import Ablation
from medm2t_jax.modalities.base import Arrays, Fitted, Level, Observations, Setting
from medm2t_jax.modalities.columns import piecewise_linear
from medm2t_jax.modalities.hierarchy import MicroSize, hierarchy
from medm2t_jax.modalities.shown import (
  ColumnVariable,
  Course,
  Event,
  ItemAttribution,
  Shown,
  mean,
)
from medm2t_jax.modalities.windows import token_names, windows_of
from medm2t_jax.models.events.events_config import NUM_BINS, EventsConfig
from medm2t_jax.models.events.sparse_time_series import SparseTimeSeriesEncoder
from medm2t_jax.models.hierarchical_fusion import HierarchyConfig
from medm2t_jax.models.modality import DecoderSize
from medm2t_jax.models.options import ModelOptions
from medm2t_jax.models.trunk.column_statistics import STATISTICS
from medm2t_jax.models.trunk.columns import EventColumns

HIERARCHY_WINDOWS = 24  # with sequence='hierarchical', unless windows are given
PERCENTILES = np.arange(5, 100, 10)  # 5, 15, ..., 95: paper section 3.1


@dataclasses.dataclass(frozen=True)
class _Size:
  """Width, dropout, decoder, decoder dropout (paper, Table B1)."""

  width: int
  dropout: float
  decoder: int
  decoder_dropout: float


# Sizes of laboratory values, also for events that the paper does not have.
_PAPER = {
  'cvd': _Size(128, 0.05, 64, 0.1),
  'mortality': _Size(512, 0.05, 256, 0.1),
  'los': _Size(512, 0.05, 256, 0.1),
}
_SMALL = _Size(64, 0.05, 32, 0.1)
_NAMED = {
  'vitals_categorical': (
    dict.fromkeys(_PAPER, _Size(256, 0.1, 128, 0.1)),
    _Size(64, 0.1, 32, 0.1),
  )
}


@dataclasses.dataclass(frozen=True)
class Events(base.Modality):
  """Irregular events of a model."""

  spec: format_kinds.Events
  config: EventsConfig

  of = format_kinds.Events
  kind = of.kind
  described = 'events'
  in_windows = True
  gates: ClassVar[Mapping[str, str]] = {'token': 'mask'}
  windowed = True
  thinned_by_damage = True
  # One of 11 bins each, mean over all tokens so far, BiLSTM.
  published: ClassVar[Mapping[str, Any]] = {
    'value_encoding': 'bins',
    'pooling': 'tokens',
    'sequence': 'lstm',
    'input_dropout': 0.0,
    'window_dropout': 0.0,
  }

  @classmethod
  def make(cls, name: str, spec: format_kinds.Events, setting: Setting) -> Self:
    options = setting.options
    size = setting.pick(*_NAMED.get(name, (_PAPER, _SMALL)))
    fused = options.sequence == 'hierarchical'
    parts = HIERARCHY_WINDOWS if fused else None
    windows = windows_of(name, options, setting.observation_hours, parts)
    config = EventsConfig(
      categories=tuple(len(item.categories) for item in spec.items),
      windows=windows.count,
      width=size.width,
      dropout=size.dropout,
      value_encoding=options.value_encoding,
      pooling=options.pooling,
      accumulation=options.accumulation,
      sequence=options.sequence,
      hierarchy=_hierarchy(name, windows.count, size.width, options) if fused else None,
      input_dropout=options.input_dropout,
      window_dropout=options.window_dropout,
      decoder=size.decoder,
      decoder_dropout=size.decoder_dropout,
    )
    return cls(name, spec, config, windows)

  @property
  def columns(self) -> EventColumns:
    return EventColumns(self.config.categories)

  def column_names(self) -> list[str]:
    items = self.spec.items
    names = [
      f'{item.itemid}/{key}' for item in items if not item.categories for key in STATISTICS
    ]
    for item in items:
      for category in item.categories:
        names += [f'{item.itemid}={category}/{key}' for key in ('last', 'count')]
      if item.categories:
        names.append(f'{item.itemid}/hours_since_last')
    return names

  def column_variables(self) -> list[ColumnVariable]:
    items = self.spec.items
    numeric = [ColumnVariable.of(item) for item in items if not item.categories]
    found = [each for each in numeric for _ in STATISTICS]
    for item in items:
      for category in item.categories:
        found += [ColumnVariable.of(item, category)] * 2
      if item.categories:
        found.append(ColumnVariable.of(item))
    return found

  def encoder(self, axis_name: str | None, dtype: DTypeLike) -> SparseTimeSeriesEncoder:
    return SparseTimeSeriesEncoder(self.config, axis_name, dtype)

  def decoder(self, part: str | None) -> DecoderSize:
    return DecoderSize(self.config.decoder, self.config.decoder_dropout)

  def fit(self, seen: Mapping[str, np.ndarray]) -> Fitted:
    assert self.windows is not None
    fields = {key: seen[key] for key in ('item', 'value', 'category')}
    return {
      **fit_events(items=self.spec.items, **fields),
      'time_cuts': self.windows.fitted(seen['time']),
    }

  def tokens(self, fitted: Mapping[str, Any]) -> Sequence[str]:
    return token_names(fitted, self.config.hierarchy)

  def attributed(self, arrays: Arrays, attributions: Arrays) -> Iterator[ItemAttribution]:
    mask, token = arrays['mask'], attributions['token']
    category = np.where(mask, arrays['category'], -1)
    for index in np.unique(arrays['item'][mask]):
      item = self.spec.items[index]
      here = mask & (arrays['item'] == index)
      for level in np.unique(category[here]):
        each = here & (category == level)
        labelled = 0 <= level < len(item.categories)
        name = f'{item.name}: {item.categories[level]}' if labelled else item.name
        value = None if item.categories else mean(arrays['value'][each])
        yield ItemAttribution(
          self.name, name, item.unit, value, int(each.sum()), float(token[each].sum())
        )

  def shown(self, arrays: Arrays, attributions: Arrays) -> Shown:
    items, token = self.spec.items, attributions['token']
    courses = []
    for index in np.unique(arrays['item'][arrays['mask']]):
      here = arrays['mask'] & (arrays['item'] == index) & np.isfinite(arrays['value'])
      if not items[index].categories and here.any():
        values = (arrays['time'][here], arrays['value'][here], token[here])
        courses.append(Course(items[index], *values))
    events = []
    for place in np.flatnonzero(arrays['mask']):
      item = items[arrays['item'][place]]
      level, value = int(arrays['category'][place]), float(arrays['value'][place])
      category = ''
      if item.categories:
        known = 0 <= level < len(item.categories)
        category = item.categories[level] if known else 'unknown'
      number = None if item.categories or not np.isfinite(value) else value
      hours = float(arrays['time'][place])
      events.append(Event(hours, item, number, category, float(token[place])))
    return Shown(courses=courses, events=events)

  @classmethod
  def ablations(cls, options: ModelOptions, specs: Mapping[str, Any]) -> Sequence[Ablation]:
    needed = options.pooling == 'statistics'
    # Of short windows: those that the config gives may be few.
    windows = {name: cuts for name, cuts in options.windows.items() if name not in specs}
    return (
      Ablation(
        'published_events',
        'Events',
        'Is the mean of binned tokens, as in the paper, as good as item statistics?',
        {f'model.{name}': value for name, value in cls.published.items()},
      ),
      Ablation(
        'hierarchical_events',
        'Events',
        'Does hierarchical fusion of short windows read events better?',
        {'model.sequence': 'hierarchical', 'model.windows': windows},
      ),
      Ablation(
        'without_accumulation',
        'Time',
        'Does it help that a window sees earlier events?',
        {'model.accumulation': 'none'},
        "model.pooling='statistics' needs accumulation" if needed else '',
      ),
    )

  def charted_every(self, arrays: Arrays, minutes: Level) -> Arrays:
    mask, item = arrays['mask'], arrays['item'].astype(np.int64)
    wide = np.broadcast_to(self.of_entries(minutes, arrays), mask.shape)
    thinned = mask & (wide > 0)
    row = np.broadcast_to(
      np.arange(mask[..., 0].size).reshape(*mask.shape[:2], 1), mask.shape
    )
    span = np.floor(arrays['time'][thinned] * 60.0 / wide[thinned]).astype(np.int64)
    keys = np.stack([row[thinned], item[thinned], span], axis=1)
    # Entries are in order of time, so the last one of a span comes first from behind.
    _, last = np.unique(keys[::-1], axis=0, return_index=True)
    keep = ~thinned
    keep[tuple(axis[len(keys) - 1 - last] for axis in np.nonzero(thinned))] = True
    return format_base.kept(arrays, keep)

  def relabelled(self, arrays: Arrays, order: np.ndarray) -> Arrays:
    item = np.take_along_axis(order, arrays['item'].astype(np.int64), axis=2)
    number = arrays['mask'] & (arrays['category'] < 0)
    item = np.where(number, item, arrays['item']).astype(arrays['item'].dtype)
    return self._within_limits({**arrays, 'item': item})

  def with_numbers(
    self, arrays: Arrays, change: Callable[[np.ndarray, np.ndarray], np.ndarray]
  ) -> Arrays:
    number = arrays['mask'] & (arrays['category'] < 0)
    value = change(arrays['value'], arrays['item']).astype(np.float32)
    return self._within_limits(
      {**arrays, 'value': np.where(number, value, arrays['value'])}
    )

  def _within_limits(self, arrays: Arrays) -> Arrays:
    number = arrays['category'] < 0
    inside = self.within_limits(arrays['value'], arrays['item'])
    return format_base.kept(arrays, inside | ~number)

  def spread(self, fitted: Mapping[str, Any]) -> np.ndarray:
    # Between the percentiles 5 and 95 of a normal distribution lie 3.29 deviations.
    knots = np.asarray(fitted['knots'], np.float64)
    return (knots[:, len(PERCENTILES)] - knots[:, 1]) / 3.29

  def observations(self, arrays: Arrays) -> tuple[Observations, Observations]:
    mask, category = arrays['mask'], arrays['category']
    return (
      _observations(arrays, mask & (category < 0), 'value'),
      _observations(arrays, mask & (category >= 0), 'category'),
    )


def _hierarchy(
  name: str, windows: int, width: int, options: ModelOptions
) -> HierarchyConfig:
  return hierarchy(
    'event_segment_lengths',
    options.event_segment_lengths,
    of=f'windows of {name}',
    steps=windows,
    features=width,
    segments=max(windows // 2, 1),
    levels=options.grid_levels,
    micro=MicroSize(width // 4, (width // 4, width // 2), width // 2),
    mlp=width,
  )


def _observations(events: Arrays, chosen: np.ndarray, value: str) -> Observations:
  sample, _ = np.nonzero(chosen)
  return Observations(
    sample,
    events['item'][chosen].astype(np.int64),
    events[value][chosen].astype(np.float64),
    events['time'][chosen].astype(np.float64),
  )


def fit_events(
  item: np.ndarray, value: np.ndarray, category: np.ndarray, items: Sequence[Item]
) -> dict[str, Any]:
  """Knots, mean encodings and the seen items and categories of an event modality.

  Args:
    item: index into `items`, (n,).
    value: numeric value, (n,); ignored where `category` >= 0.
    category: index into the item's categories, -1 for a number, (n,).
    items: the modality's items.

  Returns:
    `knots` (items, 12), `encoding_mean` (items, 11), `item_seen` (items,), `category_seen`
    (items, largest number of categories).
  """
  most = max((len(one.categories) for one in items), default=0)
  knots = np.zeros((len(items), NUM_BINS + 1))
  encoding_mean = np.zeros((len(items), NUM_BINS))
  category_seen = np.zeros((len(items), most), bool)
  categorical = category >= 0
  category_seen[item[categorical], category[categorical]] = True
  order = np.argsort(item[~categorical], kind='stable')
  numbers = value[~categorical][order].astype(np.float64)
  ends = np.cumsum(np.bincount(item[~categorical], minlength=len(items)))
  for index, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
    if start == end:
      continue
    values = numbers[start:end]
    # Rounded first: the model compares float32 values with float32 knots.
    inner = np.unique(np.percentile(values, PERCENTILES).astype(np.float32))
    knots[index] = values.max()
    knots[index, 0] = values.min()
    knots[index, 1 : 1 + len(inner)] = inner
    encoding_mean[index] = piecewise_linear(values, knots[index]).mean(axis=0)
  return {
    'knots': knots,
    'encoding_mean': encoding_mean,
    'item_seen': np.bincount(item, minlength=len(items)) > 0,
    'category_seen': category_seen,
  }
