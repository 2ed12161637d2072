"""Sources: each folder turns one raw format into staging parquet (docs/sources.md).

A source is a package in this folder with

  TASKS                                    the tasks that it can prepare; None: any name
  Settings                                 a frozen dataclass; each field is a flag
  stage(task, staging, settings, resources) -> Staged

No other code needs to be changed for a new source. What sources share is in `common`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import pkgutil
from pathlib import Path
from typing import (
  Any,
  Literal,
  Protocol,
  get_args,
  get_type_hints,
  runtime_checkable,
)

from data_pipeline.format.schema import DataError, Schema


@dataclasses.dataclass(frozen=True)
class Resources:
  """The resources that a preparation may use.

  Attributes:
    memory_limit: DuckDB's memory limit, for example '4GB'.
    threads: threads of DuckDB.
  """

  memory_limit: str = '1GB'
  threads: int = 2


@dataclasses.dataclass(frozen=True)
class Staged:
  """The result of `stage`, beside the staging files.

  Attributes:
    schema: the data set's schema.
    cohort: {'steps': [{'step', 'samples', 'subjects'}], 'rows': {table: {reason: n}}}, and
      optionally 'notes': decisions that the user should know about.
    versions: name and version of each raw data set that was read.
  """

  schema: Schema
  cohort: dict[str, Any]
  versions: dict[str, str]


class Source(Protocol):
  """The interface of a source's package.

  If `TASKS` is None, labels come with the data: `Settings` then has a method
  `task_name(task: str | None) -> str`, which checks the name or supplies it.
  """

  TASKS: tuple[str, ...] | None
  Settings: type

  def stage(self, task: str, staging: Path, settings: Any, resources: Resources) -> Staged:
    """Writes the staging files of a task (docs/design.md) to the folder `staging`."""
    ...


@runtime_checkable
class Identified(Protocol):
  """A setting with its own text for `recorded`, such as the content of a file."""

  def identity(self) -> str:
    """The text that is recorded for this setting."""
    ...


def setting(
  help_text: str,
  *,
  default: Any = dataclasses.MISSING,
  recorded: bool | Literal['unless default'] = True,
) -> Any:
  """A field of a source's `Settings`, which is also its flag of the same name.

  Args:
    help_text: for `--help`.
    default: without one, the flag is required.
    recorded: whether two preparations that differ in the setting are different data sets.
      'unless default': they are, but the default is not recorded; for settings that are
      newer than existing data sets.
  """
  return dataclasses.field(
    default=default, metadata={'help': help_text, 'recorded': recorded}
  )


def existing(flag: str, path: Path, kind: str = 'folder') -> None:
  """Raises DataError unless a setting names an existing folder or file."""
  if not (path.is_dir() if kind == 'folder' else path.is_file()):
    raise DataError(f'--{flag}={path}: no such {kind}.')


def names() -> tuple[str, ...]:
  """All sources: the packages of this folder except `common`."""
  packages = (m.name for m in pkgutil.iter_modules(__path__) if m.ispkg)
  return tuple(sorted(name for name in packages if name != 'common'))


def load(name: str) -> Source:
  """The source of that name.

  Raises:
    DataError: there is no such source.
  """
  check_choice('source', name, names())
  return importlib.import_module(f'{__name__}.{name}')  # pyright: ignore[reportReturnType]


def make_settings(source: str, values: dict[str, Any]) -> Any:
  """A source's `Settings` from flag values.

  Args:
    source: its name.
    values: by flag name; paths may be strings.

  Raises:
    DataError: a value is missing, unknown, not one of its choices, or names no existing
      path.
  """
  kind = load(source).Settings
  fields = {field.name: field for field in dataclasses.fields(kind)}
  for name in values:
    if name not in fields:
      raise DataError(
        f'--{name}: not an option of source {source}; it has '
        f'{", ".join(f"--{known}" for known in fields)}.'
      )
  types = get_type_hints(kind)
  given = {}
  for name, field in fields.items():
    if name not in values:
      if field.default is dataclasses.MISSING:
        raise DataError(f'--{name} is missing: {field.metadata["help"]}')
    elif Path in (types[name], *get_args(types[name])):
      given[name] = Path(values[name]).resolve()
    else:
      choices = tuple(c for c in get_args(types[name]) if isinstance(c, str))
      if choices:
        check_choice(name, values[name], choices)
      given[name] = values[name]
  return kind(**given)


def task_name(source: str, task: str | None, settings: Any) -> str:
  """The name of the task to prepare.

  Args:
    source: its name.
    task: given by the user; None if not given.
    settings: of the source.

  Raises:
    DataError: the source has no such task, or no task is given.
  """
  tasks = load(source).TASKS
  if tasks is None:
    return settings.task_name(task)
  check_choice('task', task, tasks)
  return str(task)


def recorded(settings: Any) -> dict[str, Any]:
  """The settings that identify a data set, as JSON-able values.

  A file is recorded by its content, not its path: an edited file makes another data set.
  """
  return {
    field.name: _identity(value)
    for field in dataclasses.fields(settings)
    if field.metadata['recorded']
    for value in [getattr(settings, field.name)]
    if value is not None
    and not (field.metadata['recorded'] == 'unless default' and value == field.default)
  }


def _identity(value: Any) -> Any:
  if isinstance(value, Identified):
    return value.identity()
  path = Path(str(value))
  if path.is_absolute() and path.is_file():
    with open(path, 'rb') as file:
      return f'sha256 {hashlib.file_digest(file, "sha256").hexdigest()}'
  return str(value) if isinstance(value, Path) else value


def check_choice(flag: str, value: Any, choices: tuple[str, ...]) -> None:
  """Raises a DataError that lists the choices unless `value` is one of them."""
  if value not in choices:
    raise DataError(f'--{flag}={value}: give one of {", ".join(choices)}.')
