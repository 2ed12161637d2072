"""What a mapping says: which codes become which items, and how values are read."""

from __future__ import annotations

import collections.abc
import dataclasses
import re

from data_pipeline.format.schema import Item


@dataclasses.dataclass(frozen=True)
class Codes:
  """Codes that are read in one way.

  Attributes:
    pattern: matches the whole code; the groups `unit`, `category` and `itemid`, where
      it has them, take these from the code.
    scale: value in the item's unit = numeric_value * scale + offset.
    offset: likewise.
    unit: key of the unit where the code names none ('': the item's own unit).
    category: what the code itself says, for a categorical item.
    itemid: of MIMIC-IV: matches only codes with this itemid, whose texts have rules
      of their own.
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
    codes: the codes that it is read from.
    units: unit key -> (scale, offset) to the item's unit, for codes that name a unit.
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
  """Every code that matches and that `min_subjects` subjects have becomes an item."""

  codes: tuple[Codes, ...]
  min_subjects: int


@dataclasses.dataclass(frozen=True)
class Events:
  """An event modality.

  Attributes:
    variables: listed items.
    automatic: further items, found in the data.
    charted: codes of MIMIC-IV's heart rhythm and ectopy, which pair two rows and are
      read by that source; then there are no other items.
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
  """A column of the data that has the unit of each row.

  Attributes:
    name: of the column.
    prefix: left out where a unit begins with it.
    spellings: what the column says for a unit -> the unit.
  """

  name: str
  prefix: str = ''
  spellings: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Mapping:
  """A mapping file.

  Attributes:
    observation_hours: what may be read before the prediction time; None: everything.
    birth: code of the birth date; then there is a static column, the age.
    age: its itemid.
    events: event modality -> what it reads.
    grids: grid modality -> what it reads.
    static: columns of the last value known at the prediction time.
    attributes: subgroup attribute -> codes that say its value.
    unit_column: where the codes do not name the units.
  """

  observation_hours: float | None
  birth: str | None
  age: str
  events: dict[str, Events]
  grids: dict[str, Grid]
  static: tuple[Variable, ...]
  attributes: dict[str, tuple[Codes, ...]]
  unit_column: UnitColumn | None = None
