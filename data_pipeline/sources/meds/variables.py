"""The content of a mapping: codes of items, and how their values are read."""

from __future__ import annotations

import collections.abc
import dataclasses
import re

from data_pipeline.format.schema import Item


@dataclasses.dataclass(frozen=True)
class Codes:
  """Codes that are read in the same way.

  Attributes:
    pattern: matches the whole code; its groups `unit`, `category` and `itemid`, if it has
      them, take these from the code.
    scale: value in the item's unit = numeric_value * scale + offset.
    offset: see `scale`.
    unit: key of the unit if the code has none ('': the item's own unit).
    category: defined by the code itself, for a categorical item.
    itemid: of MIMIC-IV: matches only codes with this itemid, whose texts have their own
      rules.
  """

  pattern: re.Pattern[str]
  scale: float = 1.0
  offset: float = 0.0
  unit: str = ''
  category: str = ''
  itemid: str = ''


@dataclasses.dataclass(frozen=True)
class Repair:
  """Values in [low, high] typed on another scale: repaired = value * scale + offset."""

  low: float
  high: float
  scale: float
  offset: float
  reason: str


@dataclasses.dataclass(frozen=True)
class Variable:
  """An item and how its values are read.

  Attributes:
    item: of the schema.
    codes: that it is read from.
    units: unit key -> (scale, offset) to the item's unit, for codes with a unit.
    texts: spelling in upper case -> category.
    numbers: (low, high, category): low <= number < high, for a categorical item.
    repairs: of values in the item's unit.
  """

  item: Item
  codes: tuple[Codes, ...]
  units: collections.abc.Mapping[str, tuple[float, float]] = dataclasses.field(
    default_factory=dict
  )
  texts: dict[str, str] = dataclasses.field(default_factory=dict)
  numbers: tuple[tuple[float, float, str], ...] = ()
  repairs: tuple[Repair, ...] = ()


@dataclasses.dataclass(frozen=True)
class Automatic:
  """Makes an item of every matching code that `min_subjects` subjects have."""

  codes: tuple[Codes, ...]
  min_subjects: int


@dataclasses.dataclass(frozen=True)
class Events:
  """An event modality.

  Attributes:
    variables: listed items.
    automatic: further items, found in the data.
    charted: codes of MIMIC-IV's heart rhythm and ectopy, which pair two rows and are read
      by that source; there are then no other items.
  """

  variables: tuple[Variable, ...] = ()
  automatic: Automatic | None = None
  charted: tuple[Codes, ...] = ()


@dataclasses.dataclass(frozen=True)
class Grid:
  """A grid modality; its last cell ends at the prediction time."""

  variables: tuple[Variable, ...]
  steps: int
  step_hours: float


@dataclasses.dataclass(frozen=True)
class UnitColumn:
  """A column of the data with the unit of each row.

  Attributes:
    name: of the column.
    prefix: removed if a unit begins with it.
    spellings: value of the column -> unit.
  """

  name: str
  prefix: str = ''
  spellings: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Mapping:
  """A mapping file.

  Attributes:
    observation_hours: length of the observation window; None: the whole history.
    birth: code of the birth date; adds a static column, the age.
    age: its itemid.
    events: event modality -> its content.
    grids: grid modality -> its content.
    static: columns with the last value known at the prediction time.
    attributes: subgroup attribute -> codes with its value.
    unit_column: column of units, if the codes have none.
  """

  observation_hours: float | None
  birth: str | None
  age: str
  events: dict[str, Events]
  grids: dict[str, Grid]
  static: tuple[Variable, ...]
  attributes: dict[str, tuple[Codes, ...]]
  unit_column: UnitColumn | None = None
