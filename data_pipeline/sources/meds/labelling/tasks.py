"""Tasks of MEDS data sets: known by name, or described in a task file.

The file is YAML (docs/your_own_task.md) and is checked against task.schema.yaml. Anything
it leaves open is decided when the labels are read (`label_values`).
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, Literal

from data_pipeline.format.schema import DataError, Target
from data_pipeline.sources.common import targets
from data_pipeline.sources.meds.checked_yaml import EntryError, read_checked
from data_pipeline.sources.meds.labelling.label_files import LabelFiles, label_files

Kind = Literal['binary', 'multiclass', 'multilabel', 'regression']

# Kind of target -> the value columns of a label file that it can be read from.
COLUMNS: dict[Kind, tuple[str, ...]] = {
  'binary': ('boolean_value', 'integer_value', 'categorical_value'),
  'multiclass': ('integer_value', 'categorical_value'),
  'multilabel': ('boolean_value', 'integer_value'),
  'regression': ('float_value', 'integer_value'),
}
_TYPES = {'boolean_value': bool, 'integer_value': int, 'categorical_value': str}
PAGE = 'docs/your_own_task.md'


@dataclasses.dataclass(frozen=True)
class Task:
  """The properties of a task that are known before its labels are read.

  Attributes:
    name: a lower-case identifier.
    kind: of target; None: the labels decide.
    classes: display names, in order; empty: defined by the labels or the task's name.
    values: the label file's value for each of `classes`, all of one type; of a multilabel
      task, the names of the label files. Empty: the class itself in `categorical_value` and
      as name of a label file, its index in the other columns.
    column: the value column; None: the one that has values.
    unit: of a regression.
    low: smallest label of a regression; None: no limit.
    high: largest label of a regression; None: no limit.
    description: what is predicted.
    horizon: until when.
    labels: the label files, if the task file names them.
  """

  name: str
  kind: Kind | None = None
  classes: tuple[str, ...] = ()
  values: tuple[str | int | bool, ...] = ()
  column: str | None = None
  unit: str = ''
  low: float | None = None
  high: float | None = None
  description: str = ''
  horizon: str = ''
  labels: LabelFiles | None = None

  def target(self, kind: Kind, classes: tuple[str, ...]) -> Target:
    """The target, completed with the kind and classes that the labels have decided."""
    return Target(
      kind, classes, self.unit, self.low, self.high, self.description, self.horizon
    )

  @property
  def binary_classes(self) -> tuple[str, ...]:
    """The two classes of a binary task; the second is the event."""
    return self.classes or (f'no_{self.name}', self.name)


def _known(name: str, target: Target) -> Task:
  fields = {one.name: getattr(target, one.name) for one in dataclasses.fields(target)}
  return Task(name, **fields)


KNOWN = {
  'mortality': _known('mortality', targets.MORTALITY),
  'los': _known('los', targets.LOS),
  'cvd': _known('cvd', targets.CVD),
}


def task_of(name: str | None, file: Path | None) -> Task:
  """The task of that name, completed by the task file.

  Args:
    name: from `--task`; None: the name in the file.
    file: a task file.

  Raises:
    DataError: the name is missing, invalid or different from the file's, or the file is
      invalid.
  """
  if file is None:
    if name is None:
      raise DataError('--task is missing: give the task, or a --task_file.')
    if not re.fullmatch('[a-z][a-z0-9_]{0,62}', name):
      raise DataError(
        f'--task={name}: not a valid task name. Give at most 63 lower-case letters, digits '
        'and _, a letter first; use --task_file for a file that describes the task.'
      )
    return KNOWN.get(name, Task(name))
  found = read_task(file)
  if name not in (None, found.name):
    raise DataError(
      f'--task={name}: {file} describes task {found.name}. Remove --task, or give its name.'
    )
  return found


def read_task(path: Path) -> Task:
  """Reads and checks a task file.

  Raises:
    DataError: the file is not YAML, has an unknown key, or entries that contradict each
      other; the message names the file and the entry.
  """
  fields = read_checked(path, 'task.schema.yaml', PAGE)
  try:
    return _task(fields, path)
  except EntryError as error:
    raise DataError(f'{path}: {error}') from None


def _task(fields: dict[str, Any], path: Path) -> Task:
  name = fields['name']
  told = {key: fields[key] for key in ('description', 'horizon') if key in fields}
  if 'labels' in fields:
    told['labels'] = label_files(fields['labels'], path.parent, f'{path}: labels')
  if name in KNOWN:
    for key in ('kind', 'classes', 'unit', 'low', 'high'):
      if key in fields:
        raise EntryError(
          f'{key}: task {name} already defines it; give the task another name'
        )
    task = dataclasses.replace(KNOWN[name], **told, column=fields.get('column'))
  else:
    if 'kind' not in fields:
      raise EntryError(f'kind is missing; give one of {", ".join(COLUMNS)}')
    told |= {key: fields[key] for key in ('unit', 'low', 'high') if key in fields}
    entries = [
      {'value': None, 'name': one} if isinstance(one, str) else one
      for one in fields.get('classes', ())
    ]
    task = Task(
      name,
      fields['kind'],
      tuple(one.get('name', str(one['value'])) for one in entries),
      _values(entries),
      fields.get('column'),
      **told,
    )
  _check(task)
  if task.kind == 'multilabel' and task.labels and not task.classes:
    task = dataclasses.replace(task, classes=tuple(task.labels.of_each_label()))
  return task


def _values(entries: list[dict[str, Any]]) -> tuple[str | int | bool, ...]:
  """The values of classes; empty if only names are given."""
  # JSON Schema accepts 1.0 as an integer.
  values = tuple(
    int(one['value']) if isinstance(one['value'], float) else one['value']
    for one in entries
  )
  if all(value is None for value in values):
    return ()
  if len({type(value) for value in values}) > 1:
    raise EntryError('classes: give either all of them a value of the same type, or none')
  if len(set(values)) < len(values):
    raise EntryError('classes: a value is repeated')
  return values


def _check(task: Task) -> None:
  """Raises EntryError if entries contradict each other."""
  assert task.kind is not None
  if len(set(task.classes)) < len(task.classes):
    raise EntryError('classes: a name is repeated')
  if task.kind == 'binary' and task.classes and len(task.classes) != 2:
    raise EntryError('classes: a binary task must have two; the second is the event')
  if task.kind == 'multiclass' and len(task.classes) == 1:
    raise EntryError('classes: a multiclass task must have two or more')
  if task.kind == 'regression' and task.classes:
    raise EntryError('classes: a regression must have none; its labels are numbers')
  if task.kind != 'regression':
    for key in ('unit', 'low', 'high'):
      if getattr(task, key) not in ('', None):
        raise EntryError(f'{key} is only for a regression; this task is {task.kind}')
  elif task.low is not None and task.high is not None and task.low >= task.high:
    raise EntryError('low must be below high')
  allowed = COLUMNS[task.kind]
  if task.column not in (None, *allowed):
    raise EntryError(f'column: a {task.kind} task is read from {" or ".join(allowed)}')
  if task.values:
    _check_values(task, allowed)


def _check_values(task: Task, allowed: tuple[str, ...]) -> None:
  kind = type(task.values[0])
  if task.kind == 'multilabel':
    if kind is not str:
      raise EntryError(
        'classes: the value of a label must be the name of its file, as text'
      )
    return
  column = next(name for name, of in _TYPES.items() if of is kind)
  if column not in allowed or task.column not in (None, column):
    raise EntryError(
      f'classes: {kind.__name__} values are of {column}, which is not read here'
    )
