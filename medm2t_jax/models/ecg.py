"""Fuses three views of an ECG recording, then recordings over time (paper section 3.2).

Recordings are packed: `owner` assigns m of them to the rows of a batch, and rows without
recordings cost nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Num

from medm2t_jax.models.encoded import Encoded, summary_as_token
from medm2t_jax.models.gates import gated
from medm2t_jax.models.layers.mlp import Mlp
from medm2t_jax.models.layers.resnet1d import ResNet1d
from medm2t_jax.models.layers.time_windows import fitted_cuts, window_of
from medm2t_jax.models.multimodal_fusion import FusionConfig, MultimodalFusion
from medm2t_jax.models.options import AttendOver

VIEWS = ('signal', 'features', 'text')


@dataclasses.dataclass(frozen=True)
class EcgConfig:
  """Sizes and options of the ECG modality.

  Attributes:
    samples: samples that the model reads of each recording.
    signal_plan: ResNet1d of the signal.
    signal_kernel: its kernel.
    signal_mlp: width of the signal's vector.
    signal_dropout: of its MLP.
    measurements: number of machine measurements.
    features_mlp: width of their vector.
    features_dropout: of their MLP.
    terms: number of report terms.
    text_width: of the term embedding.
    text_mlp: hidden sizes of the report's vector.
    text_dropout: of its MLP.
    fusion: multimodal head of the three views.
    attend_over: what views attend to: 'tokens' (parts of the signal) or 'summary'.
    recording: width of a recording's vector.
    recording_dropout: after it.
    windows: time windows.
    time_plan: ResNet1d over the windows.
    time_kernel: its kernel.
    time_mlp: width of the summary.
    time_dropout: of its MLP.
    resnet_dropout: of both ResNet1d.
    decoders: stage -> hidden width, for 'signal', 'features', 'text', 'time'.
    view_decoder_dropout: of the decoders of the three views.
    time_decoder_dropout: of the decoder over time.
  """

  samples: int
  signal_plan: tuple[tuple[int, int], ...]
  signal_kernel: int
  signal_mlp: int
  signal_dropout: float
  measurements: int
  features_mlp: int
  features_dropout: float
  terms: int
  text_width: int
  text_mlp: tuple[int, ...]
  text_dropout: float
  fusion: FusionConfig
  attend_over: AttendOver
  recording: int
  recording_dropout: float
  windows: int
  time_plan: tuple[tuple[int, int], ...]
  time_kernel: int
  time_mlp: int
  time_dropout: float
  resnet_dropout: float
  decoders: tuple[tuple[str, int], ...]
  view_decoder_dropout: float
  time_decoder_dropout: float


class EcgEncoder(nn.Module):
  """Recordings to vectors, vectors to time windows, windows to one vector.

  Fitted variables: `measurement_center`, `measurement_scale` (9), `term_seen` (t),
  `time_cuts` (w - 1), hours.

  Attributes:
    config: sizes and options.
    axis_name: of BatchNorm.
    dtype: of the computation.
  """

  config: EcgConfig
  axis_name: str | None = None
  dtype: DTypeLike = jnp.float32

  def setup(self):
    config, shared = self.config, {'axis_name': self.axis_name, 'dtype': self.dtype}
    self.features_view = FeaturesView(config, **shared)
    self.text_view = TextView(config, **shared)
    self.signal_view = SignalView(config, **shared)
    self.fusion = MultimodalFusion(config.fusion, self.dtype)
    self.recording_mlp = Mlp((config.recording,), config.recording_dropout, **shared)
    self.time = EcgOverTime(config, **shared)

  def __call__(
    self,
    ecg: Mapping[str, Array],
    valid: Bool[Array, ' b'],
    *,
    train: bool,
    attend_over: AttendOver = 'tokens',
  ) -> Encoded:
    """Encodes the recordings of each row.

    Args:
      ecg: packed recordings; docs/design.md, "The batch".
      valid: rows that are not padding.
      train: whether to use dropout and the statistics of the batch.
      attend_over: whether tokens are the time windows, or only the summary.
    """
    vectors = self.recordings(ecg, valid, train=train)
    return self.time(vectors, ecg, valid, train=train, attend_over=attend_over)

  def recordings(
    self, ecg: Mapping[str, Array], valid: Bool[Array, ' b'], *, train: bool
  ) -> Float[Array, 'm e']:
    """One vector per recording: the three views fused, hidden layer of the decoder.

    A batch without any recording skips the computation: for patients without an ECG,
    padding would take most of the time of a prediction.
    """
    keeps = self.is_initializing() or self.is_mutable_collection('intermediates')
    if train or keeps:  # both branches of a cond must have the same variables
      return self._of_views(ecg, valid, train=train)
    return nn.cond(
      jnp.any(ecg['mask']),
      lambda encoder, ecg, valid: encoder._of_views(ecg, valid, train=False),
      lambda encoder, ecg, _: jnp.zeros(
        (ecg['mask'].shape[0], encoder.config.recording), encoder.dtype
      ),
      self,
      ecg,
      valid,
    )

  def _of_views(
    self, ecg: Mapping[str, Array], valid: Bool[Array, ' b'], *, train: bool
  ) -> Float[Array, 'm e']:
    views = {
      view: self.view(view, ecg, valid, train=train, attend_over=self.config.attend_over)
      for view in VIEWS
    }
    fused = self.fusion(views, train=train)
    return self.recording_mlp(fused, _valid_recordings(ecg, valid), train=train)

  def view(
    self,
    name: str,
    ecg: Mapping[str, Array],
    valid: Bool[Array, ' b'],
    *,
    train: bool,
    attend_over: AttendOver = 'summary',
  ) -> Encoded:
    """One view, 'signal', 'features' or 'text', of every recording."""
    encoders = {
      'signal': self.signal_view,
      'features': self.features_view,
      'text': self.text_view,
    }
    mask = _valid_recordings(ecg, valid)
    return encoders[name](ecg, mask, train=train, attend_over=attend_over)


class SignalView(nn.Module):
  """12-lead signal: crop, millivolts, ResNet1d, MLP; tokens are the last activation."""

  config: EcgConfig
  axis_name: str | None = None
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, ecg: Mapping[str, Array], valid: Bool[Array, ' m'], *, train, attend_over
  ) -> Encoded:
    config, shared = self.config, {'axis_name': self.axis_name, 'dtype': self.dtype}
    signal = self._crop(gated(ecg, 'signal', ecg['signal']))
    # Scaled on the device, because the host sends int16.
    gain = jnp.where(ecg['mask'], ecg['gain'], 1.0)
    x = signal.astype(self.dtype) / gain.astype(self.dtype)[:, jnp.newaxis, jnp.newaxis]
    resnet = ResNet1d(
      config.signal_plan,
      config.signal_kernel,
      config.resnet_dropout,
      **shared,
      name='resnet',
    )
    x = resnet(x, valid, train=train)
    mlp = Mlp((config.signal_mlp,), config.signal_dropout, **shared, name='mlp')
    summary = mlp(x.reshape(x.shape[0], -1), valid, train=train)
    present = ecg['mask']
    if attend_over == 'summary':
      return summary_as_token(summary, present)
    tokens = nn.Dense(config.signal_mlp, dtype=self.dtype, name='token_linear')(x)
    mask = jnp.broadcast_to(present[:, jnp.newaxis], tokens.shape[:2])
    return Encoded(tokens, mask, summary, present)

  def _crop(self, signal: Num[Array, 'm s l']) -> Num[Array, 'm r l']:
    """The middle of each recording."""
    samples = self.config.samples
    start = (signal.shape[1] - samples) // 2
    return signal[:, start : start + samples]


class FeaturesView(nn.Module):
  """Machine measurements: robust scaling, absent ones 0, MLP."""

  config: EcgConfig
  axis_name: str | None = None
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, ecg: Mapping[str, Array], valid: Bool[Array, ' m'], *, train, attend_over
  ) -> Encoded:
    del attend_over  # The summary is the only token.
    shape = (self.config.measurements,)
    center = self.variable('fitted', 'measurement_center', jnp.zeros, shape)
    scale = self.variable('fitted', 'measurement_scale', jnp.ones, shape)
    scaled = ecg['measurements'] - center.value[jnp.newaxis]
    scaled = scaled / scale.value[jnp.newaxis]
    scaled = gated(ecg, 'measurements', jnp.where(ecg['measurements_mask'], scaled, 0.0))
    present = ecg['mask'] & jnp.any(ecg['measurements_mask'], axis=1)
    mlp = Mlp(
      (self.config.features_mlp,),
      self.config.features_dropout,
      self.axis_name,
      self.dtype,
      name='mlp',
    )
    return summary_as_token(mlp(scaled, valid & present, train=train), present)


class TextView(nn.Module):
  """Machine report as a bag of terms: mean embedding, MLP.

  Terms that no training subject had are ignored.
  """

  config: EcgConfig
  axis_name: str | None = None
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, ecg: Mapping[str, Array], valid: Bool[Array, ' m'], *, train, attend_over
  ) -> Encoded:
    del attend_over  # The summary is the only token.
    config = self.config
    seen = self.variable('fitted', 'term_seen', jnp.ones, (config.terms,), bool)
    reported = (ecg['terms'] > 0) & seen.value[jnp.newaxis]
    present = ecg['mask'] & jnp.any(reported, axis=1)
    table = self.param(
      'term_table', nn.initializers.normal(1.0), (config.terms, config.text_width)
    )
    bag = gated(ecg, 'terms', reported.astype(self.dtype))
    count = jnp.maximum(jnp.sum(reported, axis=1), 1).astype(self.dtype)
    mean = jnp.dot(bag, table.astype(self.dtype)) / count[:, jnp.newaxis]
    mlp = Mlp(config.text_mlp, config.text_dropout, self.axis_name, self.dtype, name='mlp')
    return summary_as_token(mlp(mean, valid & present, train=train), present)


class EcgOverTime(nn.Module):
  """Recording vectors, averaged per time window, ResNet1d, MLP."""

  config: EcgConfig
  axis_name: str | None = None
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    vectors: Float[Array, 'm e'],
    ecg: Mapping[str, Array],
    valid: Bool[Array, ' b'],
    *,
    train,
    attend_over,
  ) -> Encoded:
    config, shared = self.config, {'axis_name': self.axis_name, 'dtype': self.dtype}
    window = window_of(ecg['time'], fitted_cuts(self, config.windows))
    pooled, count = pool_by_owner(
      vectors, ecg['owner'], window, ecg['mask'], valid.shape[0], config.windows
    )
    seen = count > 0
    present = jnp.any(seen, axis=1)
    x = ResNet1d(
      config.time_plan, config.time_kernel, config.resnet_dropout, **shared, name='resnet'
    )(pooled, valid & present, train=train)
    mlp = Mlp((config.time_mlp,), config.time_dropout, **shared, name='mlp')
    summary = mlp(x.reshape(x.shape[0], -1), valid & present, train=train)
    if attend_over == 'summary':
      return summary_as_token(summary, present)
    tokens = nn.Dense(config.time_mlp, dtype=self.dtype, name='token_linear')(pooled)
    return Encoded(tokens, seen, summary, present)


def pool_by_owner(
  vectors: Float[Array, 'm e'],
  owner: Int[Array, ' m'],
  window: Int[Array, ' m'],
  mask: Bool[Array, ' m'],
  rows: int,
  windows: int,
) -> tuple[Float[Array, 'b w e'], Float[Array, 'b w']]:
  """Mean vector and number of recordings per row and time window; 0 if there are none."""
  place = jnp.where(mask, owner * windows + window, rows * windows)
  pool = lambda x: jax.ops.segment_sum(x, place, rows * windows + 1)[:-1]
  count = pool(jnp.ones(owner.shape[0]))
  total = pool(vectors.astype(jnp.float32))
  mean = total / jnp.maximum(count, 1)[:, jnp.newaxis]
  mean = mean.reshape(rows, windows, -1).astype(vectors.dtype)
  return mean, count.reshape(rows, windows)


def _valid_recordings(
  ecg: Mapping[str, Array], valid: Bool[Array, ' b']
) -> Bool[Array, ' m']:
  return ecg['mask'] & jnp.asarray(valid)[ecg['owner']]
