"""MedM2T: all stages of one model (arXiv 2510.27321; docs/design.md, "The model").

A stage creates and uses only its part of the parameter tree, always under the same
path: `encoders_{modality}`, `decoders_{stage}`, `fusion`. So starting a stage from
another is copying the paths that both have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from medm2t_jax.models.config import ModelConfig
from medm2t_jax.models.decoder import Decoder, OutputLayer
from medm2t_jax.models.ecg import VIEWS, EcgEncoder
from medm2t_jax.models.encoded import Encoded, Predictions
from medm2t_jax.models.hierarchical_fusion import HierarchicalTimeAwareFusion
from medm2t_jax.models.multimodal_fusion import MultimodalFusion
from medm2t_jax.models.sparse_time_series import SparseTimeSeriesEncoder
from medm2t_jax.models.static_encoder import StaticEncoder

Batch = Mapping[str, Any]


def stages(config: ModelConfig) -> tuple[str, ...]:
  """All stages of a model in the order in which they are trained."""
  names = ['static'] if config.static else []
  names += [name for name, _ in config.events]
  for name, grid in config.grids:
    names += [segment_stage(name, micro.length) for micro in grid.micro] + [name]
  if config.ecg:
    names += [f'ecg_{view}' for view in VIEWS] + ['ecg_fusion', 'ecg']
  return (*names, 'multimodal')


def segment_stage(grid: str, length: int) -> str:
  """Name of the stage that trains the micro encoder of one segment length."""
  return f'{grid}_segments_{length}'


class MedM2T(nn.Module):
  """The model. `apply(variables, batch, stage=..., train=...)`.

  Collections: `params`, `batch_stats`, `fitted`. Random numbers: 'dropout' in
  training. With 'intermediates' mutable, attention weights are returned: under
  `fusion/bimodal/block_{n}/attention/attention` as (target j, querying modality,
  b, heads, 1, tokens); the querying modalities are those other than j, in order.

  Attributes:
    config: of `medm2t_jax.models.config.model_config`.
    axis_name: mapped axis over which BatchNorm is synchronised.
  """

  config: ModelConfig
  axis_name: str | None = None

  def setup(self):
    config = self.config
    dtype = jnp.dtype(config.dtype)
    shared = {'axis_name': self.axis_name, 'dtype': dtype}
    encoders: dict[str, nn.Module] = {}
    decoders: dict[str, nn.Module] = {}

    def decoder(hidden: int, dropout: float) -> Decoder:
      return Decoder(hidden, config.outputs, dropout, **shared)

    if config.static:
      encoders['static'] = StaticEncoder(config.static, **shared)
      decoders['static'] = decoder(config.static.decoder, config.static.decoder_dropout)
    for name, events in config.events:
      encoders[name] = SparseTimeSeriesEncoder(events, **shared)
      decoders[name] = decoder(events.decoder, events.decoder_dropout)
    for name, grid in config.grids:
      encoders[name] = HierarchicalTimeAwareFusion(grid, **shared)
      decoders[name] = decoder(grid.decoder, grid.decoder_dropout)
      for micro in grid.micro:
        stage = segment_stage(name, micro.length)
        decoders[stage] = decoder(micro.decoder, grid.decoder_dropout)
    if config.ecg:
      encoders['ecg'] = EcgEncoder(config.ecg, **shared)
      widths = dict(config.ecg.decoders)
      for view in VIEWS:
        decoders[f'ecg_{view}'] = decoder(widths[view], config.ecg.view_decoder_dropout)
      # Its hidden layer belongs to the encoder: it is the recording's vector.
      decoders['ecg_fusion'] = OutputLayer(config.outputs)
      decoders['ecg'] = decoder(widths['time'], config.ecg.time_decoder_dropout)
    count = len(config.modalities)
    pairs = count * (count - 1) // 2
    fused = config.fusion.width * (count + config.fusion.pair_vectors * pairs)
    decoders['multimodal'] = decoder(fused // 2, config.decoder_dropout)
    self.encoders = encoders
    self.decoders = decoders
    self.fusion = MultimodalFusion(config.fusion, dtype)

  def __call__(
    self, batch: Batch, *, stage: str, train: bool, drop: tuple[str, ...] = ()
  ) -> Predictions:
    """Predictions of one stage on one device's batch.

    Args:
      batch: docs/design.md, "The batch", without the device axis. A stage reads only
        the modalities that it needs.
      stage: one of `stages(config)`.
      train: dropout, modality dropout, random crop and statistics of the batch.
      drop: modalities to treat as absent in every row.

    Raises:
      ValueError: an unknown stage or modality.
    """
    config = self.config
    if stage not in stages(config):
      raise ValueError(f'unknown stage {stage!r}; this model has {stages(config)}')
    unknown = sorted(set(drop) - set(config.modalities))
    if unknown:
      raise ValueError(f'cannot drop {unknown}; the modalities are {config.modalities}')
    batch = jax.tree.map(jnp.asarray, dict(batch))
    batch = {**batch, **{name: without(name, batch[name]) for name in drop}}
    valid = batch['weight'] > 0
    if stage == 'multimodal':
      return self._multimodal(batch, valid, train)
    if stage in config.modalities:
      encoder = self.encoders[stage]
      encoded = encoder(batch[stage], valid, train=train, attend_over='summary')
      return self._decode(stage, encoded, valid, jnp.arange(len(valid)), train)
    if stage.startswith('ecg_'):
      return self._recordings(batch['ecg'], valid, stage, train)
    return self._segments(batch, valid, stage, train)

  def _multimodal(self, batch: Batch, valid: Bool[Array, ' b'], train: bool) -> Predictions:
    config = self.config
    encoded = {
      name: self.encoders[name](
        batch[name], valid, train=train, attend_over=config.attend_over
      )
      for name in config.modalities
    }
    fused = self.fusion(encoded, train=train)
    logits = self.decoders['multimodal'](fused, valid, train=train)
    rows = jnp.arange(len(valid), dtype=jnp.int32)
    return Predictions(logits, rows, jnp.ones(len(valid), bool))

  def _decode(
    self,
    stage: str,
    encoded: Encoded,
    valid: Bool[Array, ' u'],
    owner: Int[Array, ' u'],
    train: bool,
  ) -> Predictions:
    present = encoded.present
    logits = self.decoders[stage](encoded.summary, valid & present, train=train)
    return Predictions(logits, owner.astype(jnp.int32), present)

  def _recordings(
    self, ecg: Mapping[str, Array], valid: Bool[Array, ' b'], stage: str, train: bool
  ) -> Predictions:
    owner = ecg['owner'].astype(jnp.int32)
    encoder = self.encoders['ecg']
    if stage == 'ecg_fusion':
      vectors = encoder.recordings(ecg, valid, train=train)
      return Predictions(self.decoders[stage](vectors), owner, ecg['mask'])
    view = encoder.view(stage.removeprefix('ecg_'), ecg, valid, train=train)
    return self._decode(stage, view, valid[owner], owner, train)

  def _segments(
    self, batch: Batch, valid: Bool[Array, ' b'], stage: str, train: bool
  ) -> Predictions:
    name, length = next(
      (name, micro.length)
      for name, grid in self.config.grids
      for micro in grid.micro
      if segment_stage(name, micro.length) == stage
    )
    encoder = self.encoders[name]
    vectors = encoder.segments(batch[name], valid, length=length, train=train)
    rows, segments, width = vectors.shape
    owner = jnp.repeat(jnp.arange(rows, dtype=jnp.int32), segments)
    present = jnp.any(batch[name]['observed'], axis=(1, 2))[owner]
    units = vectors.reshape(rows * segments, width)
    logits = self.decoders[stage](units, valid[owner] & present, train=train)
    return Predictions(logits, owner, present)


def without(name: str, modality: Mapping[str, Any]) -> dict[str, Any]:
  """A modality of a batch with nothing observed; masks only, values stay.

  Args:
    name: of the modality.
    modality: its arrays, NumPy or JAX, of any leading axes.
  """
  if name == 'static':
    return {
      **modality,
      'numeric_mask': modality['numeric_mask'] & False,
      'categorical': modality['categorical'] * 0 - 1,
    }
  mask = 'observed' if 'observed' in modality else 'mask'
  return {**modality, mask: modality[mask] & False}
