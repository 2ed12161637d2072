"""Reads the record files of PhysioNet/CinC Challenge 2012, extracted or in a tar.

The official files are `set-a`, `set-b` and `set-c`, each an archive (`set-a.tar.gz`)
with one text file per stay, `set-a/132539.txt`, and `Outcomes-a.txt` and so on. Nothing is
extracted: texts are read one after the other.
"""

from __future__ import annotations

import dataclasses
import gzip
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from data_pipeline.format.schema import DataError

DOWNLOAD = 'https://physionet.org/files/challenge-2012/1.0.0/'
HEADER = 'Time,Parameter,Value'

_ENDINGS = ('.tar.gz', '.tgz', '.tar.xz', '.tar')
_SETS = ('a', 'b', 'c')
_RECORD = re.compile(r'(?:.*/)?([0-9]+)\.txt')
_DAMAGED = (tarfile.TarError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, EOFError)
_RECORD_ID = re.compile(r'^00:00,RecordID,([0-9]+)\r?$', re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class RecordSet:
  """One of the three sets.

  Attributes:
    name: 'set-a', 'set-b' or 'set-c'.
    path: its archive, or its folder of text files.
    outcomes: its file of outcomes.
  """

  name: str
  path: Path
  outcomes: Path


def find_sets(root: Path) -> list[RecordSet]:
  """The sets in a folder, or the one in an archive; archives take precedence over folders.

  Args:
    root: a folder with sets and their outcomes, or a single archive with its outcomes
      beside it.

  Raises:
    DataError: there is no set, or a set has no outcomes.
  """
  folder, names = (root, None) if root.is_dir() else (root.parent, (root.name,))
  found = []
  for letter in _SETS:
    name = f'set-{letter}'
    places = [folder / f'{name}{ending}' for ending in _ENDINGS] + [folder / name]
    path = next(
      (p for p in places if p.exists() and (names is None or p.name in names)), None
    )
    if path is None:
      continue
    outcomes = folder / f'Outcomes-{letter}.txt'
    if not outcomes.is_file():
      raise DataError(
        f'{outcomes}: no such file, although {path.name} exists. Download it from '
        f'{DOWNLOAD}, or move {path.name} elsewhere to leave this set out.'
      )
    found.append(RecordSet(name, path, outcomes))
  if not found:
    raise DataError(
      f'--physionet2012={root}: no set-a, set-b or set-c here, neither as a folder nor '
      f'as .tar.gz, .tar.xz or .tar. Download them from {DOWNLOAD}'
    )
  return found


def texts(records: RecordSet) -> Iterator[tuple[int, str]]:
  """RecordID and text, without the header line, of every record of a set.

  Raises:
    DataError: an archive is damaged or truncated, there is no record, or a file is not the
      record of its name.
  """
  read = _from_folder if records.path.is_dir() else _from_archive
  empty = True
  for where, stem, content in read(records.path):
    empty = False
    try:
      header, _, text = content.decode('utf-8-sig').partition('\n')
    except UnicodeDecodeError:
      raise DataError(f'{where}: not UTF-8 text. {_again()}') from None
    if header.rstrip('\r') != HEADER:
      raise DataError(f'{where}: the first line is not {HEADER!r}. {_again()}')
    named = _RECORD_ID.search(text)
    if named is None or int(named[1]) != stem:
      found = 'there is no row' if named is None else 'another record has the row'
      raise DataError(f'{where}: {found} 00:00,RecordID,{stem}. {_again()}')
    yield stem, text
  if empty:
    raise DataError(f'{records.path} contains no record such as 132539.txt. {_again()}')


def _from_folder(folder: Path) -> Iterator[tuple[Path, int, bytes]]:
  for path in sorted(folder.iterdir()):
    named = _RECORD.fullmatch(path.name)
    if named:
      yield path, int(named[1]), path.read_bytes()


def _from_archive(path: Path) -> Iterator[tuple[Path, int, bytes]]:
  try:
    with tarfile.open(path, 'r:*') as archive:
      for member in archive:
        named = _RECORD.fullmatch(member.name)
        if named and member.isfile():
          content = cast(IO[bytes], archive.extractfile(member)).read()
          yield path / member.name, int(named[1]), content
      # Reads to the end of the compressed file, where its checksum is.
      rest = cast(IO[bytes], archive.fileobj)
      while rest.read(1 << 20):
        pass
  except _DAMAGED:
    raise DataError(f'{path}: damaged or truncated archive. {_again()}') from None


def _again() -> str:
  return f'Download the set again from {DOWNLOAD}'
