"""SQL for files in DuckDB, with paths that are taken literally.

DuckDB treats `*`, `?` and `[` in a path as a pattern, and `key=value` in it as columns that
replace those in the file (Hive partitioning). A user's folders may have any name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def text(value: str | Path) -> str:
  """A string literal, for values and for files to be written."""
  return "'" + str(value).replace("'", "''") + "'"


def parquet(*paths: Path) -> str:
  """A table function that reads parquet files whose columns have the same names.

  Args:
    paths: of the files; columns that a file lacks are null.
  """
  return f'read_parquet({_listed(paths)}, union_by_name = true, hive_partitioning = false)'


def csv(path: Path, columns: Sequence[str]) -> str:
  """A table function that reads a comma-separated file as text.

  Args:
    path: of the file, whose first line is a header; plain or gzip.
    columns: names for all its columns, in order.
  """
  kinds = ', '.join(f"{text(column)}: 'VARCHAR'" for column in columns)
  # Explicit, because DuckDB treats the text after a '?' in a path as the query of a URL.
  compression = 'gzip' if path.suffix == '.gz' else 'none'
  return (
    f'read_csv({_listed([path])}, hive_partitioning = false, header = true, '
    f"compression = '{compression}', "
    f"auto_detect = false, delim = ',', quote = '\"', escape = '\"', "
    f'columns = {{{kinds}}})'
  )


def _listed(paths: Sequence[Path]) -> str:
  """A list of string literals, with the characters of patterns in brackets."""
  literal = lambda path: text(re.sub(r'[*?[]', r'[\g<0>]', str(path.absolute())))
  return f'[{", ".join(map(literal, paths))}]'
