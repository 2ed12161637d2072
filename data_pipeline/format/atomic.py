"""Files that are whole or not there: written beside their place, then moved into it."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

PARTIAL = '.partial'  # of what is being written; what is left of one may be removed


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
  """A file to write, which takes the place of `path` at the end; of several the last wins.

  After an error it is removed, and `path` is what it was.
  """
  partial = path.with_name(f'{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}')
  try:
    yield partial
    partial.replace(path)
  except BaseException:
    partial.unlink(missing_ok=True)
    raise


def write_text(path: Path, text: str) -> None:
  """Writes UTF-8, lines as they are."""
  with replacing(path) as partial:
    partial.write_text(text, encoding='utf-8', newline='')


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
  """An empty folder to fill, which takes the place of `folder` at the end.

  After an error it is removed, and `folder` is what it was.
  """
  partial = folder.with_name(f'{folder.name}.{uuid.uuid4().hex[:8]}{PARTIAL}')
  partial.mkdir(parents=True)
  try:
    yield partial
  except BaseException:
    shutil.rmtree(partial)
    raise
  if folder.exists():
    shutil.rmtree(folder)
  partial.replace(folder)
