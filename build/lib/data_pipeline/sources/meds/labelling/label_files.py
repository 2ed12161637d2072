"""Where labels lie: a parquet file, a folder of them, or several, one a label."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from data_pipeline.format.schema import DataError
from data_pipeline.sources.meds.files import parquet_files


@dataclasses.dataclass(frozen=True)
class LabelFiles:
  """Parquet files, or folders of them: of one label, or one a label.

  Attributes:
    paths: of files and folders, in order.
    names: of the labels, as long as `paths`: the stem of a file, the name of a folder, or
      as a task file says.
  """

  paths: tuple[Path, ...]
  names: tuple[str, ...]

  def all_files(self) -> tuple[Path, ...]:
    """The files of all labels."""
    return tuple(file for path in self.paths for file in _files(path))

  def of_each_label(self) -> dict[str, tuple[Path, ...]]:
    """Label -> its files. A folder that stands alone has an entry for each label.

    Raises:
      DataError: two labels have one name.
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
          f'--labels: two labels are called {name}. Name them in a --task_file '
          '(labels: {NAME: FILE}); the files of one label are given as their folder.'
        )
    return dict(zip(names, map(_files, paths), strict=True))

  def identity(self) -> str:
    """What the files contain, wherever they lie."""
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
  """What `--labels` or a task file names.

  Args:
    given: a path; several with commas between them, or as a list; or label -> path.
    folder: that paths are relative to.
    where: what names them, for messages.

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
        'of them, or several with commas between them.'
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
