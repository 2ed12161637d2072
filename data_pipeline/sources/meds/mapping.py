"""Reads mapping files, which assign MEDS codes to variables (docs/sources.md, "MEDS").

The file is YAML, and is checked against mapping.schema.yaml before `load` reads it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from data_pipeline.format.schema import DataError, Item
from data_pipeline.sources.common.units import unit_key
from data_pipeline.sources.meds.checked_yaml import FOLDER, EntryError, read_checked
from data_pipeline.sources.meds.mimic_items import (
  STATIC_TABLES,
  mimic_variable,
  mimic_variables,
)
from data_pipeline.sources.meds.patterns import codes_of, itemid_codes
from data_pipeline.sources.meds.variables import (
  Automatic,
  Events,
  Grid,
  Mapping,
  Repair,
  UnitColumn,
  Variable,
)

_T = TypeVar('_T')


def shipped() -> tuple[str, ...]:
  """Names of the mappings that come with this source."""
  found = (path.stem for path in FOLDER.glob('*.yaml'))
  return tuple(sorted(name for name in found if '.' not in name))


def path_of(mapping: str) -> Path:
  """The file of a shipped mapping or of a path.

  Raises:
    DataError: it is neither.
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
    DataError: the file is not YAML, has an unknown or misplaced key, or entries that
      contradict each other; the message names the file and the entry.
  """
  fields = read_checked(path, 'mapping.schema.yaml', 'docs/sources.md')
  try:
    return _mapping(fields)
  except EntryError as error:
    raise DataError(f'{path}: {error}') from None


def _mapping(fields: dict[str, Any]) -> Mapping:
  hours = fields['observation_hours']
  events = {name: _events(name, of) for name, of in fields.get('events', {}).items()}
  grids = {name: _grid(name, of) for name, of in fields.get('grids', {}).items()}
  for name, grid in grids.items():
    if name in events:
      raise EntryError(f'{name} is both in events and in grids')
    if hours is not None and grid.steps * grid.step_hours > hours + 1e-9:
      raise EntryError(f'grids.{name} is longer than observation_hours')
  if not events and not grids:
    raise EntryError('there is neither an event nor a grid modality')
  static = _variables('static', fields.get('static', []))
  birth: Any = fields.get('birth', {})
  birth = {'code': birth} if isinstance(birth, str) else birth
  age = birth.get('id', 'age')
  if birth and any(one.item.itemid == age for one in static):
    raise EntryError(f'static and birth both define an item {age}')
  attributes = {
    name: tuple(codes_of(f'attributes.{name}', entry, ('category',)) for entry in entries)
    for name, entries in fields.get('attributes', {}).items()
  }
  for name, codes in attributes.items():
    if name == 'age':
      raise EntryError('attributes.age: give the code of the birth date as birth')
    if any(not one.category and 'category' not in one.pattern.groupindex for one in codes):
      raise EntryError(f'attributes.{name}: a code without {{category}} or a category')
  return _with_unit_column(
    Mapping(hours, birth.get('code'), age, events, grids, static, attributes),
    fields.get('unit_column'),
  )


def _with_unit_column(mapping: Mapping, entry: str | dict[str, Any] | None) -> Mapping:
  """The mapping with its unit column, if there is one.

  Raises:
    EntryError: a code also has a unit, or items of codes are found in the data.
  """
  if entry is None:
    return mapping
  column = UnitColumn(entry) if isinstance(entry, str) else UnitColumn(**entry)
  parts = {
    **{f'events.{name}': of.variables for name, of in mapping.events.items()},
    **{f'grids.{name}': of.variables for name, of in mapping.grids.items()},
    'static': mapping.static,
  }
  for where, variables in parts.items():
    for one in variables:
      for code in one.codes:
        scaled = (code.scale, code.offset) != (1.0, 0.0)
        if scaled or 'unit' in code.pattern.groupindex:
          raise EntryError(
            f'{where}.{one.item.itemid}: a code with {{unit}}, scale or offset, although '
            'unit_column has the units'
          )
  for name, of in mapping.events.items():
    if of.automatic is not None:
      raise EntryError(
        f'events.{name}.automatic: with unit_column a code may have several units; '
        'list its items'
      )
  return dataclasses.replace(mapping, unit_column=column)


def _events(name: str, fields: dict[str, Any]) -> Events:
  where = f'events.{name}'
  of_mimic = fields.get('mimic_iv')
  if of_mimic is not None and of_mimic['items'] == 'vitals_categorical':
    if len(fields) > 1:
      raise EntryError(f'{where}: vitals_categorical of mimic_iv cannot have other items')
    return Events(charted=itemid_codes(where, of_mimic['codes']))
  automatic = fields.get('automatic')
  if automatic is not None:
    automatic = Automatic(
      tuple(codes_of(where, entry, ()) for entry in automatic['codes']),
      automatic['min_subjects'],
    )
  return Events(_all_variables(where, fields), automatic)


def _grid(name: str, fields: dict[str, Any]) -> Grid:
  where = f'grids.{name}'
  variables = _all_variables(where, fields)
  if not variables:
    raise EntryError(f'{where} has no items')
  for one in variables:
    if one.item.kind == 'categorical':
      raise EntryError(f'{where}: {one.item.itemid} is categorical; a grid has numbers')
  return Grid(variables, fields['steps'], fields['step_hours'])


def _all_variables(where: str, fields: dict[str, Any]) -> tuple[Variable, ...]:
  listed = _variables(where, fields.get('items', []))
  if 'mimic_iv' not in fields:
    return listed
  of = fields['mimic_iv']
  found = mimic_variables(of['items'], itemid_codes(where, of['codes']))
  return _distinct(where, (*found, *listed))


def _variables(where: str, entries: list[dict[str, Any]]) -> tuple[Variable, ...]:
  return _distinct(where, tuple(_variable(where, entry) for entry in entries))


def _distinct(where: str, variables: tuple[Variable, ...]) -> tuple[Variable, ...]:
  ids = [one.item.itemid for one in variables]
  for itemid in ids:
    if ids.count(itemid) > 1:
      raise EntryError(f'{where}: the item {itemid} occurs twice')
  return variables


def _unambiguous(where: str, entries: Sequence[tuple[str, str, _T]]) -> dict[str, _T]:
  """Key -> value, from (spelling, key, value).

  Raises:
    EntryError: two spellings with the same key have different values.
  """
  found: dict[str, tuple[str, _T]] = {}
  for spelling, key, value in entries:
    before, known = found.setdefault(key, (spelling, value))
    if known != value:
      raise EntryError(
        f'{where}: {spelling!r} and {before!r} are the same but have different entries'
      )
  return {key: value for key, (_, value) in found.items()}


def _apart(where: str, ranges: Sequence[tuple[float, float]], *, closed: bool) -> None:
  """Checks that ranges do not overlap.

  Raises:
    EntryError: two ranges overlap, or one is empty; `closed` ranges contain their upper
      end.
  """
  for low, high in ranges:
    if low > high or (low == high and not closed):
      raise EntryError(f'{where}: the range from {low:g} to {high:g} is empty')
  for (_, high), (low, _) in itertools.pairwise(sorted(ranges)):
    if low < high or (low == high and closed):
      raise EntryError(f'{where}: two ranges contain {low:g}')


def _variable(where: str, entry: dict[str, Any]) -> Variable:
  where = f'{where}.{entry["id"]}'
  if 'mimic_iv' in entry:
    return _of_mimic_iv(where, entry)
  categories = tuple(entry.get('categories', ()))
  numeric_keys = {'unit', 'low', 'high', 'units', 'repairs'}
  wrong = (numeric_keys if categories else {'texts', 'numbers'}) & entry.keys()
  if wrong:
    kind = 'a categorical' if categories else 'a numeric'
    raise EntryError(f'{where}: {", ".join(sorted(wrong))} in {kind} item')
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
      raise EntryError(f'{where}: {name} is not one of its categories')
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
    tuple(codes_of(where, code, allowed) for code in entry['codes']),
    units,
    texts,
    numbers,
    tuple(
      Repair(of['low'], of['high'], of.get('scale', 1.0), of.get('offset', 0.0),
             of['reason'])
      for of in entry.get('repairs', ())
    ),
  )  # fmt: skip


def _of_mimic_iv(where: str, entry: dict[str, Any]) -> Variable:
  """An item of the MIMIC-IV source, read from other codes and in other units."""
  wrong = entry.keys() - {'id', 'mimic_iv', 'codes', 'units', 'texts'}
  if wrong:
    raise EntryError(f"{where}: {', '.join(sorted(wrong))} of an item that is MIMIC-IV's")
  table = entry['mimic_iv']
  if (table in STATIC_TABLES) != where.startswith('static.'):
    raise EntryError(f'{where}: {table} has no items for this place')
  base = mimic_variable(table, entry['id'])
  if base is None:
    raise EntryError(f'{where}: {table} of MIMIC-IV has no such item')
  categories = base.item.categories
  wrong = ('units' if categories else 'texts') in entry
  if wrong:
    kind = 'a categorical' if categories else 'a numeric'
    raise EntryError(f'{where}: {"units" if categories else "texts"} in {kind} item')
  units = _unambiguous(
    f'{where}.units',
    [
      *((key, key, conversion) for key, conversion in base.units.items()),
      *(
        (unit, unit_key(unit), (of.get('scale', 1.0), of.get('offset', 0.0)))
        for unit, of in entry.get('units', {}).items()
      ),
    ],
  )
  texts = _unambiguous(
    f'{where}.texts',
    [
      *((text, text, of) for text, of in base.texts.items()),
      *((text, text.strip().upper(), of) for text, of in entry.get('texts', {}).items()),
    ],
  )
  for name in texts.values():
    if name not in categories:
      raise EntryError(f'{where}: {name} is not one of its categories')
  allowed = ('category',) if categories else ('unit',)
  codes = tuple(codes_of(where, code, allowed) for code in entry['codes'])
  return dataclasses.replace(base, codes=codes, units=units, texts=texts)
