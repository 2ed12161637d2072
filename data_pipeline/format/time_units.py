"""The unit of time that suits an axis: hours, days or years."""

from __future__ import annotations

from typing import NamedTuple

_DAY = 24.0
_YEAR = 365.25 * _DAY


class Unit(NamedTuple):
  """Of an axis of time.

  Attributes:
    name: plural.
    symbol: behind a number.
    hours: how long one is.
  """

  name: str
  symbol: str
  hours: float


HOURS = Unit('hours', 'h', 1.0)
DAYS = Unit('days', 'days', _DAY)
YEARS = Unit('years', 'years', _YEAR)


def unit_of(extent: float) -> Unit:
  """The unit that suits an axis of so many hours."""
  if extent <= 4 * _DAY:
    return HOURS
  return DAYS if extent <= 120 * _DAY else YEARS
