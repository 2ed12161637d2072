"""Opens raw tables with DuckDB: declared columns, bounded memory, clear errors.

Only the columns that the caller declares are read from a raw table. Cells that are not of
the declared type (`cells`) become null, and `unreadable` counts them; a missing table or
column, a damaged gzip or a malformed line is a `DataError`. DuckDB does not verify the
checksum of a gzip, so a separate thread does while DuckDB reads.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import gzip
import re
import shutil
import threading
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from data_pipeline.format.schema import DataError
from data_pipeline.sources import Resources
from data_pipeline.sources.common import cells
from data_pipeline.sources.common.duckdb_files import csv as csv_file
from data_pipeline.sources.common.duckdb_files import parquet, text

_ENDINGS = ('.parquet', '.csv.gz', '.csv')
_SAYS_LINE = re.compile(r'CSV Error on Line: (\d+)')
_DOWNLOAD = 'Download the table again and compare it with SHA256SUMS.txt.'
_BLOCK = 1 << 15  # its content, about ten times larger, fits into the processor's cache


class UnreadableCells(DataError):
  """The cells of a column have another form than its type.

  Attributes:
    rows: table -> reason -> count, for the cohort.
  """

  def __init__(self, message: str, rows: dict[str, dict[str, int]]):
    super().__init__(message)
    self.rows = rows


class RawTables:
  """A DuckDB connection and the raw tables opened in it.

  Attributes:
    con: the connection; it spills to the staging folder.
  """

  def __init__(self, spill: Path, memory_limit: str, threads: int):
    self.con = duckdb.connect()
    self._spill = spill
    self._paths: dict[str, Path] = {}
    self._kinds: dict[str, dict[str, str]] = {}  # as stored: view -> column -> type
    self._checks: list[_Check] = []
    self.con.execute('SET preserve_insertion_order = false')
    self.con.execute(
      "SET TimeZone = 'UTC'"
    )  # so that results do not depend on the machine's
    # DuckDB 2.0 pushes TRY_CAST into read_csv, where it fails instead of giving null
    # (github.com/duckdb/duckdb/issues/23818).
    if ('type_pushdown',) in self.con.execute('FROM duckdb_optimizers()').fetchall():
      self.con.execute("SET disabled_optimizers = 'type_pushdown'")
    self.con.execute(f'SET threads = {int(threads)}')
    self.con.execute(f'SET temp_directory = {text(spill)}')
    try:
      self.con.execute(f'SET memory_limit = {text(memory_limit)}')
    except duckdb.Error:
      raise DataError(
        f'memory_limit {memory_limit!r} is not a size; write for example 4GB'
      ) from None

  def apart(self, name: str, of: int) -> RawTables:
    """A separate database, for a query that runs at the same time as `of` - 1 others.

    Two queries of one database often wait for each other's threads. The new database has
    its share of this one's memory limit and threads, and its own spill folder, because
    databases that share one overwrite each other's files.
    """
    [(limit, threads)] = self.con.execute(
      "SELECT current_setting('memory_limit'), current_setting('threads')"
    ).fetchall()
    amount, unit = limit.split()
    spill = self._spill.with_name(f'{self._spill.name}-{name}')
    return RawTables(spill, f'{float(amount) / of} {unit}', max(1, threads // of))

  def open(
    self, root: Path, name: str, columns: Mapping[str, str], *, view: str | None = None
  ) -> None:
    """Makes a view of `root/name` with the declared columns.

    For every column that is not text, the view also has `unreadable_{column}`: the cell if
    it is unreadable (`cells.unreadable`), else null. Never show its content, which may be a
    patient's value.

    Args:
      root: the raw folder.
      name: the table, for example 'hosp/labevents'; .parquet, .csv.gz and .csv are
        accepted.
      columns: column -> DuckDB type; cells of other types are null.
      view: name of the view, by default the table's own name.

    Raises:
      DataError: a file or column is missing, a column is repeated, or the first line cannot
        be read. A gzip that is damaged further on is an error of the next query.
    """
    self.open_file(
      find(root, name),
      view or Path(name).name,
      columns,
      remedy='the table of MIMIC-IV 2.2 and 3.1 has it.',
    )

  def open_file(
    self,
    path: Path,
    view: str,
    columns: Mapping[str, str],
    *,
    remedy: str,
    numbered: bool = False,
  ) -> None:
    """Makes a view of a file, as `open` does for a table of a raw folder.

    Args:
      path: .parquet, .csv.gz or .csv.
      view: name of the view.
      columns: as in `open`.
      remedy: advice for a missing column.
      numbered: whether the view has `row_in_file`, from 0; only for parquet files.

    Raises:
      DataError: as `open`.
    """
    stored = self.columns(path)
    found: dict[str, int] = {}
    for position, column in enumerate(stored):
      wanted = column.name.strip().lower()
      if wanted in found and wanted in columns:
        raise DataError(f'{path}: column {wanted!r} is repeated. Keep only the right one.')
      found[wanted] = position
    for column in columns:
      if column not in found:
        raise DataError(
          f'{path}: no column {column!r}; {remedy} '
          f'Found: {", ".join(column.name for column in stored)}'
        )
    self._paths[view] = path
    self._kinds[view] = {column: stored[found[column]].kind for column in columns}
    # In two steps, so that each cell is converted only once.
    read, told = [], []
    for column, kind in columns.items():
      one, name = stored[found[column]], _identifier(column)
      read.append(f'{cells.value(one.cell, kind, one.kind)} AS {name}')
      told.append(name)
      if kind != 'VARCHAR':
        hidden = cells.names({column: kind})[column]
        cell = _identifier(f'cell_{column}')
        read.append(f'{one.cell} AS {cell}')
        told.append(f'{cells.unreadable(cell, name, one.kind)} AS {_identifier(hidden)}')
    if path.suffix == '.parquet':
      source = parquet(path)
      if numbered:
        source = source.removesuffix(')') + ', file_row_number = true)'
        read.append('file_row_number AS row_in_file')
        told.append('row_in_file')
    else:
      source = csv_file(path, [one.in_file for one in stored])
    self.run(f"""
      CREATE OR REPLACE TEMP VIEW {view} AS SELECT {', '.join(told)}
      FROM (SELECT {', '.join(read)} FROM {source})
    """)
    if path.suffix == '.gz':
      self._checks.append(_Check(path))

  def unreadable(
    self,
    view: str,
    relation: str,
    columns: Mapping[str, str],
    *,
    deciding: Collection[str] = (),
    read: int | None = None,
  ) -> dict[str, int]:
    """Counts the cells that are not of their column's type.

    Args:
      view: made by `open`, for its file's name.
      relation: SQL of the rows to check, with the `unreadable_*` columns of the view.
      columns: as given to `open`, or some of them.
      deciding: columns that decide who is a sample, or its label: none of their cells may
        be unreadable. In other columns a small share may be.
      read: number of rows, if `relation` omits rows without an unreadable cell.

    Returns:
      Reason, for example unreadable: dod, -> count.

    Raises:
      UnreadableCells: there are too many.
    """
    hidden = cells.names(columns)
    aggregates = ', '.join(f'count({_identifier(name)})' for name in hidden.values())
    [(rows, *found)] = self.run(f'SELECT count(*), {aggregates} FROM {relation}').fetchall()
    of = int(rows if read is None else read)
    numbers = {column: int(n) for column, n in zip(hidden, found, strict=True) if n}
    counts = {f'unreadable: {column}': n for column, n in numbers.items()}
    refused = []
    for column, n in numbers.items():
      if column in deciding or cells.too_many(n, of):
        form = cells.form(_identifier(hidden[column]), self._kinds[view][column])
        shape = self.value(f'SELECT min({form}) FROM {relation}')
        refused.append(cells.complaint(column, columns[column], shape, n))
    if refused:
      raise UnreadableCells(
        f'{self._paths[view]}: {" ".join(refused)}',
        {view.removeprefix('raw_'): {'read': of, **counts}},
      )
    return counts

  def run(self, sql: str, parameters: Any = None) -> duckdb.DuckDBPyConnection:
    """Runs SQL; errors of raw files become a `DataError` whose message contains no row."""
    try:
      result = self.con.execute(sql, parameters)
    except duckdb.OutOfMemoryException:
      raise DataError(
        'DuckDB ran out of memory; raise --memory_limit or lower --workers'
      ) from None
    except (
      duckdb.IOException, duckdb.InvalidInputException, duckdb.ConversionException,
    ) as error:  # fmt: skip
      self._finish_checks()  # a damaged file explains any error of DuckDB
      raise self._data_error(str(error)) from None
    self._finish_checks()
    return result

  def value(self, sql: str) -> Any:
    """The single value of a query."""
    [row] = self.run(sql).fetchall()
    return row[0]

  def counts(self, sql: str) -> dict[str, int]:
    """(reason, count) rows of a query as a dict, null reasons left out."""
    rows = self.run(sql).fetchall()
    return {reason: int(n) for reason, n in sorted(filter(lambda r: r[0], rows)) if n}

  def copy(self, sql: str, path: Path) -> None:
    """Streams a query to a parquet file."""
    self.run(f'COPY ({sql}) TO {text(path)} (FORMAT parquet, COMPRESSION zstd)')

  def close(self) -> None:
    """Closes the database connection."""
    self.con.close()

  def columns(self, path: Path) -> Sequence[Column]:
    """The columns of a file, in order.

    Raises:
      DataError: its first line cannot be read.
    """
    if path.suffix == '.parquet':
      rows = self.run(f'DESCRIBE SELECT * FROM {parquet(path)}').fetchall()
      return [Column(row[0], row[0], row[1]) for row in rows]
    try:
      opened = gzip.open if path.suffix == '.gz' else open
      with opened(path, 'rt', encoding='utf-8-sig', newline='') as file:
        header = next(csv.reader(file), None)
    except (EOFError, gzip.BadGzipFile, zlib.error):
      raise _damaged(path) from None
    except UnicodeDecodeError:
      raise DataError(f'{path}: the first line is not UTF-8 text. {_DOWNLOAD}') from None
    if not header:
      raise DataError(f'{path}: empty file, no header line. {_DOWNLOAD}')
    # By position, because a name may be empty, as that of pandas' index, or repeated.
    return [Column(name, f'c{place}', 'VARCHAR') for place, name in enumerate(header)]

  def _finish_checks(self) -> None:
    checks, self._checks = self._checks, []
    for check in checks:
      check.join()
      if check.is_damaged:
        raise _damaged(check.path)

  def _data_error(self, text: str) -> DataError:
    if 'No space left on device' in text:
      return DataError(
        f'{self._spill.parent}: the disk is full. Make room and run the same command '
        'again, or use another disk with --out.'
      )
    # DuckDB's message quotes the offending line, so only names and numbers are kept.
    named = [path for path in self._paths.values() if str(path) in text]
    where = str(named[0]) if named else 'a raw table'
    line = _SAYS_LINE.search(text)
    if line:
      return DataError(f'{where}, line {line[1]}: not a row of this table. {_DOWNLOAD}')
    if not named:
      return DataError(f'DuckDB: {text.splitlines()[0]}')
    return DataError(f'{where}: cannot be read. {_DOWNLOAD}')


@dataclasses.dataclass(frozen=True)
class Column:
  """A column of a file: its name in the file, its name in the view, its DuckDB type."""

  name: str
  in_file: str
  kind: str

  @property
  def cell(self) -> str:
    """The column as a quoted SQL identifier."""
    return _identifier(self.in_file)


class _Check(threading.Thread):
  """Reads a gzip to its end and verifies its checksum and length.

  Attributes:
    path: of the gzip.
    is_damaged: the result, once the thread has ended; True also if it cannot be read.
  """

  def __init__(self, path: Path):
    super().__init__(daemon=True)
    self.path = path
    self.is_damaged = True
    self.start()

  def run(self) -> None:
    with contextlib.suppress(zlib.error, OSError):
      self.is_damaged = not _is_complete_gzip(self.path)


def _is_complete_gzip(path: Path) -> bool:
  """Whether the file ends as a gzip must; a wrong checksum raises `zlib.error`."""
  new_member = lambda: zlib.decompressobj(16 + zlib.MAX_WBITS)  # 16: gzip format
  member = new_member()
  with path.open('rb') as file:
    while block := file.read(_BLOCK):
      while block:
        if member.eof:  # a gzip may have several members
          member = new_member()
        member.decompress(block)
        block = member.unused_data
  return member.eof


def _damaged(path: Path) -> DataError:
  return DataError(f'{path}: damaged or truncated gzip. {_DOWNLOAD}')


@contextlib.contextmanager
def in_scratch(staging: Path, resources: Resources) -> Iterator[tuple[RawTables, Path]]:
  """A connection and an empty scratch folder in `staging`.

  The folder is removed at the end; after an error it stays until the next attempt.
  """
  scratch = staging / 'scratch'
  shutil.rmtree(scratch, ignore_errors=True)
  scratch.mkdir(parents=True)
  raw = RawTables(scratch / 'spill', resources.memory_limit, resources.threads)
  with contextlib.closing(raw):
    yield raw, scratch
  shutil.rmtree(scratch)


def is_there(root: Path, name: str) -> bool:
  """Whether the raw data have this table, in any format."""
  return any((root / (name + ending)).exists() for ending in _ENDINGS)


def find(root: Path, name: str) -> Path:
  """The file of a raw table, in any format."""
  for ending in _ENDINGS:
    path = root / (name + ending)
    if path.exists():
      return path
  raise DataError(
    f'{root / name}: no such table (.csv.gz, .csv or .parquet). Give the folder of the '
    'unpacked download, and fetch the missing file.'
  )


def _identifier(column: str) -> str:
  return '"' + column.replace('"', '""') + '"'
