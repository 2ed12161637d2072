"""The variables of this source (`variables.csv`, `repairs.csv`) as items."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from data_pipeline.format.schema import Item
from data_pipeline.sources.common.items import read_rows

Role = Literal['static', 'event', 'both']


@dataclasses.dataclass(frozen=True)
class Variable:
  """One variable of the record files.

  Attributes:
    item: its name in the files, unit, limits, and the names of its categories.
    codes: value in the files for each category.
    role: a static column (known at 00:00), an event, or both.
    on_grid: whether it is also a signal of the grid.
  """

  item: Item
  codes: tuple[float, ...]
  role: Role
  on_grid: bool


@dataclasses.dataclass(frozen=True)
class Repair:
  """Values of `variable` inside [low, high] become value * scale + offset."""

  variable: str
  low: float
  high: float
  scale: float
  offset: float
  reason: str


@functools.cache
def variables() -> tuple[Variable, ...]:
  """All variables, in model order."""
  return tuple(_variable(row) for row in _rows('variables'))


@functools.cache
def repairs() -> tuple[Repair, ...]:
  """The repairs of implausible values, from `repairs.csv`."""
  return tuple(
    Repair(
      variable=row['variable'],
      low=float(row['low']),
      high=float(row['high']),
      scale=float(row['scale']),
      offset=float(row['offset']),
      reason=row['reason'],
    )
    for row in _rows('repairs')
  )


def event_items() -> tuple[Item, ...]:
  """Items of the modality `events`."""
  return tuple(one.item for one in variables() if one.role != 'static')


def grid_items() -> tuple[Item, ...]:
  """Signals of the modality `vitals`."""
  return tuple(one.item for one in variables() if one.on_grid)


def static_items(kind: Literal['numeric', 'categorical']) -> tuple[Item, ...]:
  """Static columns of a kind."""
  static = (one.item for one in variables() if one.role != 'event')
  return tuple(item for item in static if item.kind == kind)


def _rows(name: str) -> tuple[Mapping[str, str], ...]:
  return read_rows(name, Path(__file__).parent)


def _variable(row: Mapping[str, str]) -> Variable:
  pairs = [pair.split('=') for pair in row['categories'].split('|') if pair]
  role: Role = row['role']  # pyright: ignore[reportAssignmentType]
  return Variable(
    Item(
      itemid=row['variable'],
      name=row['name'],
      unit=row['unit'],
      categories=tuple(name for _, name in pairs),
      low=float(row['low']) if row['low'] else None,
      high=float(row['high']) if row['high'] else None,
    ),
    codes=tuple(float(code) for code, _ in pairs),
    role=role,
    on_grid=bool(row['grid']),
  )
