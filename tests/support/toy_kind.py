"""A toy kind of modality in two classes: visits a day, of the last days."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pandas as pd

from data_pipeline.format import modalities as format_kinds
from data_pipeline.format.modalities import base as format_base
from data_pipeline.format.modalities.base import Cost, Feature, Table
from data_pipeline.format.schema import Item
from medm2t_jax.modalities import base, draws
from medm2t_jax.modalities.base import Setting
from medm2t_jax.modalities.columns import center_and_scale
from medm2t_jax.modalities.shown import columns_of
from medm2t_jax.models.encoded import summary_as_token
from medm2t_jax.models.gates import gated
from medm2t_jax.models.layers.mlp import Mlp
from medm2t_jax.models.modality import DecoderSize
from medm2t_jax.models.trunk.column_statistics import Columns


@dataclasses.dataclass(frozen=True)
class Visits(format_kinds.Modality):
  """Staged as `visits_{name}.parquet`: `sample_id`, `day` INTEGER, `number` INTEGER."""

  days: int

  kind = 'visits'
  layout = 'fixed'
  prefix = 'visits/{name}'
  table = Table('visits_{name}', order='day')
  counted = 'known'
  noun = 'days'

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> Self:
    return cls(fields['days'])

  @property
  def cost(self) -> Cost:
    return Cost('days', row_bytes=8, rows_per_second=500_000)

  @property
  def variables(self) -> tuple[Item, ...]:
    ago = (f'{self.days - day}' for day in range(self.days))
    return tuple(Item(f'day-{n}', f'visits {n} days ago') for n in ago)

  @property
  def arrays(self) -> dict[str, Feature]:
    shape = (self.days,)
    return {
      'number': Feature(np.float32, shape),
      'known': Feature(np.uint8, shape, batch='flag'),
    }

  def examples(self, rows) -> Iterator[dict[str, np.ndarray]]:
    day, number = rows.column('day'), rows.column('number')
    rows.check('day', (day >= 0) & (day < self.days))
    for of_sample in rows.slices():
      made = {key: np.zeros(self.days, each.dtype) for key, each in self.arrays.items()}
      made['number'][day[of_sample]] = number[of_sample]
      made['known'][day[of_sample]] = 1
      yield made

  def aligned(self, data, places: Sequence[int], arrays):
    chosen = np.array(places, np.int64)
    return {
      key: format_base.chosen(array, chosen, np.zeros((), array.dtype))
      for key, array in arrays.items()
    }

  def known_at(self, arrays, hours: float):
    later = min(self.days, math.ceil(-hours / 24))
    return {
      key: np.concatenate([np.zeros_like(array[:later]), array[: self.days - later]])
      for key, array in arrays.items()
    }

  def last_values(self, arrays) -> np.ndarray:
    return np.where(arrays['known'] > 0, arrays['number'], np.nan)

  def found(self, arrays, rows) -> np.ndarray:
    return arrays['known']

  def invented(self, padding, generator: np.random.Generator):
    known = np.ones(padding['known'].shape, bool)
    return {'number': generator.poisson(2, known.shape).astype(np.float32), 'known': known}

  @property
  def extent_hours(self) -> float:
    return 24.0 * self.days


@dataclasses.dataclass(frozen=True)
class _Columns:
  count: int
  unread: ClassVar[tuple[str, ...]] = ()

  def __call__(self, arrays, rows) -> Columns:
    known = jnp.asarray(arrays['known'])
    return Columns(
      arrays['number'] * known.astype(jnp.float32), known, arrays.get('number_gate')
    )


class _Encoder(nn.Module):
  width: int
  axis_name: str | None
  dtype: Any

  @nn.compact
  def __call__(self, arrays, valid, *, train, attend_over='tokens'):
    shape = arrays['number'].shape[1:]
    center = self.variable('fitted', 'center', jnp.zeros, shape).value
    scale = self.variable('fitted', 'scale', jnp.ones, shape).value
    scaled = (arrays['number'] - center[jnp.newaxis]) / scale[jnp.newaxis]
    scaled = gated(arrays, 'number', jnp.where(arrays['known'], scaled, 0.0))
    x = jnp.concatenate([scaled, arrays['known'].astype(scaled.dtype)], axis=1)
    present = jnp.any(arrays['known'], axis=1)
    mlp = Mlp((self.width,), 0.1, self.axis_name, self.dtype, name='mlp')
    return summary_as_token(mlp(x, valid & present, train=train), present)


@dataclasses.dataclass(frozen=True)
class Size:
  width: int


@dataclasses.dataclass(frozen=True)
class VisitsOfModel(base.Modality):
  of = Visits
  kind = Visits.kind
  gates: ClassVar[Mapping[str, str]] = {'number': 'number'}
  thinned_by_damage = True
  described = 'visits'

  @classmethod
  def make(cls, name: str, spec: Visits, setting: Setting) -> Self:
    return cls(name, spec, Size(setting.pick({}, 16)))

  @property
  def columns(self) -> _Columns:
    return _Columns(self.spec.days)

  def column_names(self) -> list[str]:
    return [item.itemid for item in self.spec.variables]

  def mean_columns(self) -> dict[str, str]:
    return {name: name for name in self.column_names()}

  def encoder(self, axis_name, dtype) -> _Encoder:
    return _Encoder(self.config.width, axis_name, dtype)

  def decoder(self, part: str | None) -> DecoderSize:
    return DecoderSize(8, 0.1)

  def present(self, arrays, rows: int):
    return jnp.any(arrays['known'], axis=1)

  def masked(self, arrays, change: Callable[[Any], Any]) -> dict[str, Any]:
    return {**arrays, 'known': change(arrays['known'])}

  def fit(self, seen):
    center, scale = center_and_scale(seen['number'], seen['known'])
    return {'center': center, 'scale': scale}

  def attributed(self, arrays, attributions):
    row = lambda array: array[np.newaxis]
    number, known = row(arrays['number']), row(arrays['known'])
    of = row(attributions['number'])
    return columns_of(self.name, self.spec.variables, number, known, of)

  @property
  def timed(self) -> bool:
    return True

  def known_since(self, arrays, hours: float):
    keep = np.arange(self.spec.days) >= self.spec.days - hours // 24
    return self._kept(arrays, keep[np.newaxis, np.newaxis])

  def earlier(self, arrays, hours: float):
    by = min(round(hours / 24), self.spec.days)
    return {
      key: np.concatenate([array[..., by:], np.zeros_like(array[..., :by])], axis=-1)
      for key, array in arrays.items()
    }

  def thinned(self, arrays, rows: np.ndarray, share: float, seed: int):
    drawn = draws.uniform(rows, seed, f'thin {self.name}', arrays['known'].shape[2:])
    return self._kept(arrays, drawn >= share)

  def _kept(self, arrays, keep: np.ndarray):
    number = np.where(keep, arrays['number'], np.float32(0))
    return {'number': number, 'known': arrays['known'] & keep}


def write_visits(raw: Path, name: str, days: int) -> None:
  """Random visits of most samples of `raw`; many of them are what kills."""
  samples = pd.read_parquet(raw / 'samples.parquet')
  rng = np.random.default_rng(3)
  rows = []
  pairs = zip(samples['sample_id'], samples['label'], strict=True)
  for place, (sample, label) in enumerate(pairs):
    if place % 7:
      rate = 6 if label else 1
      rows += [
        (sample, day, rng.poisson(rate)) for day in range(days) if rng.random() < 0.8
      ]
  table = pd.DataFrame(rows, columns=['sample_id', 'day', 'number'])
  table.sample(frac=1, random_state=0).to_parquet(raw / f'visits_{name}.parquet')
