"""Parses text results of laboratory tests: limits, ranges, categories, void samples.

MIMIC-IV keeps many results as text in `value` or `comments`: '<0.01', 'LESS THAN
0.25.', '>600*', '3-5', 'NEG.', the range of the estimated GFR, or the reason why
a sample was void. The rules are in tables/*.csv; tests compare them with every
string that was published with MedM2T.
"""

from __future__ import annotations

import dataclasses
import functools
import re

from data_pipeline.format.schema import Item
from data_pipeline.sources.common.items import read_rows

_EGFR = '50920'
# A number is read whole or not at all: text with digits after a comma, colon or slash, or
# with an exponent, has another form, and commas mean different things in different
# countries.
_NUMBER = r'([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?![.,:/]?[0-9])(?!E)'
# Text that may follow: the unit of urine sediment, the mark of a result that was phoned in
# or is abnormal, a full stop, and, after two spaces, a remark.
_END = r'(?:\s*/HPF)?\s*[*#]?\.?(?:\s\s.*)?$'
_LIMIT = re.compile(rf'(<=?|>=?|LESS THAN|GREATER THAN)\s*{_NUMBER}{_END}', re.DOTALL)
_PTT_LIMIT = re.compile(rf'UNABLE TO REPORT[.,]?\s*A?PTT\s*(<|IS LESS THAN)\s*{_NUMBER}')
_RANGE = re.compile(rf'{_NUMBER}\s*-\s*{_NUMBER}{_END}', re.DOTALL)
_PLAIN = re.compile(rf'(-?){_NUMBER}{_END}', re.DOTALL)
_EGFR_BETWEEN = re.compile(rf'BETWEEN\s+{_NUMBER}\s+AND\s+{_NUMBER}')
_EGFR_VALUE = re.compile(rf'(?:GFR\s*=\s*|LIKELY\s*)[<>]?=?\s*{_NUMBER}\s+(?:IF|ML/)')


@dataclasses.dataclass(frozen=True)
class Result:
  """A parsed text: exactly one of the three is set.

  Attributes:
    reason: why there is no result: 'voided by comment', 'unlisted category' or 'unreadable
      text'.
    number: the value of a numeric item, or of a categorical one written as digits.
    category: index into the item's categories.
  """

  reason: str | None = None
  number: float | None = None
  category: int | None = None


def is_void(itemid: int | str, comments: str | None) -> bool:
  """Whether a comment voids the result of the raw `itemid`."""
  text = ' '.join(_normalise(comments).split())
  return any(
    phrase in text and (not of or str(itemid) in of) for phrase, of in _void_phrases()
  )


def parse(item: Item, itemid: int | str, value: str | None, comments: str | None) -> Result:
  """Parses a result without a numeric value.

  Args:
    item: the merged item.
    itemid: the raw itemid.
    value: column `value` of labevents or chartevents.
    comments: column `comments` of labevents.
  """
  texts = [text for text in map(_normalise, (value, comments)) if text]
  for text in texts:
    limit = _PTT_LIMIT.match(text)
    if limit:  # the only limit that is reported as 'unable to report'
      return Result(number=_beyond('<', limit[2]))
  if is_void(itemid, comments) or is_void(itemid, value):
    return Result(reason='voided by comment')
  if item.itemid == _EGFR:
    for text in texts:
      number = _egfr(text)
      if number is not None:
        return Result(number=number)
  for text in texts:
    if item.kind == 'categorical':
      category = _category(item, text)
      if category is not None:
        return Result(category=category)
    number = number_in(text)
    if number is not None:
      return Result(number=number)
  categorical = item.kind == 'categorical'
  return Result(reason='unlisted category' if categorical else 'unreadable text')


def number_in(text: str) -> float | None:
  """The number in a text: plain, a limit, or the mean of a range; else None.

  A limit is read as one unit of its last decimal place beyond it, as in the published
  mapping: '<5' is 4, '<0.01' is 0.009, '>600' is 601.
  """
  limit = _LIMIT.match(text)
  if limit:
    return _beyond(limit[1], limit[2])
  between = _RANGE.match(text)
  if between:
    return (float(between[1]) + float(between[2])) / 2
  plain = _PLAIN.match(text)
  return float(plain[1] + plain[2]) if plain else None


def _beyond(sign: str, number: str) -> float:
  number = re.sub(r'\.0*$', '', number)
  places = len(number.partition('.')[2])
  limit, step = float(number), 10.0**-places
  if sign in ('<=', '>='):
    return limit
  if sign in ('>', 'GREATER THAN'):
    return round(limit + step, places)
  below = round(limit - step, places)
  return below if below > 0 else round(limit - step / 10, places + 1)


def _egfr(text: str) -> float | None:
  """Estimated GFR: the mean of the range, or of the values given ('>75' is 75)."""
  between = _EGFR_BETWEEN.search(text)
  if between:
    return (float(between[1]) + float(between[2])) / 2
  values = [float(number) for number in _EGFR_VALUE.findall(text)]
  return sum(values) / len(values) if values else None


def _category(item: Item, text: str) -> int | None:
  text = text.split('.  ')[0].rstrip(' .*')
  text = _spellings().get((item.itemid, text), text)
  return item.categories.index(text) if text in item.categories else None


def _normalise(text: str | None) -> str:
  text = (text or '').strip().upper()
  return '' if set(text) <= {'_', ' ', '.'} else re.sub(r' {3,}', '  ', text)


@functools.cache
def _void_phrases() -> tuple[tuple[str, frozenset[str]], ...]:
  return tuple(
    (row['phrase'], frozenset(filter(None, row['items'].split('|'))))
    for row in read_rows('voided_comments')
  )


@functools.cache
def _spellings() -> dict[tuple[str, str], str]:
  rows = read_rows('text_categories')
  return {(row['item'], row['text']): row['category'] for row in rows}
