"""Grids: their fitted statistics, encoder, and attributions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool

from data_pipeline.format import modalities as format_kinds
from medm2t_jax.modalities import base, draws
from medm2t_jax.modalities.ablation import Ablation
from medm2t_jax.modalities.base import Arrays, Fitted, Level, Observations, Setting
from medm2t_jax.modalities.columns import center_and_scale
from medm2t_jax.modalities.hierarchy import MicroSize, hierarchy, scaled
from medm2t_jax.modalities.shown import (
  ColumnVariable,
  Course,
  ItemAttribution,
  Shown,
  columns_of,
  short,
)
from medm2t_jax.models.hierarchical_fusion import GridConfig, GridEncoder, MicroConfig
from medm2t_jax.models.modality import DecoderSize, Units
from medm2t_jax.models.options import ModelOptions
from medm2t_jax.models.trunk.column_statistics import STATISTICS
from medm2t_jax.models.trunk.columns import GridColumns

_SEGMENTS = 'segments'


# Segment lengths of ablations, in steps: each alone, then two and three together.
HTAF_WINDOWS = (
  *((length,) for length in (3, 6, 12, 24, 48)),
  *((3, 12), (6, 24), (12, 48)),
  *((3, 6, 12), (6, 12, 24), (12, 24, 48), (3, 12, 48)),
)


@dataclasses.dataclass(frozen=True)
class _Size:
  """Widths (paper, Table B1).

  Attributes:
    micro: of the encoders of segments.
    segment_decoder: hidden width of their decoders, per `MICRO_STEPS`.
    mlp: width of the summary.
    decoder: hidden width of its decoder.
  """

  micro: MicroSize
  segment_decoder: int
  mlp: int
  decoder: int


_PAPER: dict[str, _Size] = dict.fromkeys(
  ('cvd', 'mortality', 'los'), _Size(MicroSize(8, (16, 32), 128), 64, 256, 128)
)
_SMALL = _Size(MicroSize(8, (8, 16), 32), 16, 64, 32)


@dataclasses.dataclass(frozen=True)
class Grid(base.Modality):
  """Regularly sampled signals of a model. Its parts are micro encoders, one per length."""

  spec: format_kinds.Grid
  config: GridConfig

  of = format_kinds.Grid
  kind = of.kind
  described = 'grid of signals'
  gates: ClassVar[Mapping[str, str]] = {'value': 'value'}
  windowed = True
  thinned_by_damage = True

  @classmethod
  def make(cls, name: str, spec: format_kinds.Grid, setting: Setting) -> Self:
    options, size = setting.options, setting.pick(_PAPER, _SMALL)
    sizes = hierarchy(
      'segment_lengths',
      options.segment_lengths,
      of=f'steps of {name}',
      steps=spec.steps,
      features=len(spec.items),
      segments=options.segments,
      levels=options.grid_levels,
      micro=size.micro,
      mlp=size.mlp,
    )
    config = GridConfig(
      **vars(sizes),
      segment_decoders=tuple(
        size.segment_decoder * scaled(length) for length in options.segment_lengths
      ),
      decoder=size.decoder,
      decoder_dropout=0.25,
    )
    return cls(name, spec, config)

  @property
  def columns(self) -> GridColumns:
    return GridColumns(len(self.spec.items), self.spec.step_hours)

  def column_names(self) -> list[str]:
    each = (*STATISTICS, 'spread')
    return [f'{item.itemid}/{key}' for item in self.spec.items for key in each]

  def column_variables(self) -> list[ColumnVariable]:
    each = (*STATISTICS, 'spread')
    return [ColumnVariable.of(item) for item in self.spec.items for _ in each]

  def encoder(self, axis_name: str | None, dtype: DTypeLike) -> GridEncoder:
    return GridEncoder(self.config, axis_name, dtype)

  def decoder(self, part: str | None) -> DecoderSize:
    if part is None:
      return DecoderSize(self.config.decoder, self.config.decoder_dropout)
    hidden = self.config.segment_decoders[self.parts.index(part)]
    return DecoderSize(hidden, self.config.decoder_dropout)

  @property
  def parts(self) -> tuple[str, ...]:
    return tuple(_segments_of(micro.length) for micro in self.config.micro)

  def family(self, part: str) -> str:
    return _SEGMENTS

  def units(
    self,
    encoder: Any,
    part: str,
    arrays: Mapping[str, Array],
    valid: Bool[Array, ' b'],
    *,
    train: bool,
  ) -> Units:
    length = self._micro_of(part).length
    vectors = encoder.segments(arrays, valid, length=length, train=train)
    rows, segments, width = vectors.shape
    owner = jnp.repeat(jnp.arange(rows, dtype=jnp.int32), segments)
    present = self.present(arrays, rows)[owner]
    return Units(vectors.reshape(rows * segments, width), owner, present)

  def present(self, arrays: Mapping[str, Any], rows: int) -> Bool[Array, ' b']:
    return jnp.any(arrays['observed'], axis=(1, 2))

  def masked(
    self, arrays: Mapping[str, Any], change: Callable[[Any], Any]
  ) -> dict[str, Any]:
    return {**arrays, 'observed': change(arrays['observed'])}

  def fit(self, seen: Mapping[str, np.ndarray]) -> Fitted:
    flat = lambda array: array.reshape(-1, len(self.spec.items))
    center, scale = center_and_scale(
      flat(seen['value']), flat(seen['observed']).astype(bool)
    )
    return {'center': center, 'scale': scale}

  def attributed(self, arrays: Arrays, attributions: Arrays) -> Iterator[ItemAttribution]:
    value, seen = arrays['value'], arrays['observed']
    return columns_of(self.name, self.spec.items, value, seen, attributions['value'])

  def shown(self, arrays: Arrays, attributions: Arrays) -> Shown:
    steps = self.spec.steps
    hours = (np.arange(steps) + 0.5 - steps) * self.spec.step_hours
    signals = []
    for column, item in enumerate(self.spec.items):
      seen = arrays['observed'][:, column]
      if seen.any():
        of_column = (arrays['value'][seen, column], attributions['value'][seen, column])
        signals.append(Course(item, hours[seen], *of_column))
    return Shown(signals=signals)

  def tokens(self, fitted: Mapping[str, Any]) -> Sequence[str]:
    config, hours = self.config, self.spec.step_hours
    # Segments of shorter scales lie inside.
    longest = max(micro.length for micro in config.micro)
    starts = config.starts(longest) - config.steps
    return [
      f'{short(start * hours)} to {short((start + longest) * hours)} h' for start in starts
    ]

  def observations(self, arrays: Arrays) -> tuple[Observations, None]:
    sample, step, signal = np.nonzero(arrays['observed'])
    steps = arrays['observed'].shape[1]
    value = arrays['value'][sample, step, signal].astype(np.float64)
    hours = (step + 0.5 - steps) * self.spec.step_hours
    return Observations(sample, signal, value, hours), None

  @property
  def timed(self) -> bool:
    return True

  def known_since(self, arrays: Arrays, hours: float) -> Arrays:
    """Keeps the last whole steps, because a grid ends at the prediction time."""
    steps = self.spec.steps
    # Rounded: 3 h of 0.1 h are 30 steps, not 29.
    known = min(steps, np.floor(round(hours / self.spec.step_hours, 6)))
    keep = np.arange(steps) >= steps - known
    return _kept_cells(arrays, keep[None, None, :, None])

  def earlier(self, arrays: Arrays, hours: float) -> Arrays:
    """Cells move by whole steps; those that leave the grid are lost."""
    steps = min(round(hours / self.spec.step_hours), self.spec.steps)
    return {
      key: np.concatenate([array[:, :, steps:], np.zeros_like(array[:, :, :steps])], axis=2)
      for key, array in arrays.items()
    }

  def thinned(self, arrays: Arrays, rows: np.ndarray, share: float, seed: int) -> Arrays:
    drawn = draws.uniform(rows, seed, f'thin {self.name}', arrays['value'].shape[2:])
    return _kept_cells(arrays, drawn >= share)

  def charted_every(self, arrays: Arrays, minutes: Level) -> Arrays:
    """Of whole steps; a cell as long as the interval stays."""
    observed = arrays['observed']
    minutes = np.broadcast_to(np.asarray(minutes, np.float64), observed.shape[:2])
    keep = np.ones_like(observed)
    for each in np.unique(minutes):
      steps = round(each / 60 / self.spec.step_hours)
      if steps > 1:
        rows = minutes == each
        keep[rows] = _last_of(observed[rows], steps)
    return _kept_cells(arrays, keep)

  def charted_late(self, arrays: Arrays, hours: Level) -> Arrays:
    """A step is known if all of it is so long ago."""
    hours = np.broadcast_to(np.asarray(hours, np.float64), arrays['observed'].shape[:2])
    lost = np.ceil(np.round(hours / self.spec.step_hours, 6))
    steps = self.spec.steps
    keep = np.arange(steps) < steps - lost[..., np.newaxis]
    return _kept_cells(arrays, keep[..., np.newaxis])

  def relabelled(self, arrays: Arrays, order: np.ndarray) -> Arrays:
    # A variable's numbers come from the one whose new index is its own.
    source = np.argsort(order, axis=2)[:, :, np.newaxis]
    moved = {key: np.take_along_axis(arrays[key], source, axis=3) for key in arrays}
    return self._within_limits(moved)

  def with_numbers(
    self, arrays: Arrays, change: Callable[[np.ndarray, np.ndarray], np.ndarray]
  ) -> Arrays:
    value = change(arrays['value'], self._items(arrays)).astype(np.float32)
    return self._within_limits({**arrays, 'value': value})

  def _within_limits(self, arrays: Arrays) -> Arrays:
    return _kept_cells(arrays, self.within_limits(arrays['value'], self._items(arrays)))

  def _items(self, arrays: Arrays) -> np.ndarray:
    shape = arrays['value'].shape
    return np.broadcast_to(np.arange(shape[-1]), shape)

  def spread(self, fitted: Mapping[str, Any]) -> np.ndarray:
    # The scale is the interquartile range, 1.349 deviations of a normal distribution.
    return np.asarray(fitted['scale'], np.float64) / 1.349

  def definition(self, part: str | None) -> dict[str, Any]:
    if part is None:
      return super().definition(part)
    levels = 'both' if self.config.levels == 'micro' else self.config.levels
    place = self.parts.index(part)
    read = dataclasses.replace(
      self.config,
      micro=self.config.micro[place : place + 1],
      segment_decoders=self.config.segment_decoders[place : place + 1],
      plan=(),
      levels=levels,
    )
    return {'config': dataclasses.asdict(read)}

  @classmethod
  def ablations(cls, options: ModelOptions, specs: Mapping[str, Any]) -> Sequence[Ablation]:
    group = 'Dense signals'
    steps = min((spec.steps for spec in specs.values()), default=0)

    def htaf(lengths: tuple[int, ...]) -> Ablation:
      scales = ' and '.join(map(str, lengths))
      return Ablation(
        f'htaf_windows_{"_".join(map(str, lengths))}',
        group,
        f'How good are segments of {scales} steps?',
        {'model.segment_lengths': lengths},
        f'the grid has only {steps} steps' if specs and max(lengths) > steps else '',
      )

    return (
      Ablation(
        'without_micro_level',
        group,
        "Is the order inside a segment worth more than the segment's mean?",
        {'model.grid_levels': 'macro'},
      ),
      Ablation(
        'without_macro_level',
        group,
        'Is the order of segments worth more than their mean?',
        {'model.grid_levels': 'micro'},
      ),
      *map(htaf, HTAF_WINDOWS),
    )

  def _micro_of(self, part: str) -> MicroConfig:
    return self.config.micro[self.parts.index(part)]


def _segments_of(length: int) -> str:
  """Name of the micro encoder of a segment length."""
  return f'{_SEGMENTS}_{length}'


def _last_of(observed: np.ndarray, steps: int) -> np.ndarray:
  """The last observed cell (n g v) of each signal in every so many steps, from the end."""
  count, length, signals = observed.shape
  ahead = -length % steps
  padded = np.pad(observed, ((0, 0), (ahead, 0), (0, 0)))
  spans = padded.reshape(count, -1, steps, signals)
  # How many are observed from here to the end of the span: the last one has 1.
  following = np.cumsum(spans[:, :, ::-1], axis=2)[:, :, ::-1]
  last = (spans & (following == 1)).reshape(count, -1, signals)
  return last[:, ahead:]


def _kept_cells(grid: Arrays, keep: np.ndarray) -> Arrays:
  """The observed cells for which `keep` (d b g v) is True."""
  observed = grid['observed'] & keep
  return {'value': np.where(observed, grid['value'], np.float32(0)), 'observed': observed}
