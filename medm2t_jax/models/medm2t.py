"""MedM2T: all stages of one model (arXiv 2510.27321; docs/design.md, "The model").

A stage creates and uses only its part of the parameter tree, always under the same
path: `encoders_{modality}`, `decoders_{stage}`, `trunks_{stage}`, `fusion`. So starting a
stage from another is copying the paths that both have.

A stage whose unit is the sample has, beside its encoders with their decoder (the deep
network), an ensemble trunk that reads the columns of its modalities. Each is trained by a
loss of its own, and they are added at the end: what a deep network has found of time is not
lost in a network that has seen the statistics first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from medm2t_jax.models.config import ModelConfig
from medm2t_jax.models.decoder import Decoder, OutputLayer
from medm2t_jax.models.ecg import VIEWS, EcgEncoder
from medm2t_jax.models.encoded import Predictions, of_decoder
from medm2t_jax.models.events.sparse_time_series import SparseTimeSeriesEncoder
from medm2t_jax.models.hierarchical_fusion import HierarchicalTimeAwareFusion
from medm2t_jax.models.link import ensemble_mean, normalized
from medm2t_jax.models.multimodal_fusion import MultimodalFusion
from medm2t_jax.models.static_encoder import StaticEncoder
from medm2t_jax.models.trunk.chunks import Chunks
from medm2t_jax.models.trunk.ensemble_trunk import EnsembleTrunk
from medm2t_jax.models.trunk.late_addition import LateAddition

Batch = Mapping[str, Any]

MULTIMODAL = 'multimodal'  # the last stage: what predicts
_OUTPUT_LAYERS = ('head', 'head_bias', 'output')  # of trunks, and of decoders


def stages(config: ModelConfig) -> tuple[str, ...]:
  """All stages of a model in the order in which they are trained."""
  return tuple(_modalities_of_stages(config))


def modality_of(config: ModelConfig, stage: str) -> str | None:
  """The modality that a stage of the model trains on; None for the multimodal stage."""
  return _modalities_of_stages(config)[stage]


def _modalities_of_stages(config: ModelConfig) -> dict[str, str | None]:
  """Stage -> its modality, in the order of training."""
  if config.deep == 'none':
    return {**{name: name for name in config.modalities}, MULTIMODAL: None}
  found: dict[str, str | None] = {'static': 'static'} if config.static else {}
  found |= {name: name for name, _ in config.events}
  for name, grid in config.grids:
    found |= {segment_stage(name, micro.length): name for micro in grid.micro}
    found[name] = name
  if config.ecg:
    found |= {f'ecg_{view}': 'ecg' for view in VIEWS}
    found |= {'ecg_fusion': 'ecg', 'ecg': 'ecg'}
  return {**found, MULTIMODAL: None}


def is_head(path: Sequence[str]) -> bool:
  """Whether a parameter is of an output layer, of a trunk or a decoder."""
  return path[0].startswith(('trunks_', 'decoders_')) and path[1] in _OUTPUT_LAYERS


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
    config: of `medm2t_jax.experiment.model_config.model_config`.
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
    if config.ensemble:
      self.chunks = {name: Chunks(kind) for name, kind in config.columns}
      units = (*config.modalities, 'multimodal')
      self.trunks = {
        stage: EnsembleTrunk(config.ensemble, config.outputs, dtype) for stage in units
      }
      self.additions = {
        stage: LateAddition(config.outputs, len(self.part_names(stage)), config.link)
        for stage in units
      }
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
    valid = batch['row'] >= 0
    if stage == 'multimodal' or stage in config.modalities:
      return self._samples(batch, valid, stage, train)
    if stage.startswith('ecg_'):
      return self._recordings(batch['ecg'], valid, stage, train)
    return self._segments(batch, valid, stage, train)

  @nn.nowrap
  def part_names(self, stage: str) -> tuple[str, ...]:
    """Names of the parts of a stage's predictions; with several, weights are fitted."""
    config = self.config
    if not self._has_trunk(stage):
      return ('deep',)
    deep = ('deep',) if config.deep == 'late' else ()
    return ('ensemble', *deep, *self._apart(stage))

  @nn.nowrap
  def members(self, stage: str) -> int:
    """How many heads of a stage's predictions are members of one ensemble."""
    ensemble = self.config.ensemble
    return ensemble.members if ensemble and self._has_trunk(stage) else 1

  @nn.nowrap
  def untrained(self, stage: str) -> tuple[str, ...]:
    """Paths of parameters that a stage reads and never trains."""
    return tuple(
      f'{kind}_{name}'
      for name in self._apart(stage)
      for kind in ('trunks', *(('decoders',) if self.config.deep == 'late' else ()))
    )

  @nn.nowrap
  def _has_trunk(self, stage: str) -> bool:
    of_samples = stage == 'multimodal' or stage in self.config.modalities
    return self.config.ensemble is not None and of_samples

  @nn.nowrap
  def _apart(self, stage: str) -> tuple[str, ...]:
    """Modalities whose stages are parts of a stage's predictions."""
    apart = self.config.single_stages == 'late' and stage == 'multimodal'
    return self.config.modalities if apart and self.config.ensemble else ()

  def _samples(
    self, batch: Batch, valid: Bool[Array, ' b'], stage: str, train: bool
  ) -> Predictions:
    """Predictions of a stage whose unit is the sample."""
    config, rows = self.config, jnp.arange(len(valid), dtype=jnp.int32)
    names = config.modalities if stage == 'multimodal' else (stage,)
    encoded = {}
    if config.deep != 'none':
      attend_over = config.attend_over if stage == 'multimodal' else 'summary'
      encoded = {
        name: self.encoders[name](batch[name], valid, train=train, attend_over=attend_over)
        for name in names
      }
    deep, present = None, jnp.ones(len(valid), bool)
    if stage != 'multimodal':
      present = is_present(stage, batch[stage], len(valid))
    if encoded and stage == 'multimodal':
      deep = self.fusion(encoded, train=train)
    elif encoded:
      deep = encoded[stage].summary
    if not config.ensemble:
      assert deep is not None
      return of_decoder(self._decode(stage, deep, valid & present, train), rows, present)
    read = {name: batch[name] for name in names}
    if train and len(names) > 1 and config.fusion.modality_dropout:
      read = self._with_modality_dropout(read, len(valid))
    chunks = {name: self.chunks[name](read[name], len(valid)) for name in names}
    heads, parts = self._heads_and_parts(stage, chunks, deep, valid & present, train)
    if not train:  # they have no loss here
      for name in self._apart(stage):
        summary = encoded[name].summary if encoded else None
        parts.append(self._single(name, chunks[name], summary, batch, valid))
    stacked = jnp.stack(parts)
    # In training nobody reads it where parts are left out.
    whole = len(parts) == len(self.part_names(stage))
    logits = self.additions[stage](stacked) if whole else parts[0]
    return Predictions(logits, heads, stacked, rows, present)

  def _heads_and_parts(
    self,
    stage: str,
    chunks: Mapping[str, Float[Array, 'b n p']],
    deep: Float[Array, 'b f'] | None,
    mask: Bool[Array, ' b'],
    train: bool,
  ) -> tuple[Float[Array, 'h b c'], list[Float[Array, 'b c']]]:
    """What the trunk of a stage says, and what its deep network says beside it."""
    vectors = None
    if deep is not None and self.config.deep == 'chunks':
      # Of the multimodal head's input every modality and pair is a vector of its own.
      width = self.config.fusion.width if stage == 'multimodal' else deep.shape[1]
      vectors = deep.reshape(len(mask), -1, width)
    joined = jnp.concatenate(list(chunks.values()), axis=1)
    heads = self.trunks[stage](joined, vectors, train=train)
    parts = [ensemble_mean(heads, self.config.link)]
    if deep is not None and self.config.deep == 'late':
      logits = self._decode(stage, deep, mask, train)
      heads = jnp.concatenate([heads, logits[jnp.newaxis]])
      parts.append(normalized(logits, self.config.link))
    return heads, parts

  def _single(
    self,
    name: str,
    chunks: Float[Array, 'b n p'],
    summary: Float[Array, 'b e'] | None,
    batch: Batch,
    valid: Bool[Array, ' b'],
  ) -> Float[Array, 'b c']:
    """What the stage of one modality predicts; the prior where a row lacks it."""
    present = is_present(name, batch[name], len(valid))
    _, parts = self._heads_and_parts(name, {name: chunks}, summary, valid & present, False)
    addition = self.additions[name]
    return jnp.where(
      present[:, jnp.newaxis], addition(jnp.stack(parts)), addition.prior()[jnp.newaxis]
    )

  def _decode(
    self, stage: str, x: Float[Array, 'u e'], mask: Bool[Array, ' u'], train: bool
  ) -> Float[Array, 'u c']:
    return self.decoders[stage](x, mask, train=train)

  def _with_modality_dropout(self, read: dict[str, Any], rows: int) -> dict[str, Any]:
    """Modalities hidden at random; a row that would lose all of them keeps them."""
    present = jnp.stack([is_present(name, read[name], rows) for name in read])
    keep = 1 - self.config.fusion.modality_dropout
    kept = present & jax.random.bernoulli(self.make_rng('dropout'), keep, present.shape)
    kept |= ~jnp.any(kept, axis=0, keepdims=True)
    return {
      name: _hidden(name, arrays, row)
      for (name, arrays), row in zip(read.items(), kept, strict=True)
    }

  def _recordings(
    self, ecg: Mapping[str, Array], valid: Bool[Array, ' b'], stage: str, train: bool
  ) -> Predictions:
    owner = ecg['owner'].astype(jnp.int32)
    encoder = self.encoders['ecg']
    if stage == 'ecg_fusion':
      vectors = encoder.recordings(ecg, valid, train=train)
      return of_decoder(self.decoders[stage](vectors), owner, ecg['mask'])
    view = encoder.view(stage.removeprefix('ecg_'), ecg, valid, train=train)
    logits = self._decode(stage, view.summary, valid[owner] & view.present, train)
    return of_decoder(logits, owner, view.present)

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
    logits = self._decode(stage, units, valid[owner] & present, train)
    return of_decoder(logits, owner, present)


