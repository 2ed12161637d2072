"""All stages of the model, as `medm2t_jax.models.medm2t.MedM2T` has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from benchmarks.torch_model.blocks import Decoder
from benchmarks.torch_model.ecg import EcgEncoder
from benchmarks.torch_model.encoders import EventEncoder, GridEncoder, StaticEncoder
from benchmarks.torch_model.fusion import Encoded, MultimodalFusion
from medm2t_jax.models.config import ModelConfig
from medm2t_jax.models.medm2t import segment_stage


class TorchMedM2T(nn.Module):
  """The parts that one stage uses.

  Attributes of `config` that are options of ours keep the value that the paper has.
  """

  def __init__(
    self,
    config: ModelConfig,
    fitted: Mapping[str, Any],
    stage: str,
    attend_over: Literal['tokens', 'summary'] = 'tokens',
  ):
    """Args: sizes; our `fitted` collection; stage; what Bi-Modal Attention reads."""
    super().__init__()
    self.stage = stage
    self.encoders = nn.ModuleDict()
    widths: dict[str, int] = {}
    uses = lambda name: stage == 'multimodal' or stage.startswith(name)
    statistics = lambda name: fitted[f'encoders_{name}']
    decoder: dict[str, tuple[int, float]] = {}
    if config.static and uses('static'):
      self.encoders['static'] = StaticEncoder(config.static, statistics('static'))
      widths['static'] = config.static.mlp[-1]
      decoder['static'] = (config.static.decoder, config.static.decoder_dropout)
    for name, events in config.events:
      if stage in ('multimodal', name):
        self.encoders[name] = EventEncoder(events, statistics(name))
        widths[name] = events.width
        decoder[name] = (events.decoder, events.decoder_dropout)
    for name, grid in config.grids:
      if stage == 'multimodal' or stage == name or stage.startswith(f'{name}_segments'):
        self.encoders[name] = GridEncoder(grid, statistics(name))
        widths[name] = grid.mlp
        decoder[name] = (grid.decoder, grid.decoder_dropout)
        for micro in grid.micro:
          of_segment = segment_stage(name, micro.length)
          widths[of_segment] = micro.mlp
          decoder[of_segment] = (micro.decoder, grid.decoder_dropout)
    if config.ecg and uses('ecg'):
      ecg = config.ecg
      self.encoders['ecg'] = EcgEncoder(ecg, statistics('ecg'))
      widths['ecg'] = ecg.time_mlp
      hidden = dict(ecg.decoders)
      decoder['ecg'] = (hidden['time'], ecg.time_decoder_dropout)
      for view, width in (
        ('signal', ecg.signal_mlp),
        ('features', ecg.features_mlp),
        ('text', ecg.text_mlp[-1]),
      ):
        widths[f'ecg_{view}'] = width
        decoder[f'ecg_{view}'] = (hidden[view], ecg.view_decoder_dropout)
    if stage == 'multimodal':
      modalities = {name: widths[name] for name in config.modalities}
      self.fusion = MultimodalFusion(modalities, config.fusion, attend_over)
      count = len(modalities)
      width = config.fusion.width * (count + count * (count - 1) // 2)
      self.decoder = Decoder(width, width // 2, config.outputs, config.decoder_dropout)
    elif stage == 'ecg_fusion':
      assert config.ecg
      self.decoder = nn.Linear(config.ecg.recording, config.outputs)
    else:
      hidden_width, dropout = decoder[stage]
      self.decoder = Decoder(widths[stage], hidden_width, config.outputs, dropout)

  def forward(self, batch: Mapping[str, Any]) -> torch.Tensor:
    """Logits of the stage's units: rows, recordings or segments (u c)."""
    stage, encoders = self.stage, self.encoders
    if stage == 'multimodal':
      encoded = {name: self._encode(name, batch, tokens=True) for name in encoders}
      return self.decoder(self.fusion(encoded))
    if stage.startswith('ecg_'):
      return self.decoder(self._recordings(batch['ecg']))
    if '_segments_' in stage:
      name, length = stage.split('_segments_')
      grid = encoders[name]
      assert isinstance(grid, GridEncoder)
      return self.decoder(grid.segments(batch[name], int(length)).flatten(0, 1))
    return self.decoder(self._encode(stage, batch, tokens=False).summary)

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
    """The row of each unit, whose label it takes (u)."""
    rows = torch.arange(len(batch['label']))
    if self.stage.startswith('ecg_'):
      return batch['ecg']['owner'].long()
    if '_segments_' in self.stage:
      name = self.stage.split('_segments_')[0]
      grid = self.encoders[name]
      assert isinstance(grid, GridEncoder)
      return rows.repeat_interleave(grid.config.segments)
    return rows
