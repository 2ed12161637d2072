"""Static variables: their fitted statistics, encoder, and attributions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool

from data_pipeline.format import modalities as format_kinds
from medm2t_jax.modalities import base
from medm2t_jax.modalities.base import Arrays, Fitted, Setting
from medm2t_jax.modalities.columns import center_and_scale
from medm2t_jax.modalities.shown import ColumnVariable, ItemAttribution, columns_of
from medm2t_jax.models.modality import DecoderSize
from medm2t_jax.models.static_encoder import StaticConfig, StaticEncoder
from medm2t_jax.models.trunk.columns import StaticColumns


@dataclasses.dataclass(frozen=True)
class _Size:
  """Widths (paper, Table B1).

  Attributes:
    mlp: of both layers of the encoder.
    decoder: hidden width of its decoder.
  """

  mlp: int
  decoder: int


_PAPER = {'cvd': _Size(128, 64), 'mortality': _Size(128, 64), 'los': _Size(512, 256)}
_SMALL = _Size(64, 32)
_DROPOUT, _DECODER_DROPOUT = 0.1, 0.5


@dataclasses.dataclass(frozen=True)
class Static(base.Modality):
  """Static variables of a model."""

  spec: format_kinds.Static
  config: StaticConfig

  of = format_kinds.Static
  kind = of.kind
  described = 'static variables'
  gates: ClassVar[Mapping[str, str]] = {'numeric': 'numeric', 'categorical': 'categorical'}

  @classmethod
  def make(cls, name: str, spec: format_kinds.Static, setting: Setting) -> Self:
    size = setting.pick(_PAPER, _SMALL)
    config = StaticConfig(
      numeric=len(spec.numeric),
      levels=tuple(len(column.categories) for column in spec.categorical),
      mlp=(size.mlp, size.mlp),
      dropout=_DROPOUT,
      decoder=size.decoder,
      decoder_dropout=_DECODER_DROPOUT,
    )
    return cls(name, spec, config)

  @property
  def columns(self) -> StaticColumns:
    return StaticColumns(self.config.numeric, self.config.levels)

  def column_names(self) -> list[str]:
    names = [item.itemid for item in self.spec.numeric]
    for item in self.spec.categorical:
      names += [f'{item.itemid}={category}' for category in item.categories]
    return names

  def column_variables(self) -> list[ColumnVariable]:
    found = [ColumnVariable.of(item) for item in self.spec.numeric]
    for item in self.spec.categorical:
      found += [
        ColumnVariable(f'{item.name}: {category}', item.name)
        for category in item.categories
      ]
    return found

  def mean_columns(self) -> dict[str, str]:
    return {item.itemid: item.itemid for item in self.spec.numeric}

  def encoder(self, axis_name: str | None, dtype: DTypeLike) -> StaticEncoder:
    return StaticEncoder(self.config, axis_name, dtype)

  def decoder(self, part: str | None) -> DecoderSize:
    return DecoderSize(self.config.decoder, self.config.decoder_dropout)

  def present(self, arrays: Mapping[str, Any], rows: int) -> Bool[Array, ' b']:
    known = jnp.any(arrays['numeric_mask'], axis=1)
    return known | jnp.any(arrays['categorical'] >= 0, axis=1)

  def masked(
    self, arrays: Mapping[str, Any], change: Callable[[Any], Any]
  ) -> dict[str, Any]:
    known, dtype = arrays['categorical'] >= 0, arrays['categorical'].dtype
    # -1 where nothing is left; works with NumPy and JAX.
    level = (arrays['categorical'] + 1) * change(known).astype(dtype) - 1
    return {
      **arrays,
      'numeric_mask': change(arrays['numeric_mask']),
      'categorical': level.astype(dtype),
    }

  def fit(self, seen: Mapping[str, np.ndarray]) -> Fitted:
    center, scale = center_and_scale(seen['numeric'], seen['numeric_mask'])
    columns, categorical = self.spec.categorical, seen['categorical']
    most = max((len(column.categories) for column in columns), default=0)
    level_seen = np.zeros((len(columns), most), bool)
    for index in range(len(columns)):
      level_seen[index, np.unique(categorical[categorical[:, index] >= 0, index])] = True
    return {'center': center, 'scale': scale, 'level_seen': level_seen}

  def attributed(self, arrays: Arrays, attributions: Arrays) -> Iterator[ItemAttribution]:
    row = lambda array: array[np.newaxis]
    yield from columns_of(
      self.name,
      self.spec.numeric,
      row(arrays['numeric']),
      row(arrays['numeric_mask']),
      row(attributions['numeric']),
    )
    for column, item in enumerate(self.spec.categorical):
      level = int(arrays['categorical'][column])
      if level >= 0:
        name = f'{item.name}: {item.categories[level]}'
        attribution = float(attributions['categorical'][column])
        yield ItemAttribution(self.name, name, '', None, 1, attribution)
