"""Converts rows of mapped codes to values in item units, or to the reason for none.

The only place that converts numbers, texts and codes to values: the preparation uses it
for scanned rows, the service for the rows of a request.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from data_pipeline.sources.common.results import Result
from data_pipeline.sources.meds.codes import Reading, parse_text
from data_pipeline.sources.meds.variables import Variable

_CONVERTED = 'repaired: unit converted'
_TEXTS_KEPT = 1 << 14  # size of the cache of parsed texts


@dataclasses.dataclass(frozen=True)
class Values:
  """The values of rows; a row whose code two items use appears twice. Letter: v values.

  Attributes:
    row: index among the given rows, int64 (v,), ascending.
    item: index of the variable, int32 (v,).
    value: in the item's unit, float64 (v,); NaN for a category, and if there is none.
    category: int32 (v,); -1 for a number, and if there is none.
    reason: object (v,): why the value cannot be used, for example 'dropped: no value', or
      ''.
    repair: object (v,): a change, for example 'repaired: unit converted', or ''.
  """

  row: np.ndarray
  item: np.ndarray
  value: np.ndarray
  category: np.ndarray
  reason: np.ndarray
  repair: np.ndarray


class Interpreter:
  """Reads the rows of the codes of one modality."""

  def __init__(self, variables: Sequence[Variable], readings: Sequence[Reading]):
    """Takes the `readings` of these variables; rows with other codes are ignored."""
    self._variables = variables
    self._readings = readings
    of_code: dict[str, list[int]] = {}
    for place, one in enumerate(readings):
      of_code.setdefault(one.code, []).append(place)
    self._of_code = {code: np.array(places) for code, places in of_code.items()}
    of = lambda name, kind: np.array([getattr(one, name) for one in readings], kind)
    self._item = of('index', np.int32)
    self._scale, self._offset = of('scale', np.float64), of('offset', np.float64)
    said = [-1 if one.category is None else one.category for one in readings]
    self._category = np.array(said, np.int32)
    self._unreadable = np.array(
      [f'dropped: {one.reason}' if one.reason else '' for one in readings], object
    )
    limits = [(one.item.low, one.item.high) for one in variables]
    self._low = np.array([-np.inf if low is None else low for low, _ in limits])
    self._high = np.array([np.inf if high is None else high for _, high in limits])
    self._is_category = np.array(
      [one.item.kind == 'categorical' for one in variables], bool
    )
    self._parse = functools.lru_cache(_TEXTS_KEPT)(self._parse_text)

  @property
  def codes(self) -> tuple[str, ...]:
    """The codes that it reads."""
    return tuple(self._of_code)

  def __call__(
    self,
    distinct: Sequence[str],
    place: np.ndarray,
    number: np.ndarray,
    text: np.ndarray,
  ) -> Values:
    """Converts rows.

    Args:
      distinct: codes.
      place: index of each row's code among them, int (n,).
      number: float64 (n,), NaN if there is none.
      text: object (n,), None if there is none; ignored in rows with a number.
    """
    nobody = np.zeros(0, np.int64)
    places = [self._of_code.get(code, nobody) for code in distinct]
    count = np.array([len(each) for each in places], np.int64)[place]
    first = np.cumsum([0, *map(len, places)])[:-1][place]
    row = np.repeat(np.arange(len(place)), count)
    # All readings of each row's code, in order.
    within = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    reading = np.concatenate([*places, nobody])[np.repeat(first, count) + within]
    item = self._item[reading]
    number = number[row]
    parsed_category = np.full(len(row), -1, np.int32)
    reason = np.full(len(row), '', object)
    is_text = np.isnan(number)
    has_value = ~is_text
    for each in np.flatnonzero(is_text):
      said: str | None = text[row[each]]  # pyright: ignore[reportAssignmentType]
      if said is None:
        continue
      has_value[each] = True
      result = self._parse(int(reading[each]), said)
      if result.reason is not None:
        reason[each] = f'dropped: {result.reason}'
      elif result.number is not None:
        number[each] = result.number
      elif result.category is not None:
        parsed_category[each] = result.category
    return self._judged(row, reading, item, number, parsed_category, has_value, reason)

  def _judged(
    self,
    row: np.ndarray,
    reading: np.ndarray,
    item: np.ndarray,
    number: np.ndarray,
    parsed_category: np.ndarray,
    has_value: np.ndarray,
    reason: np.ndarray,
  ) -> Values:
    """The values of numbers and categories, after units, repairs and limits."""
    is_category = self._is_category[item]
    in_unit = number * self._scale[reading] + self._offset[reading]
    value, repair = self._repaired(item, in_unit)
    converted = (self._scale[reading] != 1) | (self._offset[reading] != 0)
    repair[converted & (repair == '')] = _CONVERTED
    repair[is_category] = ''
    code_category = self._category[reading]
    category = np.where(code_category >= 0, code_category, parsed_category)
    category = np.where(category >= 0, category, self._of_numbers(item, number))
    category = np.where(is_category, category, -1).astype(np.int32)
    value[is_category] = np.nan

    # The first of several reasons counts.
    dropped = np.full(len(row), '', object)
    outside = ~is_category & ((value < self._low[item]) | (value > self._high[item]))
    dropped[outside] = 'dropped: outside physiologic limits'
    dropped[is_category & (category < 0)] = 'dropped: unlisted category'
    dropped[~has_value] = 'dropped: no value'
    dropped = np.where(reason == '', dropped, reason)
    dropped[code_category >= 0] = ''
    unreadable = self._unreadable[reading]
    dropped = np.where(unreadable == '', dropped, unreadable)
    return Values(row, item, value, category, dropped, repair)

  def _repaired(self, item: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values typed on another scale, converted to the item's; and what was repaired."""
    result, repair = value.copy(), np.full(len(item), '', object)
    for index in np.unique(item):
      for of in self._variables[index].repairs:
        inside = (item == index) & (value >= of.low) & (value <= of.high)
        result[inside] = value[inside] * of.scale + of.offset
        repair[inside] = f'repaired: {of.reason}'
    return result, repair

  def _of_numbers(self, item: np.ndarray, number: np.ndarray) -> np.ndarray:
    """The category that a number stands for, -1 if it stands for none."""
    result = np.full(len(item), -1, np.int32)
    for index in np.unique(item):
      variable = self._variables[index]
      for low, high, name in variable.numbers:
        inside = (item == index) & (number >= low) & (number < high)
        result[inside] = variable.item.categories.index(name)
    return result

  def _parse_text(self, reading: int, text: str) -> Result:
    one = self._readings[reading]
    return parse_text(self._variables[one.index], one, text)
