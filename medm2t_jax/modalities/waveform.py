"""ECG recordings: their fitted statistics, encoder, and attributions."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool

from data_pipeline.ecg import noise
from data_pipeline.format import modalities as format_kinds
from data_pipeline.format.items import Item
from data_pipeline.format.modalities.waveform import (
  ECG_LEADS,
  ECG_MEASUREMENTS,
  ECG_SAMPLES,
  ECG_SAMPLING_RATE,
)
from medm2t_jax.modalities import base
from medm2t_jax.modalities.base import Arrays, Damage, Fitted, Setting
from medm2t_jax.modalities.columns import center_and_scale
from medm2t_jax.modalities.ecg_damage import arms_exchanged, band_limited, leads_lost
from medm2t_jax.modalities.fusion import RESNET_DROPOUT, fusion_config
from medm2t_jax.modalities.shown import (
  ColumnVariable,
  ItemAttribution,
  Looks,
  Recording,
  Shown,
  columns_of,
)
from medm2t_jax.modalities.windows import token_names, windows_of
from medm2t_jax.models.ecg import VIEWS, EcgConfig, EcgEncoder
from medm2t_jax.models.modality import DecoderSize, Units
from medm2t_jax.models.trunk.columns import OF_MEASUREMENTS, EcgColumns

ECG_CROP_SAMPLES = 640  # 5.12 s at 125 Hz
LEADS_LOST = (1.0, 3.0, 6.0, 11.0)
BANDWIDTHS = (62.5, 31.0, 15.0)
SNR = (24.0, 12.0, 6.0, 0.0, -6.0)
_FUSION = 'fusion'
# Names of the stages of a recording's views.
_VIEW_NAMES = dict(zip(VIEWS, ('ECG signal', 'ECG measurements', 'ECG terms'), strict=True))
# Fields of `EcgConfig` that each part does not depend on.
_OVER_TIME = ('windows', 'time_plan', 'time_kernel', 'time_mlp', 'time_dropout')
_NOT_IN_VIEWS = (*_OVER_TIME, 'fusion', 'attend_over', 'recording', 'recording_dropout')


@dataclasses.dataclass(frozen=True)
class _Size:
  """Widths (paper, Table B1).

  Attributes:
    signal_plan: ResNet1d of the signal.
    signal_mlp: width of the signal's vector.
    features_mlp: width of the measurements' vector.
    text_width: of the report's embedding and MLP.
    width: space that the three views share.
    heads: of the attention between views.
    time_channels: of the ResNet1d over windows.
    time_mlp: width of the summary.
    decoders: hidden widths: signal, features, text, time.
  """

  signal_plan: tuple[tuple[int, int], ...]
  signal_mlp: int
  features_mlp: int
  text_width: int
  width: int
  heads: int
  time_channels: int
  time_mlp: int
  decoders: tuple[int, int, int, int]


def _paper(features: int, time: int) -> _Size:
  return _Size(
    signal_plan=((64, 640), (128, 320), (196, 160), (256, 40), (320, 20)),
    signal_mlp=640,
    features_mlp=features,
    text_width=256,
    width=256,
    heads=64,
    time_channels=384,
    time_mlp=time,
    decoders=(320, features // 2, 128, time // 2),
  )


_PAPER = {'cvd': _paper(512, 256), 'mortality': _paper(128, 256), 'los': _paper(256, 512)}
_SMALL = _Size(
  signal_plan=((16, 320), (32, 160), (48, 40), (64, 20)),
  signal_mlp=128,
  features_mlp=64,
  text_width=64,
  width=64,
  heads=8,
  time_channels=64,
  time_mlp=64,
  decoders=(64, 32, 32, 32),
)


@dataclasses.dataclass(frozen=True)
class Waveform(base.Modality):
  """Recordings of a model. Its parts are the views of a recording, and all views."""

  spec: format_kinds.Waveform
  config: EcgConfig

  of = format_kinds.Waveform
  kind = of.kind
  described = 'ECGs'
  in_windows = True
  gates: ClassVar[Mapping[str, str]] = {
    'signal': 'signal',
    'measurements': 'measurements',
    'terms': 'terms',
  }
  fuses = True

  @classmethod
  def make(cls, name: str, spec: format_kinds.Waveform, setting: Setting) -> Self:
    options, size = setting.options, setting.pick(_PAPER, _SMALL)
    windows = windows_of(name, options, setting.observation_hours)
    # One residual unit is enough to show that everything runs.
    plan = ((8, 20),) if options.size == 'tiny' else size.signal_plan
    config = EcgConfig(
      samples=ECG_CROP_SAMPLES,
      signal_plan=plan,
      signal_kernel=5,
      signal_mlp=size.signal_mlp,
      signal_dropout=0.1,
      measurements=len(ECG_MEASUREMENTS),
      features_mlp=size.features_mlp,
      features_dropout=0.05,
      terms=len(spec.terms),
      text_width=size.text_width,
      text_mlp=(size.text_width, size.text_width),
      text_dropout=0.25,
      # A recording always has its signal, so hiding views gains nothing.
      fusion=fusion_config(
        size.width,
        size.heads,
        options,
        shared_dropout=0.05,
        modality_dropout=0.0,
        pairs_from_zero=False,
      ),
      attend_over=setting.attend_over,
      recording=size.width * 3,
      recording_dropout=0.1,
      windows=windows.count,
      time_plan=((size.time_channels, windows.count),),
      time_kernel=3,
      time_mlp=size.time_mlp,
      time_dropout=0.05,
      resnet_dropout=RESNET_DROPOUT,
      decoders=tuple(zip((*VIEWS, 'time'), size.decoders, strict=True)),
      view_decoder_dropout=0.25,
      time_decoder_dropout=0.1,
    )
    return cls(name, spec, config, windows)

  @property
  def columns(self) -> EcgColumns:
    return EcgColumns(self.config.measurements, self.config.terms)

  def column_names(self) -> list[str]:
    names = [f'{name}/{key}' for name in ECG_MEASUREMENTS for key in OF_MEASUREMENTS]
    names += [f'{term}/ever' for term in self.spec.terms]
    return [*names, 'recordings', 'hours_since_last']

  def column_variables(self) -> list[ColumnVariable]:
    measured = [
      name.replace('_', ' ') for name in ECG_MEASUREMENTS for _ in OF_MEASUREMENTS
    ]
    names = [*measured, *(f'term {term}' for term in self.spec.terms)]
    return [ColumnVariable(name, name) for name in (*names, 'recordings', 'recordings')]

  def encoder(self, axis_name: str | None, dtype: DTypeLike) -> EcgEncoder:
    return EcgEncoder(self.config, axis_name, dtype)

  def decoder(self, part: str | None) -> DecoderSize:
    config, widths = self.config, dict(self.config.decoders)
    if part is None:
      return DecoderSize(widths['time'], config.time_decoder_dropout)
    if part == _FUSION:
      # The hidden layer belongs to the encoder, because it is the recording's vector.
      return DecoderSize(None)
    return DecoderSize(widths[part], config.view_decoder_dropout)

  @property
  def parts(self) -> tuple[str, ...]:
    return (*VIEWS, _FUSION)

  def units(
    self,
    encoder: Any,
    part: str,
    arrays: Mapping[str, Array],
    valid: Bool[Array, ' b'],
    *,
    train: bool,
  ) -> Units:
    owner = arrays['owner'].astype(np.int32)
    if part == _FUSION:
      vectors = encoder.recordings(arrays, valid, train=train)
      return Units(vectors, owner, arrays['mask'])
    view = encoder.view(part, arrays, valid, train=train)
    return Units(view.summary, owner, view.present)

  def fit(self, seen: Mapping[str, np.ndarray]) -> Fitted:
    assert self.windows is not None
    center, scale = center_and_scale(seen['measurements'], seen['measurements_mask'])
    return {
      'measurement_center': center,
      'measurement_scale': scale,
      'term_seen': np.asarray(seen['terms'].any(axis=0)),
      'time_cuts': self.windows.fitted(seen['time']),
    }

  def attributed(self, arrays: Arrays, attributions: Arrays) -> Iterator[ItemAttribution]:
    recordings = int(arrays['mask'].sum())
    if recordings:
      leads = attributions['signal'].sum(axis=(0, 1), dtype=np.float64)
      for lead, attribution in zip(ECG_LEADS, leads, strict=True):
        name = f'lead {lead}'
        yield ItemAttribution(self.name, name, '', None, recordings, float(attribution))
    yield from columns_of(
      self.name,
      [Item(name, name.replace('_', ' ')) for name in ECG_MEASUREMENTS],
      arrays['measurements'],
      arrays['measurements_mask'],
      attributions['measurements'],
    )
    for index, term in enumerate(self.spec.terms):
      reported = int((arrays['terms'][:, index] > 0).sum())
      if reported:
        attribution = float(attributions['terms'][:, index].sum())
        yield ItemAttribution(self.name, f'term {term}', '', None, reported, attribution)

  def shown(self, arrays: Arrays, attributions: Arrays) -> Shown:
    if not arrays['mask'].any():
      return Shown()
    latest = _most_recent(arrays)
    findings: list[tuple[str, float | None, float]] = [
      (
        name.replace('_', ' '),
        float(arrays['measurements'][latest, column]),
        float(attributions['measurements'][latest, column]),
      )
      for column, name in enumerate(ECG_MEASUREMENTS)
      if arrays['measurements_mask'][latest, column]
    ]
    findings += [
      (f'term {self.spec.terms[term]}', None, float(attributions['terms'][latest, term]))
      for term in np.flatnonzero(arrays['terms'][latest])
    ]
    return Shown(
      recording=Recording(
        hours=float(arrays['time'][latest]),
        recordings=int(arrays['mask'].sum()),
        signal=arrays['signal'][latest] / arrays['gain'][latest],
        leads=ECG_LEADS,
        rate=ECG_SAMPLING_RATE,
        attributions=attributions['signal'][latest],
        all_signals=float(attributions['signal'].sum(dtype=np.float64)),
        findings=findings,
      )
    )

  def tokens(self, fitted: Mapping[str, Any]) -> Sequence[str]:
    return token_names(fitted.get('time', {}))

  def looks(
    self,
    path: tuple[str, ...],
    weights: np.ndarray,
    fitted: Mapping[str, Any],
    arrays: Arrays,
  ) -> Looks | None:
    """Attention weights between the views of the most recent recording."""
    if path[:2] != (_FUSION, 'bimodal') or not arrays['mask'].any():
      return None
    latest = _most_recent(arrays)
    seen = np.asarray(fitted['text_view']['term_seen'])
    found = (
      True,
      arrays['measurements_mask'][latest].any(),
      ((arrays['terms'][latest] > 0) & seen).any(),
    )
    names = _VIEW_NAMES.values()
    present = {name: bool(each) for name, each in zip(names, found, strict=True)}
    return Looks(weights[:, :, latest], self._view_tokens(), present)

  def _view_tokens(self) -> dict[str, Sequence[str]]:
    config = self.config
    tokens: dict[str, Sequence[str]] = dict.fromkeys(_VIEW_NAMES.values(), ('all of it',))
    if config.attend_over == 'tokens':
      parts = config.signal_plan[-1][1]
      start = (ECG_SAMPLES - config.samples) // 2 / ECG_SAMPLING_RATE
      edges = start + np.linspace(0, config.samples / ECG_SAMPLING_RATE, parts + 1)
      tokens[_VIEW_NAMES['signal']] = [
        f'{a:.2f} to {b:.2f} s' for a, b in itertools.pairwise(edges)
      ]
    return tokens

  def damages(self) -> Sequence[Damage]:
    return (
      Damage(
        'ecg_leads_lost',
        'ECG leads lost',
        'ECG leads lost',
        LEADS_LOST,
        leads_lost,
        in_training=True,
      ),
      Damage(
        'ecg_bandwidth',
        'ECG with a narrower bandwidth',
        'ECG bandwidth (Hz)',
        BANDWIDTHS,
        lambda arrays, rows, level, seed: band_limited(arrays, rows, level),
        in_training=True,
      ),
      Damage(
        'ecg_arms_exchanged',
        'ECG arm electrodes exchanged',
        'Pairs of electrodes exchanged',
        (1.0,),
        lambda arrays, rows, level, seed: arms_exchanged(arrays),
      ),
      *(
        Damage(
          f'ecg_{kind}',
          f'Raw ECG with noise: {kind.replace("_", " ")}',
          'Signal-to-noise ratio (dB)',
          SNR,
          raw=kind,
        )
        for kind in noise.KINDS
      ),
    )

  def definition(self, part: str | None) -> dict[str, Any]:
    if part is None:
      return super().definition(part)
    read = dataclasses.asdict(self.config)
    for name in _OVER_TIME if part == _FUSION else _NOT_IN_VIEWS:
      del read[name]
    return {'config': read}


def _most_recent(ecg: Arrays) -> int:
  """Slot of the most recent recording; there must be at least one."""
  return int(np.argmax(np.where(ecg['mask'], ecg['time'], -np.inf)))
