"""What is predicted: a task that is known by its name, or what a task file says.

The file is YAML (docs/your_own_task.md), and is checked against task.schema.yaml. What it
leaves open is decided when the labels are read (`label_values`).
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

# The value columns of a label file that a kind of target can be read from.
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
  """What is known of a task before its labels are read.

  Attributes:
    name: a lower-case identifier.
    kind: of target; None: the labels decide.
    classes: display names, in order; empty: the labels, or the task's name, give them.
    values: what a label file has for each of `classes`: all of one type; of a multilabel
      task the names of the label files. Empty: the class itself in `categorical_value`
      and of a label file, its index in the other columns.
    column: the value column; None: the one that has values.
    unit: of a regression.
    low: least label of a regression; None: no limit.
    high: greatest, likewise.
    description: what is predicted.
    horizon: until when.
    labels: where the labels are, if the task file says so.
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
    """The target, with what the labels have decided."""
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
  """The task of that name, as the task file has it.

  Args:
    name: as `--task` gives it; None: as the file does.
    file: a task file.

  Raises:
    DataError: no name or not a name, another than the file's, or a wrong file.
  """
  if file is None:
    if name is None:
      raise DataError('--task is missing: name the task, or give a --task_file.')
    if not re.fullmatch('[a-z][a-z0-9_]{0,62}', name):
      raise DataError(
        f'--task={name}: not a name of a task. Give at most 63 lower-case letters, digits '
        'and _, a letter first; a file that describes the task is --task_file.'
      )
    return KNOWN.get(name, Task(name))
  found = read_task(file)
  if name not in (None, found.name):
    raise DataError(
      f'--task={name}: {file} is of task {found.name}. Leave --task out, or name its task.'
    )
  return found


def read_task(path: Path) -> Task:
  """Reads and checks a task file.

  Raises:
    DataError: not YAML, an unknown key, or entries that contradict each other; the
      message names the file and the entry.
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
        raise EntryError(f'{key}: task {name} has its own; give the task another name')
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
  """The values of classes; empty where they are named alone."""
  # JSON Schema takes 1.0 for an integer.
  values = tuple(
    int(one['value']) if isinstance(one['value'], float) else one['value']
    for one in entries
  )
  if all(value is None for value in values):
    return ()
  if len({type(value) for value in values}) > 1:
    raise EntryError(
      'classes: give all of them a value, and all of one type, or none of them'
    )
  if len(set(values)) < len(values):
    raise EntryError('classes: a value is there twice')
  return values


def _check(task: Task) -> None:
  """Raises EntryError where entries contradict each other."""
  assert task.kind is not None
  if len(set(task.classes)) < len(task.classes):
    raise EntryError('classes: a name is there twice')
  if task.kind == 'binary' and task.classes and len(task.classes) != 2:
    raise EntryError('classes: a binary task has two, the second is the event')
  if task.kind == 'multiclass' and len(task.classes) == 1:
    raise EntryError('classes: a multiclass task has two or more')
  if task.kind == 'regression' and task.classes:
    raise EntryError('classes: a regression has none; its labels are numbers')
  if task.kind != 'regression':
    for key in ('unit', 'low', 'high'):
      if getattr(task, key) not in ('', None):
        raise EntryError(f'{key} is of a regression; this task is {task.kind}')
  elif task.low is not None and task.high is not None and task.low >= task.high:
    raise EntryError('low: not below high')
  allowed = COLUMNS[task.kind]
  if task.column not in (None, *allowed):
    raise EntryError(f'column: a {task.kind} task is read from {" or ".join(allowed)}')
  if task.values:
    _check_values(task, allowed)


def _check_values(task: Task, allowed: tuple[str, ...]) -> None:
  kind = type(task.values[0])
  if task.kind == 'multilabel':
    if kind is not str:
      raise EntryError('classes: the value of a label is the name of its file, a text')
    return
  column = next(name for name, of in _TYPES.items() if of is kind)
  if column not in allowed or task.column not in (None, column):
    raise EntryError(
      f'classes: {kind.__name__} values are of {column}, which is not read here'
    )
