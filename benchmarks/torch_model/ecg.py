"""ECG encoder over real recordings and one placeholder for each row without any."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from benchmarks.torch_model.blocks import ResNet1d, mlp
from benchmarks.torch_model.encoders import Tensors
from benchmarks.torch_model.fusion import Encoded, MultimodalFusion, of_summary
from medm2t_jax.models.ecg import EcgConfig


class EcgEncoder(nn.Module):
  """Three views of a recording fused, then recordings over time."""

  center: torch.Tensor
  scale: torch.Tensor
  time_cuts: torch.Tensor

  def __init__(self, config: EcgConfig, fitted: Mapping[str, Mapping[str, np.ndarray]]):
    super().__init__()
    self.config = config
    features = fitted['features_view']
    self.register_buffer('center', torch.tensor(features['measurement_center']))
    self.register_buffer('scale', torch.tensor(features['measurement_scale']))
    self.register_buffer('time_cuts', torch.tensor(fitted['time']['time_cuts']))
    self.signal_resnet = ResNet1d(
      12, config.samples, config.signal_plan, config.signal_kernel, config.resnet_dropout
    )
    channels, length = config.signal_plan[-1]
    self.signal_mlp = mlp(channels * length, [config.signal_mlp], config.signal_dropout)
    self.signal_token = nn.Linear(channels, config.signal_mlp)
    self.features_mlp = mlp(
      config.measurements, [config.features_mlp], config.features_dropout
    )
    self.term_table = nn.Parameter(torch.randn(config.terms, config.text_width))
    self.text_mlp = mlp(config.text_width, config.text_mlp, config.text_dropout)
    widths = {
      'signal': config.signal_mlp,
      'features': config.features_mlp,
      'text': config.text_mlp[-1],
    }
    self.fusion = MultimodalFusion(widths, config.fusion)
    self.recording_mlp = mlp(
      6 * config.fusion.width, [config.recording], config.recording_dropout
    )
    self.time_resnet = ResNet1d(
      config.recording,
      config.windows,
      config.time_plan,
      config.time_kernel,
      config.resnet_dropout,
    )
    channels, length = config.time_plan[-1]
    self.time_mlp = mlp(channels * length, [config.time_mlp], config.time_dropout)
    self.time_token = nn.Linear(config.recording, config.time_mlp)

  def forward(self, ecg: Tensors, rows: int, tokens: bool = True) -> Encoded:
    """Encodes recordings of `rows` samples; `real` is False for placeholders."""
    vectors, windows = self.recordings(ecg), self.config.windows
    window = torch.searchsorted(self.time_cuts, ecg['time'])
    real = ecg['real']
    place = (ecg['owner'].long() * windows + window)[real]
    total = vectors.new_zeros(rows * windows, vectors.shape[1])
    total = total.index_add(0, place, vectors[real])
    count = torch.bincount(place, minlength=rows * windows)
    mean = (total / count.clamp(min=1)[:, None]).view(rows, windows, -1)
    seen = (count > 0).view(rows, windows)
    x = self.time_resnet(mean.transpose(1, 2)).transpose(1, 2)
    summary, present = self.time_mlp(x.flatten(1)), seen.any(dim=1)
    if not tokens:
      return of_summary(summary, present)
    return Encoded(self.time_token(mean), seen, summary, present)

  def recordings(self, ecg: Tensors) -> torch.Tensor:
    """One vector per recording (m e)."""
    views = {
      'signal': self.signal(ecg),
      'features': self.features(ecg),
      'text': self.text(ecg),
    }
    return self.recording_mlp(self.fusion(views))

  def signal(self, ecg: Tensors, tokens: bool = True) -> Encoded:
    start = (ecg['signal'].shape[1] - self.config.samples) // 2
    crop = ecg['signal'][:, start : start + self.config.samples]
    x = crop.float() / ecg['gain'][:, None, None]
    x = self.signal_resnet(x.transpose(1, 2)).transpose(1, 2)
    summary = self.signal_mlp(x.flatten(1))
    if not tokens:
      return of_summary(summary, ecg['real'])
    mask = ecg['real'][:, None].expand(x.shape[:2])
    return Encoded(self.signal_token(x), mask, summary, ecg['real'])

  def features(self, ecg: Tensors) -> Encoded:
    observed = ecg['measurements_mask']
    scaled = (ecg['measurements'] - self.center) / self.scale * observed
    return of_summary(self.features_mlp(scaled), ecg['real'] & observed.any(dim=1))

  def text(self, ecg: Tensors) -> Encoded:
    reported = ecg['terms'].float()
    count = reported.sum(dim=1, keepdim=True)
    mean = reported @ self.term_table / count.clamp(min=1)
    return of_summary(self.text_mlp(mean), ecg['real'] & (count[:, 0] > 0))
