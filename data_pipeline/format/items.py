"""One variable of a modality, and the error for all bad input."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal


class ShownError(Exception):
  """Its message says what is wrong and what to do: a command shows it as one line."""


class DataError(ShownError):
  """Bad input. The message names the file, row or key, and the remedy."""


@dataclasses.dataclass(frozen=True)
class Item:
  """One variable of a modality.

  Attributes:
    itemid: the source's own code, for example '50813' (MIMIC-IV) or 'HR'.
    name: a readable label.
    unit: physical unit after conversion, '' if there is none.
    categories: the known categories; empty for a numeric item.
    low: physiologic lower limit; smaller values count as missing. None: no limit.
    high: physiologic upper limit; larger values count as missing. None: no limit.
  """

  itemid: str
  name: str
  unit: str = ''
  categories: tuple[str, ...] = ()
  low: float | None = None
  high: float | None = None

  @property
  def kind(self) -> Literal['numeric', 'categorical']:
    """'categorical' if the item has categories, else 'numeric'."""
    return 'categorical' if self.categories else 'numeric'

  @classmethod
  def from_json(cls, row: Mapping[str, Any]) -> Item:
    """Inverse of `dataclasses.asdict`."""
    return cls(**{**row, 'categories': tuple(row['categories'])})
