"""Codes that a caller may use, and a synthetic request with some of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from data_pipeline.format.items import Item
from data_pipeline.format.schema import Schema
from data_pipeline.sources.meds.patients.items import own_code
from data_pipeline.sources.meds.variables import Mapping as CodeMapping
from data_pipeline.sources.meds.variables import Variable
from medm2t_jax.serving.requests import static_columns

_PREDICTION = '2150-03-02T10:00:00Z'
_EVENTS = 6  # in the example
_GROUP = re.compile(r'\(\?P<(\w+)>(?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)')
_FLAGS = re.compile(r'\(\?i:([^()]*)\)')

Codes = Mapping[tuple[str, str], tuple[str, ...]]


def request_codes(
  schema: Schema, mapping: CodeMapping | None, unread: Collection[str]
) -> Codes:
  """(modality, code of a variable) -> event codes that become this variable.

  The last one is the model's own code. Codes of the mapping include the unit if the mapping
  does; patterns that no plain code matches are left out.

  Args:
    schema: of the model.
    mapping: of the service.
    unread: modalities that a request cannot contain.
  """
  found: dict[tuple[str, str], tuple[str, ...]] = {}
  listed = dict(_variables(mapping)) if mapping else {}
  for name, modality in schema.modalities.items():
    if name in unread or modality.layout == 'packed':  # recordings are not rows
      continue
    for item in modality.variables:
      key = name, item.itemid
      of_mapping = _spellings(listed[key], item) if key in listed else ()
      found[key] = (*dict.fromkeys(of_mapping), own_code(name, item))
  return found


def example(schema: Schema, codes: Codes) -> dict[str, Any]:
  """A synthetic request that the model can answer, without data of any patient.

  Args:
    schema: of the model.
    codes: from `request_codes`.
  """
  events, columns = [], static_columns(schema)
  items = {
    (name, item.itemid): item for name in schema.names for item in schema.variables(name)
  }
  for key, (code, *_) in codes.items():
    if len(events) < _EVENTS and key[1] not in columns:
      row = {'code': code, 'time': f'2150-03-02T{9 - len(events):02d}:30:00Z'}
      events.append(row | _value(items[key]))
  static = {
    code: next(iter(_value(item).values()))
    for (_, code), item in items.items()
    if code in columns
  }
  patient = {'id': 'example', 'prediction_time': _PREDICTION, 'events': events}
  return {'patients': [{**patient, 'static': static}]}


def shown_limits(fields: Mapping[str, Any]) -> dict[str, Any]:
  """The options that a caller has to know."""
  return {name: value for name, value in fields.items() if name.startswith('max_')}


def _variables(mapping: CodeMapping) -> Iterator[tuple[tuple[str, str], Variable]]:
  for name, of in (*mapping.events.items(), *mapping.grids.items()):
    for variable in of.variables:
      yield (name, variable.item.itemid), variable


def _spellings(variable: Variable, item: Item) -> Iterator[str]:
  for codes in variable.codes:
    values = {'itemid': codes.itemid, 'unit': item.unit or 'UNK'}
    text = _filled(codes.pattern.pattern, values)
    text = _FLAGS.sub(r'\1', text).replace('//?', '//')
    text = re.sub(r'\\(.)', r'\1', text)
    if '{' not in text and codes.pattern.fullmatch(text):
      yield text


def _filled(pattern: str, values: Mapping[str, str]) -> str:
  """The pattern with its groups replaced by values; other groups keep their braces."""
  return _GROUP.sub(lambda group: values.get(group[1], '{'), pattern)


def _value(item: Item) -> dict[str, Any]:
  """A number inside the limits of a variable, or a category."""
  if item.categories:
    return {'text_value': item.categories[0]}
  low = 0.0 if item.low is None else item.low
  high = low + 100.0 if item.high is None else item.high
  return {'numeric_value': round(min(high, low + 0.25 * (high - low)), 2)}
