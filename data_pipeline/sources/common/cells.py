"""Reads cells of raw tables as values, and recognises unreadable cells.

A cell is read whole or not at all. Text must have exactly the form of its column's type:
DuckDB's own casts ignore time zones ('10:00+05' is 10:00), round 10.6 to 11, accept
'epoch', 'infinity', '0x10' and '1_000', and read 2.26E+07 of a spreadsheet as an id.
"""

from __future__ import annotations

from collections.abc import Mapping

# Text that tools write for missing values (pandas, R, SQL, Spark), in lower case.
_MISSING = r'|na|n/a|nan|nat|none|null|<na>|\\n'

_DAY = r'\d{4}-\d{2}-\d{2}'
_MIDNIGHT = r'00:00(:00(\.0+)?)?'
_FORMS = {
  'TIMESTAMP': rf'{_DAY}[ T]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d+)?)?',
  'DATE': rf'{_DAY}([ T]{_MIDNIGHT})?',
  'BIGINT': r'[-+]?\d+(\.0*)?',
  'INTEGER': r'[-+]?\d+(\.0*)?',
  'DOUBLE': r'[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?',
}
_LENGTHS = {'TIMESTAMP': 19, 'DATE': 10}
_REMEDIES = {
  'TIMESTAMP': (
    'is not a time',
    'Write times as YYYY-MM-DD HH:MM:SS in local time, without a zone.',
  ),
  'DATE': ('is not a date', 'Write dates as YYYY-MM-DD.'),
  'BIGINT': ('is not a whole number', 'Write whole numbers with digits only.'),
  'INTEGER': ('is not a whole number', 'Write whole numbers with digits only.'),
  'DOUBLE': ('is not a number', 'Write numbers with a decimal point, without separators.'),
}
_TIMES = ('TIMESTAMP', 'TIMESTAMP_S', 'TIMESTAMP_MS', 'TIMESTAMP_NS')
_WHOLE = ('TINYINT', 'SMALLINT', 'INTEGER', 'BIGINT', 'HUGEINT',
          'UTINYINT', 'USMALLINT', 'UINTEGER', 'UBIGINT', 'UHUGEINT')  # fmt: skip
_REAL = ('FLOAT', 'DOUBLE')

# More unreadable cells than these are not single slips in a table.
_FEW, _SHARE = 10, 0.01


def value(cell: str, kind: str, stored: str) -> str:
  """SQL for the value of a cell; null if it is missing or unreadable.

  Args:
    cell: SQL of the cell.
    kind: DuckDB type to read: VARCHAR, TIMESTAMP, DATE, BIGINT, INTEGER or DOUBLE.
    stored: DuckDB type in the file; VARCHAR in text files.
  """
  if kind == 'VARCHAR':
    return cell if stored == 'VARCHAR' else f'TRY_CAST({cell} AS VARCHAR)'
  cast = f'TRY_CAST({cell} AS {kind})'
  if stored == 'VARCHAR':
    # Nearly all cells have DuckDB's own form, which is recognised without the slow
    # expression.
    other = f"regexp_full_match(trim({cell}), '{_FORMS[kind]}')"
    if kind == 'DOUBLE':  # DuckDB writes 5 as 5.0
      return f'CASE WHEN {other} THEN {cast} END'
    usual = f'CAST({cast} AS VARCHAR) = {cell}'
    if kind in _LENGTHS:  # without 'infinity' and years of five digits
      usual = f'length({cell}) = {_LENGTHS[kind]} AND {usual}'
    return f'CASE WHEN {usual} THEN {cast} WHEN {other} THEN {cast} END'
  if kind == 'TIMESTAMP' and stored in _TIMES:
    return f'CASE WHEN isfinite({cell}) THEN {cast} END'
  if kind == 'DATE' and stored == 'DATE':
    return f'CASE WHEN isfinite({cell}) THEN {cell} END'
  if kind == 'DATE' and stored in _TIMES:
    return (
      f'CASE WHEN isfinite({cell}) AND CAST(CAST({cell} AS TIMESTAMP) AS TIME) '
      f"= TIME '00:00:00' THEN {cast} END"
    )
  number = stored in _WHOLE or stored in _REAL or stored.startswith('DECIMAL')
  if kind == 'DOUBLE' and number:
    return cast
  if kind in ('BIGINT', 'INTEGER') and (stored in _WHOLE or stored == 'BOOLEAN'):
    return cast
  if kind in ('BIGINT', 'INTEGER') and number:
    return f'CASE WHEN {cell} = floor({cell}) THEN {cast} END'
  return f'CAST(NULL AS {kind})'


def unreadable(cell: str, read: str, stored: str) -> str:
  """SQL for an unreadable cell (its type if it is not text); null if the cell is readable.

  Args:
    cell: SQL of the cell.
    read: SQL of the value from `value`.
    stored: DuckDB type in the file.
  """
  if stored == 'VARCHAR':
    # Not IN, which DuckDB turns into a join over all rows.
    present = f"NOT regexp_full_match(lower(trim({cell})), '{_MISSING}')"
    told = f'left(trim({cell}), 40)'
  else:
    present = f'NOT isnan({cell})' if stored in _REAL else f'{cell} IS NOT NULL'
    told = f"'{stored}'"
  # Nested, so that readable rows are not tested further.
  return f'CASE WHEN {read} IS NULL THEN CASE WHEN {present} THEN {told} END END'


def form(cell: str, stored: str) -> str:
  """SQL for the form of an unreadable cell, which reveals no patient's value.

  Digits become 9, letters A and a; a cell that is not text becomes its type.

  Args:
    cell: SQL of the result of `unreadable`.
    stored: DuckDB type in the file.
  """
  if stored != 'VARCHAR':
    return cell
  others = r'[\p{Ll}\p{Lm}\p{Lo}\p{Lt}]'
  for letters, sign in ((r'\p{N}', '9'), (r'\p{Lu}', 'A'), (others, 'a')):
    cell = f"regexp_replace({cell}, '{letters}', '{sign}', 'g')"
  return cell


def too_many(unreadable: int, read: int) -> bool:
  """Whether there are so many unreadable cells that the column must have another form."""
  return unreadable > read / 2 or (unreadable > _FEW and unreadable > _SHARE * read)


def complaint(column: str, kind: str, shape: str, unreadable: int) -> str:
  """The error message for the unreadable cells of a column."""
  what, remedy = _REMEDIES[kind]
  return (
    f'column {column!r}: {unreadable} cells hold what {what}, such as {shape!r} (9 for a '
    f'digit, a for a letter). {remedy}'
  )


def names(columns: Mapping[str, str]) -> dict[str, str]:
  """Column -> the column of a view with its unreadable cells."""
  return {
    column: f'unreadable_{column}' for column, kind in columns.items() if kind != 'VARCHAR'
  }
