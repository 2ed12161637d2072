"""Notes: their fitted statistics, encoder, and attributions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

import numpy as np
from jax.typing import DTypeLike

from data_pipeline.format import modalities as format_kinds
from data_pipeline.format.items import Item
from medm2t_jax.modalities import base
from medm2t_jax.modalities.base import Arrays, Fitted, Setting
from medm2t_jax.modalities.columns import center_and_scale
from medm2t_jax.modalities.shown import ColumnVariable, Event, ItemAttribution, Shown
from medm2t_jax.modalities.windows import windows_of
from medm2t_jax.models.events.notes import NotesConfig, NotesEncoder
from medm2t_jax.models.modality import DecoderSize
from medm2t_jax.models.trunk.columns import NoteColumns


@dataclasses.dataclass(frozen=True)
class _Size:
  """Widths of the encoder and its decoder. The paper has no notes."""

  width: int
  decoder: int


_PAPER: dict[str, _Size] = dict.fromkeys(('cvd', 'mortality', 'los'), _Size(256, 128))
_SMALL = _Size(64, 32)
_DROPOUT = 0.1


@dataclasses.dataclass(frozen=True)
class Notes(base.Modality):
  """Notes of a model, as vectors."""

  spec: format_kinds.Notes
  config: NotesConfig

  of = format_kinds.Notes
  kind = of.kind
  described = 'notes'
  gates: ClassVar[Mapping[str, str]] = {'note': 'mask'}
  thinned_by_damage = True
  in_windows = True

  @classmethod
  def make(cls, name: str, spec: format_kinds.Notes, setting: Setting) -> Self:
    size = setting.pick(_PAPER, _SMALL)
    windows = windows_of(name, setting.options, setting.observation_hours)
    config = NotesConfig(
      vector=spec.width,
      windows=windows.count,
      width=size.width,
      dropout=_DROPOUT,
      decoder=size.decoder,
      decoder_dropout=_DROPOUT,
    )
    return cls(name, spec, config, windows)

  @property
  def columns(self) -> NoteColumns:
    return NoteColumns(self.spec.width)

  def column_names(self) -> list[str]:
    means = [f'{place}/mean' for place in range(self.spec.width)]
    return [*means, 'notes', 'hours_since_last']

  def column_variables(self) -> list[ColumnVariable]:
    return [ColumnVariable('notes', 'notes') for _ in self.column_names()]

  def encoder(self, axis_name: str | None, dtype: DTypeLike) -> NotesEncoder:
    return NotesEncoder(self.config, axis_name, dtype)

  def decoder(self, part: str | None) -> DecoderSize:
    return DecoderSize(self.config.decoder, self.config.decoder_dropout)

  def fit(self, seen: Mapping[str, np.ndarray]) -> Fitted:
    assert self.windows is not None
    vector = seen['vector']
    center, scale = center_and_scale(vector, np.ones(vector.shape, bool))
    return {
      'center': center,
      'scale': scale,
      'time_cuts': self.windows.fitted(seen['time']),
    }

  def attributed(self, arrays: Arrays, attributions: Arrays) -> Iterator[ItemAttribution]:
    count = int(arrays['mask'].sum())
    if count:
      total = float(attributions['note'].sum(dtype=np.float64))
      yield ItemAttribution(self.name, 'notes', '', None, count, total)

  def shown(self, arrays: Arrays, attributions: Arrays) -> Shown:
    note = Item('note', 'note')
    return Shown(
      events=[
        Event(float(arrays['time'][n]), note, None, '', float(attributions['note'][n]))
        for n in np.flatnonzero(arrays['mask'])
      ]
    )
