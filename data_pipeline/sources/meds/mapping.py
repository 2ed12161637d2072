"""The mapping file: which MEDS codes become which variable (docs/sources.md, "MEDS").

The file is YAML, and is checked against mapping.schema.yaml before `load` reads it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from data_pipeline.format.schema import DataError, Item
from data_pipeline.sources.common.units import unit_key
from data_pipeline.sources.meds.mimic_items import mimic_variables
from data_pipeline.sources.meds.variables import (
  Automatic,
  Codes,
  Events,
  Grid,
  Mapping,
  Repair,
  Variable,
)

_T = TypeVar('_T')

FOLDER = Path(__file__).parent
_PLACEHOLDERS = {
  'category': r'(?P<category>(?:(?!//).)+)',
  'unit': r'(?P<unit>(?:(?!//).)*)',
  'itemid': r'(?P<itemid>\d+)',
}


def shipped() -> tuple[str, ...]:
  """Names of the mappings that come with this source."""
  found = (path.stem for path in FOLDER.glob('*.yaml'))
  return tuple(sorted(name for name in found if '.' not in name))


def path_of(mapping: str) -> Path:
  """The file of a shipped name or of a path.

  Raises:
    DataError: neither.
  """
  if mapping in shipped():
    return FOLDER / f'{mapping}.yaml'
  path = Path(mapping)
  if not path.is_file():
    raise DataError(
      f'--mapping={mapping}: neither a file nor a shipped mapping ({", ".join(shipped())}).'
    )
  return path


def load(path: Path) -> Mapping:
  """Reads and checks a mapping file.

  Raises:
    DataError: not YAML, an unknown or misplaced key, or entries that contradict each
      other; the message names the file and the entry.
  """
  try:
    fields = yaml.load(path.read_text(encoding='utf-8-sig'), _UniqueKeys)
  except UnicodeDecodeError:
    raise DataError(f'{path}: not UTF-8 text. Save it as UTF-8.') from None
  except yaml.YAMLError as error:
    raise DataError(f'{path}: not valid YAML: {error}') from None
  _check(fields, path)
  try:
    return _mapping(fields)
  except _EntryError as error:
    raise DataError(f'{path}: {error}') from None


class _EntryError(Exception):
  """An entry that contradicts another; `load` adds the file."""


class _UniqueKeys(yaml.SafeLoader):
  """SafeLoader takes the last of two equal keys without a word; this one refuses."""

  def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
    keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
    for key in keys:
      if keys.count(key) > 1:
        raise yaml.constructor.ConstructorError(
          None, None, f'the key {key!r} occurs twice', node.start_mark
        )
    return super().construct_mapping(node, deep)


def _check(fields: Any, path: Path) -> None:
  # Not at import: only this source needs it (extra `meds`).
  from jsonschema import Draft202012Validator
  from jsonschema.exceptions import best_match

  rules = yaml.safe_load((FOLDER / 'mapping.schema.yaml').read_text(encoding='utf-8'))
  error = best_match(Draft202012Validator(rules).iter_errors(fields))
  if error is not None:
    where = error.json_path.removeprefix('$').lstrip('.') or 'the file'
    raise DataError(
      f'{path}: {where}: {error.message}. Write text that looks like a number or a '
      'truth value in quotes; docs/sources.md lists the keys.'
    )


def _mapping(fields: dict[str, Any]) -> Mapping:
  hours = fields['observation_hours']
  events = {name: _events(name, of) for name, of in fields.get('events', {}).items()}
  grids = {name: _grid(name, of) for name, of in fields.get('grids', {}).items()}
  for name, grid in grids.items():
    if name in events:
      raise _EntryError(f'{name} is both in events and in grids')
    if hours is not None and grid.steps * grid.step_hours > hours + 1e-9:
      raise _EntryError(f'grids.{name} is longer than observation_hours')
  if not events and not grids:
    raise _EntryError('there is neither an event nor a grid modality')
  static = _variables('static', fields.get('static', []))
  birth: Any = fields.get('birth', {})
  birth = {'code': birth} if isinstance(birth, str) else birth
  age = birth.get('id', 'age')
  if birth and any(one.item.itemid == age for one in static):
    raise _EntryError(f'static has an item {age}, and so has birth')
  attributes = {
    name: tuple(_codes(f'attributes.{name}', entry, ('category',)) for entry in entries)
    for name, entries in fields.get('attributes', {}).items()
  }
  for name, codes in attributes.items():
    if name == 'age':
      raise _EntryError('attributes.age: give the code of the birth date as birth')
    if any(not one.category and 'category' not in one.pattern.groupindex for one in codes):
      raise _EntryError(f'attributes.{name}: a code without {{category}} or a category')
  return Mapping(hours, birth.get('code'), age, events, grids, static, attributes)


def _events(name: str, fields: dict[str, Any]) -> Events:
  where = f'events.{name}'
  of_mimic = fields.get('mimic_iv')
  if of_mimic is not None and of_mimic['items'] == 'vitals_categorical':
    if len(fields) > 1:
      raise _EntryError(f'{where}: vitals_categorical of mimic_iv stands alone')
    return Events(charted=_itemid_codes(where, of_mimic['codes']))
  automatic = fields.get('automatic')
  if automatic is not None:
    automatic = Automatic(
      tuple(_codes(where, entry, ()) for entry in automatic['codes']),
      automatic['min_subjects'],
    )
  return Events(_all_variables(where, fields), automatic)


def _grid(name: str, fields: dict[str, Any]) -> Grid:
  where = f'grids.{name}'
  variables = _all_variables(where, fields)
  if not variables:
    raise _EntryError(f'{where} has no items')
  for one in variables:
    if one.item.kind == 'categorical':
      raise _EntryError(f'{where}: {one.item.itemid} is categorical; a grid has numbers')
  return Grid(variables, fields['steps'], fields['step_hours'])


def _all_variables(where: str, fields: dict[str, Any]) -> tuple[Variable, ...]:
  listed = _variables(where, fields.get('items', []))
  if 'mimic_iv' not in fields:
    return listed
  of = fields['mimic_iv']
  found = mimic_variables(of['items'], _itemid_codes(where, of['codes']))
  return _distinct(where, (*found, *listed))


def _variables(where: str, entries: list[dict[str, Any]]) -> tuple[Variable, ...]:
  return _distinct(where, tuple(_variable(where, entry) for entry in entries))


def _distinct(where: str, variables: tuple[Variable, ...]) -> tuple[Variable, ...]:
  ids = [one.item.itemid for one in variables]
  for itemid in ids:
    if ids.count(itemid) > 1:
      raise _EntryError(f'{where}: the item {itemid} occurs twice')
  return variables


def _unambiguous(where: str, entries: Sequence[tuple[str, str, _T]]) -> dict[str, _T]:
  """Key -> what it stands for, of (spelling, key, what it stands for).

  Raises:
    _EntryError: two spellings of the same stand for different things.
  """
  found: dict[str, tuple[str, _T]] = {}
  for spelling, key, value in entries:
    before, known = found.setdefault(key, (spelling, value))
    if known != value:
      raise _EntryError(
        f'{where}: {spelling!r} and {before!r} are the same, and have different entries'
      )
  return {key: value for key, (_, value) in found.items()}


def _apart(where: str, ranges: Sequence[tuple[float, float]], *, closed: bool) -> None:
  """Checks that no value is in two ranges.

  Raises:
    _EntryError: two overlap, or one is empty; `closed` ones contain their upper end.
  """
  for low, high in ranges:
    if low > high or (low == high and not closed):
      raise _EntryError(f'{where}: from {low:g} to {high:g} there is no value')
  for (_, high), (low, _) in itertools.pairwise(sorted(ranges)):
    if low < high or (low == high and closed):
      raise _EntryError(f'{where}: two ranges contain {low:g}')


def _variable(where: str, entry: dict[str, Any]) -> Variable:
  where = f'{where}.{entry["id"]}'
  categories = tuple(entry.get('categories', ()))
  numeric_keys = {'unit', 'low', 'high', 'units', 'repairs'}
  wrong = (numeric_keys if categories else {'texts', 'numbers'}) & entry.keys()
  if wrong:
    kind = 'a categorical' if categories else 'a numeric'
    raise _EntryError(f'{where}: {", ".join(sorted(wrong))} in {kind} item')
  texts = _unambiguous(
    f'{where}.texts',
    [
      *((name, name.strip().upper(), name) for name in categories),
      *((text, text.strip().upper(), of) for text, of in entry.get('texts', {}).items()),
    ],
  )
  numbers = tuple(
    (-float('inf') if low is None else low, float('inf') if high is None else high, name)
    for name, (low, high) in entry.get('numbers', {}).items()
  )
  _apart(f'{where}.numbers', [(low, high) for low, high, _ in numbers], closed=False)
  repaired = [(of['low'], of['high']) for of in entry.get('repairs', ())]
  _apart(f'{where}.repairs', repaired, closed=True)
  for name in (*texts.values(), *(name for *_, name in numbers)):
    if name not in categories:
      raise _EntryError(f'{where}: {name} is not one of its categories')
  own = entry.get('unit', '')
  conversions = [
    (unit, unit_key(unit), (of.get('scale', 1.0), of.get('offset', 0.0)))
    for unit, of in entry.get('units', {}).items()
  ]
  units = _unambiguous(f'{where}.units', [(own, unit_key(own), (1.0, 0.0)), *conversions])
  allowed = ('category',) if categories else ('unit',)
  return Variable(
    Item(
      entry['id'],
      entry.get('name', entry['id']),
      entry.get('unit', ''),
      categories,
      entry.get('low'),
      entry.get('high'),
    ),
    tuple(_codes(where, code, allowed) for code in entry['codes']),
    units,
    texts,
    numbers,
    tuple(
      Repair(of['low'], of['high'], of.get('scale', 1.0), of.get('offset', 0.0),
             of['reason'])
      for of in entry.get('repairs', ())
    ),
  )  # fmt: skip


def _codes(where: str, entry: str | dict[str, Any], groups: tuple[str, ...]) -> Codes:
  """One entry of a list of codes.

  Args:
    where: of the entry, for messages.
    entry: a code with `*` and placeholders, or a mapping.
    groups: the placeholders that have a meaning there.
  """
  fields: dict[str, Any] = {'code': entry} if isinstance(entry, str) else entry
  if ('code' in fields) == ('regex' in fields):
    raise _EntryError(f'{where}: an entry of codes has either code or regex')
  try:
    pattern = re.compile(
      fields['regex'] if 'regex' in fields else _expression(where, fields['code'])
    )
  except re.error as error:
    raise _EntryError(f'{where}: {fields["regex"]}: {error}') from None
  found = pattern.groupindex
  for group in found:
    if group not in groups:
      allowed = ', '.join(f'{{{name}}}' for name in groups) or 'none'
      raise _EntryError(f'{where}: {{{group}}} has no meaning here; {allowed} has')
  scaled = 'scale' in fields or 'offset' in fields
  if scaled and ('unit' in found or 'unit' in fields):
    raise _EntryError(f'{where}: scale and offset of a code that names its unit')
  if 'category' in fields and ('category' in found or 'category' not in groups):
    raise _EntryError(f'{where}: a category that the code has, or that the item has not')
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
        raise _EntryError(
          f'{where}: {part} is not a placeholder; known: '
          f'{", ".join(f"{{{name}}}" for name in _PLACEHOLDERS)}'
        )
      result += _PLACEHOLDERS[part[1:-1]]
    else:
      result += re.escape(part)
  return result


def _itemid_codes(where: str, entries: list[Any]) -> tuple[Codes, ...]:
  found = tuple(_codes(where, entry, ('itemid', 'unit')) for entry in entries)
  if any('itemid' not in one.pattern.groupindex for one in found):
    raise _EntryError(f'{where}: codes of mimic_iv need the placeholder {{itemid}}')
  return found
