"""Codes of a mapping as a caller writes them, and an invented request with some of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from data_pipeline.format.items import Item
from data_pipeline.format.schema import Schema
from data_pipeline.sources.meds.variables import Mapping as CodeMapping
from data_pipeline.sources.meds.variables import Variable
from medm2t_jax.serving.requests import static_columns

_PREDICTION = '2150-03-02T10:00:00Z'
_EVENTS = 6  # of the example
_GROUP = re.compile(r'\(\?P<(\w+)>(?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)')
_FLAGS = re.compile(r'\(\?i:([^()]*)\)')


def request_codes(
  schema: Schema, mapping: CodeMapping
) -> dict[tuple[str, str], tuple[str, ...]]:
  """(modality, code of a variable) -> codes of events that become it.

  A code has `{unit}` or `{category}` where it may say one; one that is a regular
  expression of its own is told as that.

  Args:
    schema: of the model.
    mapping: of the service.
  """
  return {
    (name, variable.item.itemid): tuple(dict.fromkeys(_spellings(variable)))
    for name, variable in _variables(mapping)
    if name in schema.names
  }


def example(schema: Schema, mapping: CodeMapping) -> dict[str, Any]:
  """A request that the model answers; nobody's data are in it.

  Args:
    schema: of the model.
    mapping: of the service.
  """
  events = []
  known = {
    (name, item.itemid): item for name in schema.names for item in schema.variables(name)
  }
  for name, variable in _variables(mapping):
    item = known.get((name, variable.item.itemid))
    code = item and _code(variable, item)
    if item is not None and code and len(events) < _EVENTS:
      hour = 9 - len(events)
      row = {'code': code, 'time': f'2150-03-02T{hour:02d}:30:00Z'}
      if mapping.unit_column is not None and item.unit:
        row['unit'] = item.unit
      value = item.categories[0] if item.categories else _between(item)
      events.append(row | {'text_value' if item.categories else 'numeric_value': value})
  static = {
    item.itemid: item.categories[0] if item.categories else _between(item)
    for name in schema.names
    for item in schema.variables(name)
    if item.itemid in static_columns(schema)
  }
  patient = {'id': 'example', 'prediction_time': _PREDICTION, 'events': events}
  return {'patients': [{**patient, 'static': static}]}


def _variables(mapping: CodeMapping) -> Iterator[tuple[str, Variable]]:
  for name, events in mapping.events.items():
    yield from ((name, variable) for variable in events.variables)
  for name, grid in mapping.grids.items():
    yield from ((name, variable) for variable in grid.variables)


def _spellings(variable: Variable) -> Iterator[str]:
  for codes in variable.codes:
    yield _plain(codes.pattern, {'itemid': codes.itemid})


def _plain(pattern: re.Pattern[str], values: Mapping[str, str]) -> str:
  """A pattern with its groups filled in, or in braces."""
  text = _GROUP.sub(
    lambda found: values.get(found[1]) or f'{{{found[1]}}}', pattern.pattern
  )
  text = _FLAGS.sub(r'\1', text).replace('//?', '//')
  return re.sub(r'\\(.)', r'\1', text)


def _code(variable: Variable, item: Item) -> str | None:
  """A code that becomes the variable, in its own unit."""
  for codes in variable.codes:
    values = {'itemid': codes.itemid, 'unit': item.unit or 'UNK'}
    text = _plain(codes.pattern, values)
    if not codes.category and '{' not in text and codes.pattern.fullmatch(text):
      return text
  return None


def _between(item: Item) -> float:
  """A number inside the limits of a variable."""
  low = 0.0 if item.low is None else item.low
  high = low + 100.0 if item.high is None else item.high
  return round(min(high, low + 0.25 * (high - low)), 2)


def shown_limits(fields: Mapping[str, Any]) -> dict[str, Any]:
  """Options that a caller has to know."""
  return {name: value for name, value in fields.items() if name.startswith('max_')}
