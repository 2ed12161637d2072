"""Encoder of events: statistics of every item in every window, then MLP."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.torch_model.blocks import mlp
from benchmarks.torch_model.fusion import Encoded, of_summary
from medm2t_jax.models.events.event_statistics import FRESH_HOURS, RATES, STATISTICS
from medm2t_jax.models.events.events_config import NUM_BINS, EventsConfig


class EventEncoder(nn.Module):
  """Item statistics, the mean of the windows concatenated with the last one, MLP.

  All items and categories of a batch are known. Letters: b rows, m events of all rows, w
  windows, j items, i value ids, e width.
  """

  knots: torch.Tensor
  inverse: torch.Tensor
  event_mean: torch.Tensor
  time_cuts: torch.Tensor
  ends: torch.Tensor
  first_ids: torch.Tensor
  numeric: torch.Tensor
  item_of_id: torch.Tensor
  component: torch.Tensor
  categorical_id: torch.Tensor
  low: torch.Tensor
  per_width: torch.Tensor
  mean: torch.Tensor

  def __init__(self, config: EventsConfig, fitted: Mapping[str, np.ndarray]):
    super().__init__()
    self.shape = (config.windows, len(config.categories))
    self.input_dropout = config.input_dropout
    item = config.item_of_id[:-1]
    self.value_ids = len(item)
    categorical = np.array(config.categories)[item] > 0
    component = np.arange(len(item)) - config.first_ids[item]
    knots = torch.tensor(fitted['knots'])
    piece = np.where(categorical, 0, component)
    width = torch.diff(knots)
    inverse = torch.where(width > 0, 1 / width, 0.0)
    mean = torch.tensor(fitted['encoding_mean'])
    buffers = {
      'knots': knots,
      'inverse': inverse,
      'event_mean': mean,
      'time_cuts': torch.tensor(fitted['time_cuts']),
      'ends': functional.pad(torch.tensor(fitted['time_cuts']), (0, 1)),
      'first_ids': torch.tensor(config.first_ids).long(),
      'numeric': torch.tensor(config.categories) == 0,
      'item_of_id': torch.tensor(item).long(),
      'component': torch.tensor(component).float(),
      'categorical_id': torch.tensor(categorical),
      'low': knots[item, piece],
      'per_width': inverse[item, piece],
      'mean': mean[item, piece],
    }
    for name, value in buffers.items():
      self.register_buffer(name, value)
    small = lambda *shape: nn.Parameter(0.02 * torch.randn(*shape, config.width))
    self.statistic_table = small(len(STATISTICS), self.value_ids)
    self.rate_table = small(len(RATES), len(config.categories))
    self.norm = nn.LayerNorm(config.width, eps=1e-6)
    self.window_dropout = nn.Dropout(config.window_dropout)
    self.mlp = mlp(2 * config.width, [config.width, config.width], config.dropout)
    self.token_linear = nn.Linear(config.width, config.width)

  def forward(self, events: Mapping[str, torch.Tensor], tokens: bool = True) -> Encoded:
    windows, seen = self.windows(events)
    share = seen / seen.sum(dim=1, keepdim=True).clamp(min=1)
    mean = torch.bmm(share[:, None], windows)[:, 0]
    summary = self.mlp(torch.cat([mean, windows[:, -1]], dim=1))
    present = seen[:, -1]
    if not tokens:
      return of_summary(summary, present)
    return Encoded(self.token_linear(windows), seen, summary, present)

  def windows(
    self, events: Mapping[str, torch.Tensor]
  ) -> tuple[torch.Tensor, torch.Tensor]:
    """Window vectors (b w e), and whether a window has seen anything (b w)."""
    values, rates, seen = self.statistics(events)
    if self.training and self.input_dropout:
      each = len(STATISTICS) + len(RATES)
      ones = values.new_ones(len(values), 1, each, rates.shape[-1])
      kept = functional.dropout(ones, self.input_dropout)
      values = values * kept[:, :, : len(STATISTICS), self.item_of_id]
      rates = rates * kept[:, :, len(STATISTICS) :]
    x = values.flatten(2) @ self.statistic_table.flatten(0, 1)
    x = x + rates.flatten(2) @ self.rate_table.flatten(0, 1)
    return self.window_dropout(self.norm(x)), seen

  @torch.no_grad()
  def statistics(
    self, events: Mapping[str, torch.Tensor]
  ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Statistics per value id (b w 5 i), rates per item (b w 3 j), windows seen (b w)."""
    mask = events['mask']
    rows, (windows, items) = len(mask), self.shape
    row = mask.nonzero()[:, 0]
    item, category = events['item'][mask].long(), events['category'][mask]
    time, numeric = events['time'][mask], self.numeric[item]
    value = torch.where(numeric, events['value'][mask], category.float())
    window = row * windows + torch.searchsorted(self.time_cuts, time)
    place = window * items + item
    spread = lambda x: x.view(rows, windows, items)

    def extreme(x: torch.Tensor, at: torch.Tensor, how: str) -> torch.Tensor:
      start = x.new_full((rows * windows * items,), np.inf if how == 'amin' else -np.inf)
      return start.scatter_reduce_(0, at, x, how)

    counts = spread(torch.bincount(place, minlength=rows * windows * items)).float()
    so_far = counts.cumsum(dim=1)
    known, inside = so_far > 0, counts > 0
    encodings = self._encodings(window, item, value, numeric, rows)

    latest = extreme(time, place, 'amax')
    is_last = time == latest[place]
    last = spread(extreme(value[is_last], place[is_last], 'amax'))
    step = torch.arange(windows, device=mask.device)[None, :, None]
    recent = torch.where(inside, step, 0).cummax(dim=1).values
    last = last.gather(1, recent)
    age = self.ends[None, :, None] - spread(latest).gather(1, recent)
    fresh = torch.where(known, torch.exp(-age / FRESH_HOURS), 0.0)

    highest = spread(extreme(value, place, 'amax')).cummax(dim=1).values
    lowest = spread(extreme(value, place, 'amin')).cummin(dim=1).values
    of_ids = lambda x: x.index_select(-1, self.item_of_id)
    per_item = lambda total, count: total / of_ids(count.clamp(min=1))
    values = [
      per_item(encodings.cumsum(dim=1), so_far),
      per_item(encodings, counts),
      *(self._encode(x, known) for x in (last, highest, lowest)),
    ]
    rates = [torch.log1p(so_far), torch.log1p(counts), fresh]
    seen = known.any(dim=2)
    return torch.stack(values, dim=2), torch.stack(rates, dim=2), seen

  def _encodings(
    self,
    window: torch.Tensor,
    item: torch.Tensor,
    value: torch.Tensor,
    numeric: torch.Tensor,
    rows: int,
  ) -> torch.Tensor:
    """Sum of the encodings of the events of each window (b w i)."""
    first = window * self.value_ids + self.first_ids[item]
    of_number = item[numeric]
    knots = self.knots[of_number]
    filled = (value[numeric][:, None] - knots[:, :-1]) * self.inverse[of_number]
    filled = filled.clamp(0, 1) - self.event_mean[of_number]
    place = first[numeric][:, None] + torch.arange(NUM_BINS, device=value.device)
    total = filled.new_zeros(rows * self.shape[0] * self.value_ids)
    total.index_add_(0, place.flatten(), filled.flatten())
    text = (first + value.long())[~numeric]
    total.index_add_(0, text, total.new_ones(len(text)))
    return total.view(rows, self.shape[0], self.value_ids)

  def _encode(self, value: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """The encoding of one value per item (b w i); 0 if unknown."""
    value = torch.where(known, value, 0.0).index_select(-1, self.item_of_id)
    filled = ((value - self.low) * self.per_width).clamp(0, 1) - self.mean
    code = torch.where(self.categorical_id, (value == self.component).float(), filled)
    return torch.where(known.index_select(-1, self.item_of_id), code, 0.0)
