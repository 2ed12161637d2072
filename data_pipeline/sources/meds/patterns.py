"""Converts codes of a mapping file to regular expressions for whole codes."""

from __future__ import annotations

import re
from typing import Any

from data_pipeline.sources.common.units import unit_key
from data_pipeline.sources.meds.checked_yaml import EntryError
from data_pipeline.sources.meds.variables import Codes

_PLACEHOLDERS = {
  'category': r'(?P<category>(?:(?!//).)+)',
  'unit': r'(?P<unit>(?:(?!//).)*)',
  'itemid': r'(?P<itemid>\d+)',
}


def codes_of(where: str, entry: str | dict[str, Any], groups: tuple[str, ...]) -> Codes:
  """One entry of a list of codes.

  Args:
    where: of the entry, for messages.
    entry: a code with `*` and placeholders, or a mapping.
    groups: the placeholders that are allowed.

  Raises:
    EntryError: the entry does not have exactly one of code and regex, or has keys that
      contradict it.
  """
  fields: dict[str, Any] = {'code': entry} if isinstance(entry, str) else entry
  if ('code' in fields) == ('regex' in fields):
    raise EntryError(f'{where}: an entry of codes must have either code or regex')
  try:
    pattern = re.compile(
      fields['regex'] if 'regex' in fields else _expression(where, fields['code'])
    )
  except re.error as error:
    raise EntryError(f'{where}: {fields["regex"]}: {error}') from None
  found = pattern.groupindex
  for group in found:
    if group not in groups:
      allowed = ', '.join(f'{{{name}}}' for name in groups) or 'none'
      raise EntryError(f'{where}: {{{group}}} has no meaning here; {allowed} has')
  scaled = 'scale' in fields or 'offset' in fields
  if scaled and ('unit' in found or 'unit' in fields):
    raise EntryError(f'{where}: scale and offset are not allowed for a code with a unit')
  if 'category' in fields and ('category' in found or 'category' not in groups):
    raise EntryError(
      f'{where}: the code already has the category, or the item does not have it'
    )
  return Codes(
    pattern,
    fields.get('scale', 1.0),
    fields.get('offset', 0.0),
    unit_key(fields.get('unit', '')),
    fields.get('category', ''),
  )


def _expression(where: str, code: str) -> str:
  """The regular expression of a code with `*` and {placeholders}."""
  parts = re.split(r'(\*|\{\w+\})', code)
  result = ''
  for part in parts:
    if part == '*':
      result += '.*'
    elif re.fullmatch(r'\{\w+\}', part):
      if part[1:-1] not in _PLACEHOLDERS:
        raise EntryError(
          f'{where}: {part} is not a placeholder; known: '
          f'{", ".join(f"{{{name}}}" for name in _PLACEHOLDERS)}'
        )
      result += _PLACEHOLDERS[part[1:-1]]
    else:
      result += re.escape(part)
  return result


def itemid_codes(where: str, entries: list[Any]) -> tuple[Codes, ...]:
  """Codes that contain the itemid of MIMIC-IV.

  Raises:
    EntryError: a code has no itemid.
  """
  found = tuple(codes_of(where, entry, ('itemid', 'unit')) for entry in entries)
  if any('itemid' not in one.pattern.groupindex for one in found):
    raise EntryError(f'{where}: codes of mimic_iv need the placeholder {{itemid}}')
  return found
