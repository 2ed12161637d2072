"""Task files of MEDS: what they may say, and the one line where they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from data_pipeline import sources
from data_pipeline.format.schema import DataError
from data_pipeline.sources.common import targets
from data_pipeline.sources.meds.labelling.tasks import read_task, task_of
from tests.support.meds_data import DataSet


def write(folder, fields):
  path = folder / 'task.yaml'
  path.write_text(fields if isinstance(fields, str) else yaml.safe_dump(fields))
  return path


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({}, "the file: 'name' is a required property"),
    ({'name': 'Long stay'}, "name: 'Long stay' does not match"),
    ({'name': 'x' * 64}, 'name: .* does not match'),
    ({'name': 'x'}, 'kind is missing; give one of binary, multiclass, multilabel, regr'),
    ({'name': 'x', 'kind': 'classes'}, "kind: 'classes' is not one of"),
    ({'name': 'x', 'kind': 'binary', 'window': 24}, "'window' was unexpected"),
    ({'name': 'x', 'kind': 'binary', 'horizon': 48}, "horizon: 48 is not of type 'string'"),
    ({'name': 'x', 'kind': 'binary', 'classes': [False, True]},
     r"classes\[.\]: .*is not of type 'string', 'object'. .*quotes; docs/your_own_task.md"),
    ({'name': 'x', 'kind': 'binary', 'description': 'a\nb'}, 'description: .*not match'),
    ({'name': 'x', 'kind': 'binary', 'classes': ['a', 'b', 'c']}, 'binary task must have'),
    ({'name': 'x', 'kind': 'multiclass', 'classes': ['a']}, 'multiclass task must have'),
    ({'name': 'x', 'kind': 'regression', 'classes': ['a', 'b']}, 'regression must have'),
    ({'name': 'x', 'kind': 'multiclass', 'classes': ['a', 'a']}, 'a name is repeated'),
    ({'name': 'x', 'kind': 'multiclass', 'classes': ['a', {'value': 1}]},
     'give either all of them a value of the same type'),
    ({'name': 'x', 'kind': 'multiclass', 'classes': [{'value': 'a'}, {'value': 1}]},
     'of the same type'),
    ({'name': 'x', 'kind': 'multiclass',
      'classes': [{'value': 1, 'name': 'a'}, {'value': 1, 'name': 'b'}]},
     'a value is repeated'),
    ({'name': 'x', 'kind': 'multiclass', 'classes': [{'value': True}, {'value': False}]},
     'bool values are of boolean_value, which is not read here'),
    ({'name': 'x', 'kind': 'binary', 'column': 'boolean_value',
      'classes': [{'value': 1}, {'value': 2}]}, 'int values are of integer_value'),
    ({'name': 'x', 'kind': 'multilabel', 'classes': [{'value': 1}, {'value': 2}]},
     'the value of a label must be the name of its file'),
    ({'name': 'x', 'kind': 'binary', 'unit': 'days'}, 'unit is only for a regression'),
    ({'name': 'x', 'kind': 'multilabel', 'low': 0}, 'low is only for a regression'),
    ({'name': 'x', 'kind': 'regression', 'low': 2, 'high': 2}, 'low must be below high'),
    ({'name': 'x', 'kind': 'regression', 'column': 'boolean_value'},
     'column: a regression task is read from float_value or integer_value'),
    ({'name': 'los', 'unit': 'hours'}, 'task los already defines it; give'),
    ({'name': 'mortality', 'kind': 'binary'}, 'kind: task mortality already defines it'),
    ({'name': 'x', 'kind': 'multilabel', 'labels': {'a': 'b'}}, 'labels=b: no such file'),
    ('name: x\nname: y', "'name' occurs twice"),
    ('- name', "the file: .*is not of type 'object'"),
  ],
)  # fmt: skip
def test_wrong_task_files(tmp_path, fields, message):
  path = write(tmp_path, fields)
  with pytest.raises(DataError, match=f'task.yaml: .*{message}'):
    read_task(path)


def test_a_known_task_keeps_its_meaning(tmp_path):
  fields = {'name': 'mortality', 'description': 'death', 'horizon': 'this stay'}
  task = read_task(write(tmp_path, fields))
  assert task.kind is not None
  target = task.target(task.kind, task.classes)
  assert (target.kind, target.classes) == ('binary', targets.MORTALITY.classes)
  assert (target.description, target.horizon) == ('death', 'this stay')
  los = task_of('los', None)
  assert los.target('regression', ()) == targets.LOS


@pytest.mark.parametrize('name', ['', 'Sepsis', '1st', 'a-b', 'a b', 'a.yaml', 'x' * 64])
def test_names_that_are_none(name):
  with pytest.raises(DataError, match=r'not a valid task name.*--task_file'):
    task_of(name, None)


def test_the_name_comes_from_the_flag_or_the_file(tmp_path):
  path = write(tmp_path, {'name': 'long_stay', 'kind': 'binary'})
  data = DataSet(tmp_path)
  data.add('LAB//crea//mg/dL', -1, 1)
  settings = data.write(task_file=path)
  assert sources.task_name('meds', None, settings) == 'long_stay'
  assert sources.task_name('meds', 'long_stay', settings) == 'long_stay'
  with pytest.raises(
    DataError, match=r'--task=mortality: .*task.yaml describes task long_stay'
  ):
    sources.task_name('meds', 'mortality', settings)
  settings = data.write()
  assert sources.task_name('meds', 'anything', settings) == 'anything'
  with pytest.raises(DataError, match='--task is missing'):
    sources.task_name('meds', None, settings)


def test_other_sources_have_their_tasks_alone():
  with pytest.raises(DataError, match='--task=sepsis: give one of mortality, los'):
    sources.task_name('physionet2012', 'sepsis', None)
  with pytest.raises(DataError, match='--task=None: give one of'):
    sources.task_name('physionet2012', None, None)


def test_labels_are_needed(tmp_path):
  data = DataSet(tmp_path)
  data.labels = None
  with pytest.raises(DataError, match='--labels is missing'):
    data.write()
  path = write(tmp_path, {'name': 'x', 'kind': 'binary'})
  with pytest.raises(DataError, match='--labels is missing'):
    data.write(task_file=path)
  with pytest.raises(DataError, match=r'--task_file=.*no such file'):
    data.write(task_file=Path('nothing.yaml'))


def test_the_flag_takes_the_place_of_the_labels_of_the_file(tmp_path):
  """So that one task file serves another hospital."""
  data = DataSet(tmp_path)
  data.add('LAB//crea//mg/dL', -1, 1)
  data.write_labels(tmp_path / 'other.parquet', data.labels, boolean_value=[False])
  data.task, data.task_file = (
    None,
    {'name': 'x', 'kind': 'binary', 'labels': 'other.parquet'},
  )
  data.stage()
  assert data.table('samples').label.tolist() == [1]
  data.labels = None
  data.stage()
  assert data.table('samples').label.tolist() == [0]
