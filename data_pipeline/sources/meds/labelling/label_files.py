"""Finds label files: a parquet file, a folder of them, or several, one per label."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from data_pipeline.format.schema import DataError
from data_pipeline.sources.meds.files import parquet_files


@dataclasses.dataclass(frozen=True)
class LabelFiles:
  """Parquet files, or folders of them: all of one label, or one per label.

  Attributes:
    paths: of files and folders, in order.
    names: of the labels, as long as `paths`: the stem of a file, the name of a folder, or
      as given in a task file.
  """

  paths: tuple[Path, ...]
  names: tuple[str, ...]

  def all_files(self) -> tuple[Path, ...]:
    """The files of all labels."""
    return tuple(file for path in self.paths for file in _files(path))

  def of_each_label(self) -> dict[str, tuple[Path, ...]]:
    """Label -> its files. A single folder has an entry for each label.

    Raises:
      DataError: two labels have the same name.
    """
    paths, names = self.paths, self.names
    if len(paths) == 1 and paths[0].is_dir():
      paths = tuple(
        path
        for path in sorted(paths[0].iterdir())
        if not path.name.startswith(('.', '_'))
        and (path.suffix == '.parquet' or path.is_dir())
      )
      names = tuple(map(_name, paths))
    for name in names:
      if names.count(name) > 1:
        raise DataError(
          f'--labels: two labels have the name {name}. Name them in a --task_file '
          '(labels: {NAME: FILE}); give several files of one label as a folder.'
        )
    return dict(zip(names, map(_files, paths), strict=True))

  def identity(self) -> str:
    """A hash of the files' content, independent of their paths."""
    if len(self.paths) == 1 and self.paths[0].is_file():
      return f'sha256 {_digest(self.paths[0])}'
    contents = [
      [name, [[str(file.relative_to(path)), _digest(file)] for file in _files(path)]]
      for name, path in zip(self.names, self.paths, strict=True)
    ]
    return f'sha256 {hashlib.sha256(json.dumps(contents).encode()).hexdigest()}'


def label_files(
  given: str | list[str] | dict[str, str], folder: Path, where: str = '--labels'
) -> LabelFiles:
  """The files named by `--labels` or a task file.

  Args:
    given: a path; several separated by commas, or as a list; or label -> path.
    folder: to which paths are relative.
    where: the flag or key, for messages.

  Raises:
    DataError: there is no such file or folder, or no parquet file in it.
  """
  if isinstance(given, str):
    alone = (folder / given).exists() or ',' not in given
    given = [given] if alone else [one.strip() for one in given.split(',')]
  names = list(given) if isinstance(given, dict) else None
  texts = list(given.values()) if isinstance(given, dict) else given
  paths = tuple((folder / text).resolve() for text in texts)
  for text, path in zip(texts, paths, strict=True):
    if not text or not path.exists():
      raise DataError(
        f'{where}={text}: no such file or folder. Give a parquet file of labels, a folder '
        'of them, or several separated by commas.'
      )
    _files(path)
  return LabelFiles(paths, tuple(names or map(_name, paths)))


def _name(path: Path) -> str:
  return path.stem if path.is_file() else path.name


def _files(path: Path) -> tuple[Path, ...]:
  return tuple(parquet_files(path)) if path.is_dir() else (path,)


def _digest(path: Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
