"""MedM2T: all stages of one model (arXiv 2510.27321; docs/design.md, "The model").

A stage creates and uses only its part of the parameter tree, always under the same
path: `encoders_{modality}`, `decoders_{stage}`, `trunks_{stage}`, `fusion`. So a stage
starts from another one by copying the paths that both have.

In addition to its encoders and their decoder (the deep network), a stage whose unit is the
sample has an ensemble trunk that reads the columns of its modalities. Each is trained with
its own loss, and their outputs are added at the end. So the deep network keeps what it
learns about time, although the statistics are faster to learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from medm2t_jax.models.config import ModelConfig
from medm2t_jax.models.decoder import Decoder, OutputLayer
from medm2t_jax.models.encoded import Predictions, of_decoder
from medm2t_jax.models.link import ensemble_mean, normalized
from medm2t_jax.models.modality import MULTIMODAL, Stage
from medm2t_jax.models.multimodal_fusion import MultimodalFusion
from medm2t_jax.models.trunk.chunks import Chunks
from medm2t_jax.models.trunk.ensemble_trunk import EnsembleTrunk
from medm2t_jax.models.trunk.late_addition import LateAddition

Batch = Mapping[str, Any]

_OUTPUT_LAYERS = ('head', 'head_bias', 'output')  # of trunks, and of decoders


def is_head(path: Sequence[str]) -> bool:
  """Whether a parameter belongs to an output layer of a trunk or a decoder."""
  return path[0].startswith(('trunks_', 'decoders_')) and path[1] in _OUTPUT_LAYERS


class MedM2T(nn.Module):
  """The model. `apply(variables, batch, stage=..., train=...)`.

  Collections: `params`, `batch_stats`, `fitted`. Random numbers: 'dropout' in
  training. With 'intermediates' mutable, attention weights are returned: under
  `fusion/bimodal/block_{n}/attention/attention` as (target j, querying modality,
  b, heads, 1, tokens); the querying modalities are those other than j, in order.

  Attributes:
    config: from `medm2t_jax.experiment.model_config.model_config`.
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

    def decoder(hidden: int | None, dropout: float) -> nn.Module:
      if hidden is None:
        return OutputLayer(config.outputs)
      return Decoder(hidden, config.outputs, dropout, **shared)

    for modality in config.modalities:
      encoders[modality.name] = modality.encoder(self.axis_name, dtype)
      for stage in modality.stages(with_parts=True):
        size = modality.decoder(stage.part)
        decoders[stage.name] = decoder(size.hidden, size.dropout)
    count = len(config.modalities)
    pairs = count * (count - 1) // 2
    fused = config.fusion.width * (count + config.fusion.pair_vectors * pairs)
    decoders[MULTIMODAL] = decoder(fused // 2, config.decoder_dropout)
    if config.ensemble:
      self.chunks = {name: Chunks(kind) for name, kind in config.columns}
      units = (*config.names, MULTIMODAL)
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
      stage: the name of one of `config.stages`.
      train: whether to use dropout, modality dropout and the statistics of the batch.
      drop: modalities to treat as absent in every row.

    Raises:
      ValueError: a stage or modality is unknown.
    """
    config = self.config
    if stage not in config.stages:
      raise ValueError(f'unknown stage {stage!r}; this model has {tuple(config.stages)}')
    unknown = sorted(set(drop) - set(config.names))
    if unknown:
      raise ValueError(f'cannot drop {unknown}; the modalities are {config.names}')
    batch = jax.tree.map(jnp.asarray, dict(batch))
    dropped = {name: config.modality(name).without(batch[name]) for name in drop}
    batch = {**batch, **dropped}
    valid = batch['row'] >= 0
    if config.stages[stage].of_samples:
      return self._samples(batch, valid, stage, train)
    return self._units(batch, valid, config.stages[stage], train)

  @nn.nowrap
  def part_names(self, stage: str) -> tuple[str, ...]:
    """Names of the parts of a stage's predictions; several parts have fitted weights."""
    config = self.config
    if not self._has_trunk(stage):
      return ('deep',)
    deep = ('deep',) if config.deep == 'late' else ()
    return ('ensemble', *deep, *self._apart(stage))

  @nn.nowrap
  def members(self, stage: str) -> int:
    """Number of heads of a stage's predictions that are members of one ensemble."""
    ensemble = self.config.ensemble
    return ensemble.members if ensemble and self._has_trunk(stage) else 1

  @nn.nowrap
  def untrained(self, stage: str) -> tuple[str, ...]:
    """Paths of parameters that a stage reads but never trains."""
    return tuple(
      f'{kind}_{name}'
      for name in self._apart(stage)
      for kind in ('trunks', *(('decoders',) if self.config.deep == 'late' else ()))
    )

  @nn.nowrap
  def _has_trunk(self, stage: str) -> bool:
    return self.config.ensemble is not None and self.config.stages[stage].of_samples

  @nn.nowrap
  def _apart(self, stage: str) -> tuple[str, ...]:
    """Modalities whose stages are parts of a stage's predictions."""
    apart = self.config.single_stages == 'late' and stage == MULTIMODAL
    return self.config.names if apart and self.config.ensemble else ()

  def _samples(
    self, batch: Batch, valid: Bool[Array, ' b'], stage: str, train: bool
  ) -> Predictions:
    """Predictions of a stage whose unit is the sample."""
    config, rows = self.config, jnp.arange(valid.shape[0], dtype=jnp.int32)
    names = config.names if stage == MULTIMODAL else (stage,)
    encoded = {}
    if config.deep != 'none':
      attend_over = config.attend_over if stage == MULTIMODAL else 'summary'
      encoded = {
        name: self.encoders[name](batch[name], valid, train=train, attend_over=attend_over)
        for name in names
      }
    deep, present = None, jnp.ones(valid.shape[0], bool)
    if stage != MULTIMODAL:
      present = config.modality(stage).present(batch[stage], valid.shape[0])
    if encoded and stage == MULTIMODAL:
      deep = self.fusion(encoded, train=train)
    elif encoded:
      deep = encoded[stage].summary
    if not config.ensemble:
      assert deep is not None
      return of_decoder(self._decode(stage, deep, valid & present, train), rows, present)
    read = {name: batch[name] for name in names}
    if train and len(names) > 1 and config.fusion.modality_dropout:
      read = self._with_modality_dropout(read, valid.shape[0])
    chunks = {name: self.chunks[name](read[name], valid.shape[0]) for name in names}
    heads, parts = self._heads_and_parts(stage, chunks, deep, valid & present, train)
    if not train:  # they have no loss in this stage
      for name in self._apart(stage):
        summary = encoded[name].summary if encoded else None
        parts.append(self._single(name, chunks[name], summary, batch, valid))
    stacked = jnp.stack(parts)
    # In training with omitted parts, this output is not used.
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
    """Outputs of the trunk of a stage, and of its deep network."""
    vectors = None
    if deep is not None and self.config.deep == 'chunks':
      # Every modality and pair in the multimodal head's input is a separate vector.
      width = self.config.fusion.width if stage == MULTIMODAL else deep.shape[1]
      vectors = deep.reshape(mask.shape[0], -1, width)
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
    """The prediction of one modality's stage; the prior in rows without the modality."""
    present = self.config.modality(name).present(batch[name], valid.shape[0])
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
    """Hides modalities at random; a row that would lose all of them keeps them."""
    of = self.config.modality
    present = jnp.stack([of(name).present(read[name], rows) for name in read])
    keep = 1 - self.config.fusion.modality_dropout
    kept = present & jax.random.bernoulli(self.make_rng('dropout'), keep, present.shape)
    kept |= ~jnp.any(kept, axis=0, keepdims=True)
    return {
      name: of(name).hidden(arrays, row)
      for (name, arrays), row in zip(read.items(), kept, strict=True)
    }

  def _units(
    self, batch: Batch, valid: Bool[Array, ' b'], stage: Stage, train: bool
  ) -> Predictions:
    """Predictions of a stage whose units are parts of samples."""
    assert stage.modality is not None and stage.part is not None
    modality, decoder = self.config.modality(stage.modality), self.decoders[stage.name]
    vectors, owner, present = modality.units(
      self.encoders[stage.modality], stage.part, batch[stage.modality], valid, train=train
    )
    if isinstance(decoder, OutputLayer):
      return of_decoder(decoder(vectors), owner, present)
    logits = self._decode(stage.name, vectors, valid[owner] & present, train)
    return of_decoder(logits, owner, present)