def is_present(name: str, modality: Mapping[str, Any], rows: int) -> Bool[Array, ' b']:
  """Which rows of a batch have a modality at all.

  Args:
    name: of the modality.
    modality: its arrays, without the device axis.
    rows: of the batch.
  """
  if name == 'static':
    known = jnp.any(modality['numeric_mask'], axis=1)
    return known | jnp.any(modality['categorical'] >= 0, axis=1)
  if 'observed' in modality:
    return jnp.any(modality['observed'], axis=(1, 2))
  if 'owner' in modality:
    return jnp.zeros(rows, bool).at[modality['owner']].max(modality['mask'])
  return jnp.any(modality['mask'], axis=1)


def without(name: str, modality: Mapping[str, Any]) -> dict[str, Any]:
  """A modality of a batch with nothing observed; masks only, values stay.

  Args:
    name: of the modality.
    modality: its arrays, NumPy or JAX, of any leading axes.
  """
  return _masked(name, modality, lambda mask: mask & False)


def _hidden(
  name: str, modality: Mapping[str, Any], kept: Bool[Array, ' b']
) -> dict[str, Any]:
  """A modality with nothing observed in the rows that are not `kept`."""
  of_row = kept[modality['owner']] if 'owner' in modality else kept
  lead = lambda mask: of_row.reshape(-1, *(1,) * (mask.ndim - 1))
  return _masked(name, modality, lambda mask: mask & lead(mask))


def _masked(
  name: str, modality: Mapping[str, Any], change: Callable[[Any], Any]
) -> dict[str, Any]:
  if name == 'static':
    known = modality['categorical'] >= 0
    # -1 where nothing is left: NumPy and JAX alike.
    level = (modality['categorical'] + 1) * change(known) - 1
    return {
      **modality,
      'numeric_mask': change(modality['numeric_mask']),
      'categorical': level.astype(modality['categorical'].dtype),
    }
  mask = 'observed' if 'observed' in modality else 'mask'
  return {**modality, mask: change(modality[mask])}
