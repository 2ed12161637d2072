"""All stages of the model, as in `medm2t_jax.models.medm2t.MedM2T`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.torch_model import columns
from benchmarks.torch_model.blocks import Decoder
from benchmarks.torch_model.ecg import EcgEncoder
from benchmarks.torch_model.encoders import GridEncoder, StaticEncoder
from benchmarks.torch_model.events import EventEncoder
from benchmarks.torch_model.fusion import Encoded, MultimodalFusion, kept_at_random
from benchmarks.torch_model.trunk import (
  Chunks,
  EnsembleTrunk,
  LateAddition,
  ensemble_mean,
  log_probabilities,
)
from medm2t_jax.models.config import ModelConfig
from medm2t_jax.models.ecg import VIEWS, EcgConfig
from medm2t_jax.models.events.events_config import EventsConfig
from medm2t_jax.models.hierarchical_fusion import GridConfig
from medm2t_jax.models.modality import Stage
from medm2t_jax.models.static_encoder import StaticConfig


class Predictions(NamedTuple):
  """Logits of units (u c); outputs of the deep network (u c), of the members (u k c).

  `members` is None if a stage has no ensemble: `logits` are then those of the deep network,
  as they are in training, where they are not used.
  """

  logits: torch.Tensor
  deep: torch.Tensor
  members: torch.Tensor | None


class Head(nn.Module):
  """Decoder of a stage; with columns also an ensemble trunk, added late."""

  offset: torch.Tensor

  def __init__(
    self,
    decoder: nn.Module,
    stage: str,
    columns: int,
    config: ModelConfig,
    fitted: Mapping[str, Any],
  ):
    super().__init__()
    of_decoder = fitted[f'decoders_{stage}']
    offset = of_decoder.get('output', of_decoder)['offset']
    self.register_buffer('offset', torch.tensor(offset))
    self.decoder, self.trunk = decoder, None
    if columns:
      assert config.ensemble
      offset = fitted[f'trunks_{stage}']['offset']
      self.trunk = EnsembleTrunk(config.ensemble, columns, offset)
      self.addition = LateAddition(fitted[f'additions_{stage}'])

  def forward(
    self,
    vectors: torch.Tensor,
    chunks: torch.Tensor | None = None,
    others: Sequence[torch.Tensor] = (),
  ) -> Predictions:
    """Predicts from encoder vectors, chunks and the predictions of other stages."""
    deep = self.decoder(vectors) + self.offset
    if self.trunk is None:
      return Predictions(deep, deep, None)
    members = self.trunk(chunks)
    if self.training:
      return Predictions(deep, deep, members)
    parts = [ensemble_mean(members), log_probabilities(deep), *others]
    return Predictions(self.addition(parts), deep, members)


class TorchMedM2T(nn.Module):
  """The parts of one stage; options have the values of the configs."""

  def __init__(self, config: ModelConfig, fitted: Mapping[str, Any], stage: str):
    """Builds the parts of a stage; `fitted` is our collection of the same name."""
    super().__init__()
    assert config.deep == config.single_stages == 'late'
    self.stage = stage
    self.encoders = nn.ModuleDict()
    widths: dict[str, int] = {}
    read = config.stages[stage].modality
    uses = lambda name: read in (None, name)
    statistics = lambda name: fitted[f'encoders_{name}']
    decoder: dict[str, tuple[int, float]] = {}
    for each in config.modalities:
      if not uses(each.name):
        continue
      name, sizes = each.name, each.config
      for of_part in (*each.parts, None):
        size = each.decoder(of_part)
        decoder[Stage(name, of_part).name] = (size.hidden or 0, size.dropout)
      if isinstance(sizes, StaticConfig):
        self.encoders[name] = StaticEncoder(sizes, statistics(name))
        widths[name] = sizes.mlp[-1]
      elif isinstance(sizes, EventsConfig):
        self.encoders[name] = EventEncoder(sizes, statistics(name))
        widths[name] = sizes.width
      elif isinstance(sizes, GridConfig):
        self.encoders[name] = GridEncoder(sizes, statistics(name))
        widths[name] = sizes.mlp
        lengths = zip(each.parts, sizes.micro, strict=True)
        widths |= {Stage(name, part).name: micro.mlp for part, micro in lengths}
      else:
        assert isinstance(sizes, EcgConfig)
        self.encoders[name] = EcgEncoder(sizes, statistics(name))
        widths[name] = sizes.time_mlp
        of_views = (sizes.signal_mlp, sizes.features_mlp, sizes.text_mlp[-1])
        views = zip(VIEWS, of_views, strict=True)
        widths |= {Stage(name, view).name: width for view, width in views}
    if stage == 'multimodal':
      modalities = {name: widths[name] for name in config.names}
      self.fusion = MultimodalFusion(modalities, config.fusion)
      count = len(modalities)
      width = config.fusion.width * (count + count * (count - 1) // 2)
      last = Decoder(width, width // 2, config.outputs, config.decoder_dropout)
    elif stage == 'ecg_fusion':
      last = nn.Linear(config.modality('ecg').config.recording, config.outputs)
    else:
      last = Decoder(widths[stage], decoder[stage][0], config.outputs, decoder[stage][1])
    names = config.names if stage == 'multimodal' else (stage,)
    kinds = {name: kind for name, kind in config.columns if name in names}
    self.counts = {name: kind.count for name, kind in kinds.items()}
    self.head = Head(last, stage, sum(self.counts.values()), config, fitted)
    self.singles = nn.ModuleDict()
    if kinds:
      self.modality_dropout = config.fusion.modality_dropout
      self.columns = nn.ModuleDict(
        {name: columns.of_kind(kind) for name, kind in kinds.items()}
      )
      self.chunks = Chunks([fitted[f'chunks_{name}'] for name in kinds])
    if stage == 'multimodal':
      for name, (hidden_width, dropout) in decoder.items():
        if name in self.counts:
          last = Decoder(widths[name], hidden_width, config.outputs, dropout)
          self.singles[name] = Head(last, name, self.counts[name], config, fitted)
      self.singles.requires_grad_(False)

  def forward(self, batch: Mapping[str, Any]) -> Predictions:
    """Predictions of the stage's units: rows, recordings or segments."""
    stage, encoders = self.stage, self.encoders
    if stage == 'multimodal':
      encoded = {name: self._encode(name, batch, tokens=True) for name in encoders}
      chunks = self.chunks(self._columns(batch))
      others = [] if self.training else self._singles(encoded, chunks, batch)
      return self.head(self.fusion(encoded), chunks, others)
    if stage.startswith('ecg_'):
      return self.head(self._recordings(batch['ecg']))
    if '_segments_' in stage:
      name, length = stage.split('_segments_')
      grid = encoders[name]
      assert isinstance(grid, GridEncoder)
      return self.head(grid.segments(batch[name], int(length)).flatten(0, 1))
    summary = self._encode(stage, batch, tokens=False).summary
    return self.head(summary, self.chunks(self._columns(batch)))

  def _singles(
    self, encoded: Mapping[str, Encoded], chunks: torch.Tensor, batch: Mapping[str, Any]
  ) -> list[torch.Tensor]:
    """The predictions of each modality's stage; the prior in rows without the modality."""
    rows, found = len(chunks), []
    of_each = chunks.split(list(self.counts.values()), dim=1)
    heads = dict[str, Any](self.singles.items())
    kinds = dict[str, Any](self.columns.items())
    for name, own in zip(self.counts, of_each, strict=True):
      present = kinds[name].present(batch[name], rows)[:, None]
      logits = heads[name](encoded[name].summary, own).logits
      found.append(torch.where(present, logits, heads[name].addition.offset))
    return found

  def _columns(self, batch: Mapping[str, Any]) -> columns.Columns:
    rows, kinds = len(batch['label']), dict[str, Any](self.columns.items())
    read = {name: batch[name] for name in kinds}
    if self.training and len(read) > 1 and self.modality_dropout:
      present = {name: kinds[name].present(read[name], rows) for name in read}
      kept = kept_at_random(present, self.modality_dropout)
      read = {name: kinds[name].hidden(read[name], kept[name]) for name in read}
    return columns.beside([kinds[name](read[name], rows) for name in read])

  def _encode(self, name: str, batch: Mapping[str, Any], tokens: bool) -> Encoded:
    encoder = self.encoders[name]
    if name == 'ecg':
      return encoder(batch[name], len(batch['label']), tokens)
    return encoder(batch[name], tokens)

  def _recordings(self, ecg: Mapping[str, torch.Tensor]) -> torch.Tensor:
    encoder = self.encoders['ecg']
    assert isinstance(encoder, EcgEncoder)
    if self.stage == 'ecg_fusion':
      return encoder.recordings(ecg)
    if self.stage == 'ecg_signal':
      return encoder.signal(ecg, tokens=False).summary
    view = encoder.features(ecg) if self.stage == 'ecg_features' else encoder.text(ecg)
    return view.summary

  def owners(self, batch: Mapping[str, Any]) -> torch.Tensor:
    """The row of each unit, whose label it has (u)."""
    rows = torch.arange(len(batch['label']), device=batch['label'].device)
    if self.stage.startswith('ecg_'):
      return batch['ecg']['owner'].long()
    if '_segments_' in self.stage:
      name = self.stage.split('_segments_')[0]
      grid = self.encoders[name]
      assert isinstance(grid, GridEncoder)
      return rows.repeat_interleave(grid.config.segments)
    return rows
