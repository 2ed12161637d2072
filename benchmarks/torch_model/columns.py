"""Summary statistics of the items of each modality; a sample's columns are a row.

Each class also determines which rows have its modality, and hides it in rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from medm2t_jax.models.trunk import columns as ours
from medm2t_jax.models.trunk.column_statistics import SEGMENT_STEPS

Tensors = Mapping[str, torch.Tensor]


class Columns(NamedTuple):
  """Values (b n), 0 if unknown, and whether they are known (b n)."""

  value: torch.Tensor
  known: torch.Tensor


class EventColumns(nn.Module):
  """Nine statistics per numeric item; last category, counts and hours of the others."""

  levels: torch.Tensor
  numeric_place: torch.Tensor
  text_place: torch.Tensor
  first_level: torch.Tensor
  item_of_level: torch.Tensor
  level: torch.Tensor
  order: torch.Tensor

  def __init__(self, kind: ours.EventColumns):
    super().__init__()
    levels = np.array(kind.categories)
    of_text = levels[levels > 0]
    self.numbers, self.texts = int((levels == 0).sum()), len(of_text)
    self.total = int(levels.sum())
    first = np.cumsum(of_text) - of_text
    item_of_level = np.repeat(np.arange(self.texts), of_text)
    order = []
    for index, count in enumerate(of_text):
      for place in range(first[index], first[index] + count):
        order += [place, self.total + place]
      order.append(2 * self.total + index)
    for name, array in {
      'levels': levels,
      'numeric_place': np.cumsum(levels == 0) - 1,
      'text_place': np.cumsum(levels > 0) - 1,
      'first_level': first,
      'item_of_level': item_of_level,
      'level': np.arange(self.total) - first[item_of_level],
      'order': np.array(order, int),
    }.items():
      self.register_buffer(name, torch.from_numpy(array).long())

  def forward(self, events: Tensors, rows: int) -> Columns:
    mask = events['mask']
    row = mask.nonzero()[:, 0]
    item, category = events['item'][mask].long(), events['category'][mask].long()
    value, time, levels = events['value'][mask], events['time'][mask], self.levels[item]
    parts = []
    if self.numbers:
      one = (category < 0) & (levels == 0)
      place = row[one] * self.numbers + self.numeric_place[item[one]]
      found = numeric_statistics(place, value[one], time[one], rows * self.numbers)
      parts.append(Columns(*(x.view(rows, -1) for x in found)))
    if self.texts:
      one = (category >= 0) & (category < levels)
      parts.append(self._text(row[one], item[one], category[one], time[one], rows))
    return beside(parts)

  def _text(self, row, item, category, time, rows: int) -> Columns:
    text = self.text_place[item]
    level = row * self.total + self.first_level[text] + category
    count = torch.bincount(level, minlength=rows * self.total).view(rows, -1)
    place = row * self.texts + text
    end = _extreme(time, place, rows * self.texts, 'amax')
    is_last = time == end[place]
    last = _extreme(category[is_last].float(), place[is_last], len(end), 'amax')
    was_last = last.view(rows, -1)[:, self.item_of_level] == self.level
    end = end.view(rows, -1)
    known = end.isfinite()
    hours = torch.where(known, -end, 0.0)
    value = torch.cat([was_last.float(), count.float(), hours], dim=1)
    known = functional.pad(known, (2 * self.total, 0), value=True)
    return Columns(value[:, self.order], known[:, self.order])

  def present(self, events: Tensors, rows: int) -> torch.Tensor:
    del rows
    return events['mask'].any(dim=1)

  def hidden(self, events: Tensors, kept: torch.Tensor) -> Tensors:
    return {**events, 'mask': events['mask'] & kept[:, None]}


class GridColumns(nn.Module):
  """Nine statistics per signal, and its spread inside segments."""

  def __init__(self, kind: ours.GridColumns):
    super().__init__()
    self.step_hours = kind.step_hours

  def forward(self, grid: Tensors, rows: int) -> Columns:
    observed = grid['observed']
    value = torch.where(observed, grid['value'], 0.0)
    steps, weight = observed.shape[1], observed.float()
    step = torch.arange(steps, device=value.device)
    time = ((step + 0.5 - steps) * self.step_hours)[None, :, None]
    count = weight.sum(dim=1)
    known, some = count > 0, count.clamp(min=1)
    mean, mean_time = value.sum(dim=1) / some, (weight * time).sum(dim=1) / some
    deviation = (value - mean[:, None]) * weight
    since = (time - mean_time[:, None]) * weight

    # argmax returns the first of equal values.
    begin = weight.argmax(dim=1)
    end = steps - 1 - weight.flip(1).argmax(dim=1)
    at = lambda step: value.gather(1, step[:, None])[:, 0]
    several = known & (end > begin)
    spread = torch.where(several, (since * since).sum(dim=1), 1.0)
    statistics = [
      at(begin),
      at(end),
      torch.where(observed, value, torch.inf).amin(dim=1),
      torch.where(observed, value, -torch.inf).amax(dim=1),
      mean,
      (deviation * deviation).sum(dim=1) / some,
      (since * deviation).sum(dim=1) / spread,
      count,
      (steps - 0.5 - end) * self.step_hours,
      *_spread(value, weight),
    ]
    inside = statistics.pop() > 0
    flags = _flags(known, several)
    flags = torch.cat([flags, inside[..., None]], dim=-1)
    value = torch.where(flags, torch.stack(statistics, dim=-1), 0.0)
    return Columns(value.view(rows, -1), flags.view(rows, -1))

  def present(self, grid: Tensors, rows: int) -> torch.Tensor:
    del rows
    return grid['observed'].flatten(1).any(dim=1)

  def hidden(self, grid: Tensors, kept: torch.Tensor) -> Tensors:
    return {**grid, 'observed': grid['observed'] & kept[:, None, None]}


class EcgColumns(nn.Module):
  """Last value and mean of each measurement, reported terms, recordings, hours."""

  def __init__(self, kind: ours.EcgColumns):
    super().__init__()
    del kind

  def forward(self, ecg: Tensors, rows: int) -> Columns:
    real = ecg['real']
    owner, time = ecg['owner'][real].long(), ecg['time'][real]
    measured, value = ecg['measurements_mask'][real], ecg['measurements'][real]
    total = lambda x: x.new_zeros(rows, x.shape[1]).index_add_(0, owner, x)
    count, summed = total(measured.float()), total(torch.where(measured, value, 0.0))
    when = torch.where(measured, time[:, None], -torch.inf)
    end = self._last(when, owner, rows)
    is_last = measured & (when == end[owner])
    last = self._last(torch.where(is_last, value, -torch.inf), owner, rows)
    known = (count > 0)[..., None].expand(-1, -1, 2)
    of_machine = torch.stack([last, summed / count.clamp(min=1)], dim=-1)
    of_machine = torch.where(known, of_machine, 0.0)

    reported = (total((ecg['terms'][real] > 0).float()) > 0).float()
    recordings = torch.bincount(owner, minlength=rows)[:, None].float()
    hours = torch.where(recordings > 0, -self._last(time[:, None], owner, rows), 0.0)
    always = known.new_ones(rows, reported.shape[1] + 1)
    return Columns(
      torch.cat([of_machine.flatten(1), reported, recordings, hours], dim=1),
      torch.cat([known.flatten(1), always, recordings > 0], dim=1),
    )

  def _last(self, x: torch.Tensor, owner: torch.Tensor, rows: int) -> torch.Tensor:
    """Largest value of each row (b f)."""
    start = x.new_full((rows, x.shape[1]), -torch.inf)
    return start.scatter_reduce_(0, owner[:, None].expand_as(x), x, 'amax')

  def present(self, ecg: Tensors, rows: int) -> torch.Tensor:
    return torch.bincount(ecg['owner'][ecg['real']].long(), minlength=rows) > 0

  def hidden(self, ecg: Tensors, kept: torch.Tensor) -> Tensors:
    return {**ecg, 'real': ecg['real'] & kept[ecg['owner'].long()]}


class StaticColumns(nn.Module):
  """Numbers unchanged, categories one-hot."""

  levels: torch.Tensor
  column: torch.Tensor

  def __init__(self, kind: ours.StaticColumns):
    super().__init__()
    levels = np.array(kind.levels, int)
    column = np.repeat(np.arange(len(levels)), levels)
    first = np.cumsum(levels) - levels
    self.register_buffer('column', torch.from_numpy(column))
    self.register_buffer(
      'levels', torch.from_numpy(np.arange(levels.sum()) - first[column])
    )

  def forward(self, static: Tensors, rows: int) -> Columns:
    del rows
    known = static['numeric_mask']
    level = static['categorical'][:, self.column]
    value = torch.where(known, static['numeric'], 0.0)
    return beside(
      [Columns(value, known), Columns((level == self.levels).float(), level >= 0)]
    )

  def present(self, static: Tensors, rows: int) -> torch.Tensor:
    del rows
    return static['numeric_mask'].any(dim=1) | (static['categorical'] >= 0).any(dim=1)

  def hidden(self, static: Tensors, kept: torch.Tensor) -> Tensors:
    level = static['categorical']
    return {
      **static,
      'numeric_mask': static['numeric_mask'] & kept[:, None],
      'categorical': torch.where(kept[:, None], level, -1),
    }


Kind = EventColumns | GridColumns | EcgColumns | StaticColumns

_KINDS: dict[type, type] = {
  ours.EventColumns: EventColumns,
  ours.GridColumns: GridColumns,
  ours.EcgColumns: EcgColumns,
  ours.StaticColumns: StaticColumns,
}


def of_kind(kind: ours.ColumnKind) -> Kind:
  """The columns of a modality, as our config has them."""
  return _KINDS[type(kind)](kind)


def beside(parts: list[Columns]) -> Columns:
  """Columns side by side."""
  return Columns(*(torch.cat(each, dim=1) for each in zip(*parts, strict=True)))


def numeric_statistics(
  place: torch.Tensor, value: torch.Tensor, time: torch.Tensor, size: int
) -> Columns:
  """Nine statistics (size 9) of observations by their place, below `size`."""
  sums = value.new_zeros(size, 2).index_add_(0, place, torch.stack([value, time], dim=1))
  count = torch.bincount(place, minlength=size).float()
  known, some = count > 0, count.clamp(min=1)
  mean, mean_time = (sums / some[:, None]).unbind(dim=1)
  extreme = lambda x, how: _extreme(x, place, size, how)
  begin, end = extreme(time, 'amin'), extreme(time, 'amax')
  at_begin, at_end = time == begin[place], time == end[place]
  several = known & (end > begin)
  deviation, since = value - mean[place], time - mean_time[place]
  products = torch.stack([deviation**2, since * deviation, since**2], dim=1)
  squares, slope, spread = value.new_zeros(size, 3).index_add_(0, place, products).unbind(1)
  statistics = [
    _extreme(value[at_begin], place[at_begin], size, 'amin'),
    _extreme(value[at_end], place[at_end], size, 'amax'),
    extreme(value, 'amin'),
    extreme(value, 'amax'),
    mean,
    squares / some,
    slope / torch.where(several, spread, 1.0),
    count,
    -end,
  ]
  flags = _flags(known, several)
  return Columns(torch.where(flags, torch.stack(statistics, dim=1), 0.0), flags)


def _flags(known: torch.Tensor, several: torch.Tensor) -> torch.Tensor:
  """Which of the nine statistics are known: a slope needs several times, a count none."""
  return torch.stack([known] * 6 + [several, torch.ones_like(known), known], dim=-1)


def _extreme(x: torch.Tensor, place: torch.Tensor, size: int, how: str) -> torch.Tensor:
  start = x.new_full((size,), torch.inf if how == 'amin' else -torch.inf)
  return start.scatter_reduce_(0, place, x, how)


def _spread(value: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
  """Standard deviation inside segments of 12 steps, and its degrees of freedom (b v)."""
  steps = SEGMENT_STEPS
  pad = (0, 0, -value.shape[1] % steps, 0)
  cut = lambda x: functional.pad(x, pad).unflatten(1, (-1, steps))
  value, weight = cut(value), cut(weight)
  count = weight.sum(dim=2)
  mean = value.sum(dim=2) / count.clamp(min=1)
  deviation = (value - mean[:, :, None]) * weight
  free = (count - 1).clamp(min=0).sum(dim=1)
  return ((deviation**2).sum(dim=(1, 2)) / free.clamp(min=1)).sqrt(), free
