"""Folders of users: made or refused in one line; files in them that are no data."""

from __future__ import annotations

import os
from pathlib import Path

from data_pipeline.format.schema import DataError

_LEFT_BEHIND = ('.ds_store', 'thumbs.db', 'desktop.ini', '.ipynb_checkpoints')


def make(folder: Path, flag: str) -> None:
  """Makes a folder to write to, with those above it, or finds that it is there.

  Args:
    folder: to be made.
    flag: that names it, for the message.

  Raises:
    DataError: it cannot be made, or not be written to, or its name has a backslash, which
      tensorstore, to whom the arrays of checkpoints are given, takes for a slash.
  """
  if '\\' in str(folder):
    raise DataError(f'{flag}={folder}: give a name without a backslash.')
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    reason = 'is a file' if isinstance(error, FileExistsError) else error.strerror
    raise DataError(f'{flag}={folder}: no folder can be made here: {reason}.') from None
  if not os.access(folder, os.W_OK | os.X_OK):
    raise DataError(
      f'{flag}={folder}: this folder cannot be written to. Name another one, or give this '
      'user the right to write.'
    )


def is_foreign(path: Path) -> bool:
  """Whether a name is that of a file which other systems leave beside data.

  Finder (`.DS_Store`, `._name`), Windows (`Thumbs.db`), notebooks (`.ipynb_checkpoints`).
  """
  return path.name.startswith('._') or path.name.lower() in _LEFT_BEHIND
