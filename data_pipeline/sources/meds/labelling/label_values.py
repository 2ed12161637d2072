"""Interprets the value columns of label files: kind of target, classes, labels as numbers.

The task decides; anything it leaves open is decided by the rules of `decide`, and every
such decision is a note for the user.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_pipeline.format.schema import DataError, Target
from data_pipeline.sources.meds.labelling.tasks import COLUMNS, PAGE, Kind, Task

# An integer column with more distinct values than this is a count, not classes.
_MOST_INTEGER_CLASSES = 20
_MOST_CLASSES = 100

# Label -> its files, each with the columns that `labels` reads.
Tables = Mapping[str, Sequence[tuple[Path, pa.Table]]]


@dataclasses.dataclass(frozen=True)
class Reading:
  """How the labels of a task are read.

  Attributes:
    target: of the data set.
    columns: label -> its value column.
    values: the column's value for each class in order, or, of a multilabel target, for
      false and true; empty for a regression.
    notes: decisions that the user should know about.
  """

  target: Target
  columns: Mapping[str, str]
  values: tuple[str | int | bool, ...] = ()
  notes: tuple[str, ...] = ()


def decide(task: Task, tables: Tables) -> Reading:
  """Decides which column is read, and how.

  Without a kind, `boolean_value` is binary, `float_value` a regression, `categorical_value`
  multiclass with the categories in alphabetical order, and `integer_value` binary if it
  only has 0 and 1, and a regression if it has more than 20 different values.

  Args:
    task: the known properties of the task.
    tables: of each label; several for a multilabel task.

  Raises:
    DataError: no column or several columns have values, the values are ambiguous, or they
      do not fit the task.
  """
  if task.kind == 'multilabel' or (task.kind is None and len(tables) > 1):
    return _multilabel(task, tables)
  [(label, found)] = tables.items()
  column = _column(task, task.kind, found)
  kind = task.kind or _kind(task, column, found)
  classes, values = task.classes, task.values
  guessed = task.kind is None
  if kind == 'binary' and not classes:
    if column == 'categorical_value':
      raise DataError(
        f'{_where(found)}: it is not defined which category is the event of binary task '
        f'{task.name}. List both as classes, the event last ({PAGE}).'
      )
    classes = task.binary_classes
  elif kind == 'multiclass' and not classes:
    values = _distinct_classes(task, column, found)
    classes = tuple(map(str, values))
    guessed = True
  notes = ()
  if guessed:
    notes = (_note(task, f'{column} is read as {kind}', classes),)
  if kind != 'regression':
    values = values or _default_values(column, classes)
  return Reading(task.target(kind, classes), {label: column}, values, notes)


def target_without_labels(task: Task) -> Target:
  """The target of samples without labels, which are only predicted.

  Raises:
    DataError: the target depends on labels.
  """
  if task.kind == 'regression':
    return task.target(task.kind, ())
  if task.kind == 'binary':
    return task.target(task.kind, task.binary_classes)
  if task.kind and task.classes:
    return task.target(task.kind, task.classes)
  lacks = 'kind' if task.kind is None else 'classes'
  raise DataError(
    f'--unlabelled: without labels the {lacks} of task {task.name} is unknown. Give a '
    f'--task_file with {lacks}: those of the data set that the model was trained on '
    '(schema.target in its dataset.json).'
  )


def to_numbers(path: Path, table: pa.Table, column: str, reading: Reading) -> pa.Array:
  """The labels of a file as float64, null if unknown.

  Raises:
    DataError: the target does not allow a value.
  """
  found = table[column].combine_chunks()
  known = found.is_valid().to_numpy(zero_copy_only=False)
  numbers = np.full(len(found), np.nan)
  if reading.values:
    encoded = found.dictionary_encode()
    index = {value: float(number) for number, value in enumerate(reading.values)}
    of_value = [index.get(value, np.nan) for value in encoded.dictionary.to_pylist()]
    numbers[known] = np.array(of_value)[encoded.indices.drop_null().to_numpy()]
  else:
    numbers[known] = found.drop_null().cast(pa.float64()).to_numpy()
  wrong = known & (np.isnan(numbers) | ~reading.target.accepts(numbers))
  if wrong.any():
    raise DataError(
      f'{path}: column {column} has {int(wrong.sum())} values that the task does not '
      f'allow, the first in row {int(np.argmax(wrong))} (from 0). {_expected(reading)}'
    )
  return pa.array(numbers, mask=~known)


def _multilabel(task: Task, tables: Tables) -> Reading:
  names = task.values or task.classes
  if names:
    for name in {*map(str, names)} ^ {*tables}:
      if name in tables:
        raise DataError(
          f'--labels: the classes of task {task.name} do not include {name}. Remove its '
          'file, or add it to the classes.'
        )
      raise DataError(
        f'--labels: no file or folder has the name {name}, a label of task {task.name}. '
        'Add it, or name the files in the task file (labels: {NAME: FILE}).'
      )
  order = [str(name) for name in names] or list(tables)
  columns = {name: _column(task, 'multilabel', tables[name]) for name in order}
  classes = task.classes or tuple(order)
  notes = ()
  if not task.classes:
    notes = (_note(task, f'{len(order)} labels are read as multilabel', classes),)
  return Reading(task.target('multilabel', classes), columns, (0, 1), notes)


def _column(task: Task, kind: Kind | None, found: Sequence[tuple[Path, pa.Table]]) -> str:
  """The value column to read."""
  allowed = COLUMNS[kind] if kind else ('boolean_value', 'float_value',
                                        'integer_value', 'categorical_value')  # fmt: skip
  if task.column:
    allowed = (task.column,)
  if task.values and kind != 'multilabel':
    is_bool, is_int = (isinstance(task.values[0], of) for of in (bool, int))
    one = 'boolean' if is_bool else 'integer' if is_int else 'categorical'
    allowed = (f'{one}_value',)
  has = [
    name
    for name in ('boolean_value', 'integer_value', 'float_value', 'categorical_value')
    if any(table[name].null_count < table.num_rows for _, table in found)
  ]
  filled = [name for name in allowed if name in has]
  if not filled:
    raise DataError(
      f'{_where(found)}: task {task.name} needs a label in {" or ".join(allowed)}; '
      f'{"values are in " + ", ".join(has) if has else "no value column has a value"}. '
      'Check --task, or rename the column; samples without labels are --unlabelled.'
    )
  if len(filled) > 1:
    raise DataError(
      f'{_where(found)}: there are values in {" and in ".join(filled)}. Choose the label '
      f'in a --task_file, for example column: {filled[0]}, or remove the other.'
    )
  return filled[0]


def _kind(task: Task, column: str, found: Sequence[tuple[Path, pa.Table]]) -> Kind:
  if column != 'integer_value':
    kinds: dict[str, Kind] = {
      'boolean_value': 'binary',
      'float_value': 'regression',
      'categorical_value': 'multiclass',
    }
    return kinds[column]
  values = _distinct(column, found)
  if set(values) <= {0, 1}:
    return 'binary'
  if len(values) > _MOST_INTEGER_CLASSES:
    return 'regression'
  raise DataError(
    f'{_where(found)}: integer_value has {len(values)} different values, which may be '
    f'classes or a count. Choose in a --task_file: name: {task.name}, kind: multiclass or '
    f'regression ({PAGE}).'
  )


def _distinct(column: str, found: Sequence[tuple[Path, pa.Table]]) -> list:
  """The different values of a column, sorted."""
  values = {value for _, table in found for value in table[column].unique().to_pylist()}
  return sorted(values - {None})


def _distinct_classes(
  task: Task, column: str, found: Sequence[tuple[Path, pa.Table]]
) -> tuple[str | int, ...]:
  values = _distinct(column, found)
  if not 2 <= len(values) <= _MOST_CLASSES:
    raise DataError(
      f'{_where(found)}: {column} has {len(values)} different values, but there must be '
      f'two to {_MOST_CLASSES} classes. List the classes of task {task.name} in a '
      f'--task_file ({PAGE}).'
    )
  return tuple(values)


def _default_values(column: str, classes: tuple[str, ...]) -> tuple[str | int | bool, ...]:
  """The column's value for each class, if the task does not define it."""
  if column == 'categorical_value':
    return classes
  return (False, True) if column == 'boolean_value' else tuple(range(len(classes)))


def _note(task: Task, text: str, classes: tuple[str, ...]) -> str:
  names = f', in the order {", ".join(classes)}' if classes else ''
  return (
    f'task {task.name}: {text}{names}. If this is wrong, describe the task in a '
    f'--task_file ({PAGE}).'
  )


def _where(found: Sequence[tuple[Path, pa.Table]]) -> str:
  path = found[0][0]
  return str(path) if len(found) == 1 else f'{path} and {len(found) - 1} more'


def _expected(reading: Reading) -> str:
  target = reading.target
  if target.kind == 'multilabel':
    return 'Give true or false (or 1 or 0), and null if unknown.'
  if target.numeric:
    limits = [
      text
      for text, limit in (('at least', target.low), ('at most', target.high))
      if limit is not None
      for text in [f'{text} {limit:g}']
    ]
    return f'Give {", ".join(["a finite number", *limits, target.unit]).rstrip(", ")}.'
  named = ', '.join(
    name if str(value) == name else f'{value} ({name})'
    for value, name in zip(reading.values, target.classes, strict=True)
  )
  return f'Give one of {named}.'
