"""Finds MEDS files, checks them with the schemas of the `meds` package, and opens them.

The files of a data set are `data/**/*.parquet`, `metadata/dataset.json` and
`metadata/codes.parquet`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.format.schema import DataError
from data_pipeline.sources.common.duckdb_files import parquet, text
from data_pipeline.sources.common.raw_tables import RawTables
from data_pipeline.sources.meds.codes import UNIT_SEPARATOR
from data_pipeline.sources.meds.variables import UnitColumn

_REMEDY = 'Export the data set again as MEDS 0.4, or cast and rename the columns.'
_VALUES = {'numeric_value': 'FLOAT', 'text_value': 'VARCHAR'}


def meds_package() -> ModuleType:
  """The `meds` package, whose schemas define MEDS.

  Raises:
    DataError: it is not installed.
  """
  try:
    import jsonschema  # noqa: F401  (read by `mapping`)
    import meds
  except ImportError as error:
    raise DataError(
      f"--source=meds needs {error.name}: pip install 'medm2t_jax[meds]'"
    ) from None
  return meds


def parquet_files(folder: Path) -> list[Path]:
  """The parquet files below a folder, sorted.

  Raises:
    DataError: there are none.
  """
  found = sorted(
    path
    for path in folder.rglob('*.parquet')
    # Spark and Hive hide files with such names, and file systems and notebooks leave
    # others.
    if not any(part.startswith(('.', '_')) for part in path.relative_to(folder).parts)
    and path.is_file()
  )
  if not found:
    raise DataError(
      f'{folder}: no parquet file here. A MEDS data set has data/, metadata/.'
    )
  return found


def read_schema(path: Path) -> pa.Schema:
  """The columns of a parquet file, with text types as in the `meds` package.

  Raises:
    DataError: it is not a readable parquet file.
  """
  try:
    schema = pq.read_schema(path)
  except pa.ArrowInvalid:
    raise DataError(
      f'{path}: not a parquet file, or a truncated one. Copy it again.'
    ) from None
  fields = []
  for field in schema:
    kind = field.type
    if pa.types.is_dictionary(kind):
      kind = kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
      kind = pa.string()
    # All string types hold the same texts, but `meds` 0.4 requires a large one here.
    if field.name == 'text_value' and kind == pa.string():
      kind = pa.large_string()
    fields.append(field.with_type(kind))
  return pa.schema(fields)


def check(path: Path, schema: pa.Schema, kind: type) -> None:
  """Checks a file's columns against a schema class of the `meds` package.

  Raises:
    DataError: a column is missing, of another type, or not allowed.
  """
  from flexible_schema import SchemaValidationError

  try:
    kind.validate(schema)  # pyright: ignore[reportAttributeAccessIssue]
  except SchemaValidationError as error:
    raise DataError(f'{path}: not a MEDS {kind.__name__}: {error}. {_REMEDY}') from None


def open_data(raw: RawTables, root: Path, column: UnitColumn | None) -> dict[str, int]:
  """Makes the view `data`: subject_id, time, code, numeric_value, text_value.

  Args:
    raw: connection in which the view is made.
    root: of the data set.
    column: of the mapping; if a row has a unit in it, the unit becomes part of `code`,
      after `codes.UNIT_SEPARATOR`.

  Returns:
    Row counts, with the reason for rows that are not read.

  Raises:
    DataError: there is no file, a file is not MEDS data, or no file has the unit column.
  """
  paths, present = parquet_files(root / 'data'), set()
  for path in paths:
    schema = read_schema(path)
    check(path, schema, meds_package().DataSchema)
    present.update(schema.names)
  values = ', '.join(
    f'CAST({name if name in present else "NULL"} AS {kind}) AS {name}'
    for name, kind in _VALUES.items()
  )
  if column is not None and column.name not in present:
    raise DataError(
      f'{root / "data"}: no file has the column {column.name!r} that the mapping names as '
      'unit_column. Remove unit_column if the codes contain their units.'
    )
  raw.run(f"""
    CREATE OR REPLACE TEMP VIEW data AS
    SELECT subject_id, time, {_code(column)} AS code, {values}
    FROM {parquet(*paths)}
  """)
  counts = raw.run("""
    SELECT count(*), count(*) FILTER (subject_id IS NULL OR code IS NULL) FROM data
  """).fetchall()[0]
  counts = dict(zip(('read', 'dropped: missing subject_id or code'), counts, strict=True))
  return {reason: n for reason, n in counts.items() if n or reason == 'read'}


def _code(column: UnitColumn | None) -> str:
  """SQL for the code of a row, with its unit if a column has it."""
  if column is None:
    return 'CAST(code AS VARCHAR)'
  name = '"' + column.name.replace('"', '""') + '"'
  # Some writers store a column of whole numbers and nulls as floats.
  unit = f"regexp_replace(trim(CAST({name} AS VARCHAR)), '^(\\d+)\\.0$', '\\1')"
  if column.prefix:
    length = len(column.prefix)
    unit = (
      f'CASE WHEN starts_with({unit}, {text(column.prefix)}) '
      f'THEN substr({unit}, {length + 1}) ELSE {unit} END'
    )
  if column.spellings:
    cases = ' '.join(
      f'WHEN {text(spelling)} THEN {text(of)}' for spelling, of in column.spellings.items()
    )
    unit = f'CASE {unit} {cases} ELSE {unit} END'
  suffix = f"chr({ord(UNIT_SEPARATOR)}) || nullif({unit}, '')"
  return f"CAST(code AS VARCHAR) || coalesce({suffix}, '')"


@contextlib.contextmanager
def naming_damaged_data(raw: RawTables, root: Path) -> Iterator[None]:
  """Names the damaged file if DuckDB cannot read the data; DuckDB's message does not.

  Raises:
    DataError: a data file is damaged inside.
  """
  try:
    yield
  except duckdb.Error:
    for path in parquet_files(root / 'data'):
      try:
        raw.con.execute(f'SELECT bit_xor(hash(COLUMNS(*))) FROM {parquet(path)}').fetchall()
      except duckdb.Error:
        raise DataError(
          f'{path}: damaged, cannot be read to its end. Copy it again.'
        ) from None
    raise


def open_metadata(raw: RawTables, root: Path) -> dict[str, str]:
  """Makes the table `code_names` (code, name); returns the data set's versions.

  Raises:
    DataError: a metadata file is not MEDS.
  """
  path = root / 'metadata/codes.parquet'
  raw.run('CREATE OR REPLACE TEMP TABLE code_names (code VARCHAR, name VARCHAR)')
  if path.exists():
    schema = read_schema(path)
    check(path, schema, meds_package().CodeMetadataSchema)
    if 'description' in schema.names:
      raw.run(f"""
        INSERT INTO code_names SELECT code, min(nullif(trim(description), ''))
        FROM {parquet(path)} GROUP BY code
      """)
  path = root / 'metadata/dataset.json'
  if not path.exists():
    return {'meds': 'unknown'}
  try:
    fields = json.loads(path.read_text(encoding='utf-8'))
  except (ValueError, UnicodeDecodeError):
    raise DataError(f'{path}: not a JSON file. {_REMEDY}') from None
  if not isinstance(fields, dict):
    raise DataError(f'{path}: not a JSON object. {_REMEDY}')
  name, version = fields.get('dataset_name', 'meds'), fields.get('dataset_version')
  return {
    str(name): str(version or 'unknown'),
    'meds': str(fields.get('meds_version', 'unknown')),
  }
