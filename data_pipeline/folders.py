"""Folders that users name: creates them, and recognises files in them that are not data."""

from __future__ import annotations

import os
from pathlib import Path

from data_pipeline.format.schema import DataError

_LEFT_BEHIND = ('.ds_store', 'thumbs.db', 'desktop.ini', '.ipynb_checkpoints')


def make(folder: Path, flag: str) -> None:
  """Creates a folder to write to, with its parents, unless it exists.

  Args:
    folder: to create.
    flag: that names it, for the message.

  Raises:
    DataError: the folder cannot be created or written to, or its name has a backslash,
      which tensorstore (for checkpoints) would read as a slash.
  """
  if '\\' in str(folder):
    raise DataError(f'{flag}={folder}: give a name without a backslash.')
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    reason = 'is a file' if isinstance(error, FileExistsError) else error.strerror
    raise DataError(f'{flag}={folder}: cannot create this folder: {reason}.') from None
  if not os.access(folder, os.W_OK | os.X_OK):
    raise DataError(
      f'{flag}={folder}: cannot write to this folder. Give another one, or give this user '
      'permission to write.'
    )


def is_foreign(path: Path) -> bool:
  """Whether a file name belongs to files that other programs leave in data folders.

  Finder (`.DS_Store`, `._name`), Windows (`Thumbs.db`), notebooks (`.ipynb_checkpoints`).
  """
  return path.name.startswith('._') or path.name.lower() in _LEFT_BEHIND
