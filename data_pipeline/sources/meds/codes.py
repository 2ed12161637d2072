"""Assigns the codes of a data set to items, one decision per distinct code.

Patterns are matched in Python against the few distinct codes, so that DuckDB joins
the many rows only by equality.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal

import pyarrow as pa

from data_pipeline.format.schema import DataError, Item
from data_pipeline.sources.common import results
from data_pipeline.sources.common.items import make_table
from data_pipeline.sources.common.raw_tables import RawTables
from data_pipeline.sources.common.units import unit_key
from data_pipeline.sources.meds.variables import Automatic, Codes, Variable

# Whether two items may use the same code.
TwoItems = Literal['refused', 'allowed']

# Text that the MIMIC-IV conversion writes for a null unit.
_NO_UNIT = 'UNK'
RECORDED = 'recorded'
# Separates a code from the unit that a column of the data has for its rows.
UNIT_SEPARATOR = '\x1f'


@dataclasses.dataclass(frozen=True)
class Reading:
  """How the rows of one code are read.

  Attributes:
    code: the code.
    index: of the variable.
    scale: to the item's unit.
    offset: to the item's unit.
    category: index into the item's categories if the code defines it, else None.
    reason: why no row of this code can be used, or None.
    itemid: of MIMIC-IV, or ''.
  """

  code: str
  index: int
  scale: float = 1.0
  offset: float = 0.0
  category: int | None = None
  reason: str | None = None
  itemid: str = ''


def match(codes: tuple[Codes, ...], code: str) -> tuple[Codes, re.Match[str]] | None:
  """The first entry that matches a code."""
  bare, _, _ = code.partition(UNIT_SEPARATOR)
  for one in codes:
    found = one.pattern.fullmatch(bare)
    if found:
      return one, found
  return None


def readings(
  where: str,
  variables: Sequence[Variable],
  distinct: Sequence[str],
  *,
  two_items: TwoItems = 'refused',
) -> tuple[Reading, ...]:
  """How each code of a variable is read, sorted by code.

  Args:
    where: the modality, for messages.
    variables: of one modality.
    distinct: the codes of the data set, with the unit after `UNIT_SEPARATOR` if a column
      has it.
    two_items: whether two items may use the same code.

  Raises:
    DataError: two items claim one code, and this is not allowed.
  """
  # Grouped by pattern, because many items of one table share it.
  wanted: dict[re.Pattern[str], dict[str, list[tuple[int, Codes]]]] = {}
  for index, variable in enumerate(variables):
    for one in variable.codes:
      of = wanted.setdefault(one.pattern, {})
      of.setdefault(one.itemid, []).append((index, one))
  result = []
  for code in distinct:
    claimed: dict[int, Reading] = {}
    bare, of_column, unit = code.partition(UNIT_SEPARATOR)
    for pattern, by_itemid in wanted.items():
      found = pattern.fullmatch(bare)
      if not found:
        continue
      groups = found.groupdict() | ({'unit': unit} if of_column else {})
      for index, one in by_itemid.get(groups.get('itemid') or '', ()):
        # Only the first matching entry of an item counts.
        if index not in claimed:
          claimed[index] = _reading(code, index, variables[index], one, groups)
    if len(claimed) > 1 and two_items == 'refused':
      names = ' and '.join(variables[index].item.itemid for index in claimed)
      raise DataError(
        f'mapping: the code {bare} belongs to two items of {where}: {names}. '
        'Make the codes of one of them more specific.'
      )
    result.extend(claimed.values())
  return tuple(result)


def automatic_variables(
  raw: RawTables, automatic: Automatic, taken: set[str], distinct: Sequence[str]
) -> tuple[Variable, ...]:
  """One item for every matching code that enough subjects have, sorted by code.

  All subjects of the data set count, regardless of labels and times, because the list of
  items belongs to the schema. A code with numbers becomes a numeric item, counted by
  subjects with a number; a code without numbers becomes a categorical item whose only
  category is that it was recorded.

  Args:
    raw: with the views `data` and `code_names`.
    automatic: of the mapping.
    taken: codes of the modality's listed items.
    distinct: the codes of the data set.
  """
  candidates = [c for c in distinct if c not in taken and match(automatic.codes, c)]
  make_table(raw.con, 'candidates', {'code': pa.string()}, [(c,) for c in candidates])
  rows = raw.run(f"""
    SELECT code, name, numbers > 0 FROM (
      SELECT code, count(DISTINCT subject_id) AS subjects,
        count(DISTINCT subject_id) FILTER (isfinite(numeric_value)) AS numbers
      FROM data JOIN candidates USING (code)
      WHERE subject_id IS NOT NULL AND time IS NOT NULL GROUP BY code
    ) LEFT JOIN code_names USING (code)
    WHERE CASE WHEN numbers > 0 THEN numbers ELSE subjects END >= {automatic.min_subjects}
    ORDER BY code
  """).fetchall()
  return tuple(
    Variable(
      Item(code, name or code, categories=() if has_numbers else (RECORDED,)),
      (Codes(re.compile(re.escape(code)), category='' if has_numbers else RECORDED),),
      texts={} if has_numbers else {RECORDED.upper(): RECORDED},
    )
    for code, name, has_numbers in rows
  )


def parse_text(variable: Variable, reading: Reading, text: str) -> results.Result:
  """Parses a row that has text but no number: '<0.01', '3-5', 'NEG'."""
  if reading.itemid:
    return results.parse(variable.item, reading.itemid, text, None)
  if variable.item.kind == 'categorical':
    category = _category(variable, text)
    if category is not None:
      return results.Result(category=category)
  number = results.number_in(text.strip().upper())
  if number is not None:
    return results.Result(number=number)
  categorical = variable.item.categories
  return results.Result(reason='unlisted category' if categorical else 'unreadable text')


def _reading(
  code: str,
  index: int,
  variable: Variable,
  one: Codes,
  groups: dict[str, str | None],
) -> Reading:
  said = one.category or groups.get('category')
  if said:
    category = _category(variable, said)
    reason = 'unlisted category' if category is None else None
    return Reading(code, index, category=category, reason=reason)
  if variable.item.categories:
    return Reading(code, index, itemid=one.itemid)
  if 'unit' not in groups and not one.unit:
    return Reading(code, index, one.scale, one.offset, itemid=one.itemid)
  named = groups.get('unit') or ''
  key = '' if named == _NO_UNIT else unit_key(named)
  conversion = variable.units.get(key or one.unit) if key or one.unit else (1.0, 0.0)
  if conversion is None:
    return Reading(code, index, reason='unknown unit', itemid=one.itemid)
  return Reading(code, index, *conversion, itemid=one.itemid)


def _category(variable: Variable, text: str) -> int | None:
  name = variable.texts.get(text.strip().upper())
  return None if name is None else variable.item.categories.index(name)
