"""Formats numbers, units and names for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TASKS = {
  'cvd': 'Cardiovascular disease after an ECG',
  'cvd_all': 'Admission and cardiovascular disease after an ECG',
  'mortality': 'In-hospital mortality',
  'los': 'Length of ICU stay',
}
SOURCES = {
  'mimic_iv': 'MIMIC-IV',
  'simulated': 'simulated hospital',
  'meds': 'MEDS',
  'physionet2012': 'PhysioNet 2012',
}
NONE = '–'


def task_name(task: str, description: str = '') -> str:
  """The title of a task: its own, its description, or its key."""
  return TASKS.get(task) or capitalized(description) or task


def capitalized(text: str) -> str:
  """The text with a capital first letter, the others as they are."""
  return text[:1].upper() + text[1:]


def listed(names: Sequence[str]) -> str:
  """'a', 'a and b', 'a, b and c'; at least one."""
  *most, last = names
  return f'{", ".join(most)} and {last}' if most else last


def shortened(name: str, most: int) -> str:
  """A name of at most `most` characters; a number of samples at its end is kept."""
  if len(name) <= most:
    return name
  start, bracket, rest = name.rpartition(' (n = ')
  kept = f'{bracket}{rest}' if bracket else ''
  return f'{(start if bracket else name)[: most - 1 - len(kept)]}…{kept}'


def times(count: int, singular: str, plural: str) -> str:
  """'1 group', '1,200 groups'."""
  return f'{count:,} {singular if count == 1 else plural}'


def in_brackets(unit: str) -> str:
  """A unit after a name: ' (days)', or ''."""
  return f' ({unit})' if unit else ''


def source_name(source: str) -> str:
  """The title of a source, or its key."""
  return SOURCES.get(source, source)


def number(value: float | None, digits: int = 3) -> str:
  """Fixed digits with a real minus sign; a dash for None."""
  if value is None:
    return NONE
  text = f'{value:,.{digits}f}'
  if float(text.replace(',', '')) == 0:
    text = text.removeprefix('-')
  return text.replace('-', '−')


def count(value: int | None) -> str:
  """A count with thousands separated; a dash for None."""
  return NONE if value is None else f'{value:,}'


def interval(estimate: Mapping[str, Any], digits: int = 3) -> str:
  """'0.801 to 0.880', or the reason why there is none."""
  if estimate['low'] is None:
    return estimate['reason'] or NONE
  # No-break spaces keep an interval on one line in a narrow column.
  ends = (number(estimate['low'], digits), number(estimate['high'], digits))
  return '\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}'.join(ends)


def in_words(estimate: Mapping[str, Any], digits: int = 3) -> str:
  """'0.842 (0.801 to 0.880)', or 'undefined: reason'."""
  if estimate['value'] is None:
    return f'undefined: {estimate["reason"]}'
  if estimate['low'] is None:
    return f'{number(estimate["value"], digits)} ({estimate["reason"]})'
  return (
    f'{number(estimate["value"], digits)}\N{NO-BREAK SPACE}({interval(estimate, digits)})'
  )


def duration(seconds: float | None) -> str:
  """Seconds as '8 s', '12 min' or '3.4 h'."""
  if seconds is None:
    return NONE
  if seconds < 90:
    return f'{seconds:.0f} s'
  return f'{seconds / 60:.0f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'
