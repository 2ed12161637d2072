"""Label files of MEDS: one sample for each subject and time, whatever is predicted."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline import sources
from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.schema import DataError, Target
from data_pipeline.preparation.build import prepare
from tests.support.meds_data import DataSet, at

COLUMNS = ('boolean_value', 'integer_value', 'float_value', 'categorical_value')


@pytest.fixture
def data(tmp_path):
  found = DataSet(tmp_path)
  found.add('LAB//crea//mg/dL', -1, 1)
  return found


def times(count, subject=1):
  return [(subject, at(k / 10)) for k in range(count)]


@pytest.mark.parametrize(
  ('task', 'column', 'values', 'expected'),
  [
    ('mortality', 'boolean_value', [True, False], [1, 0]),
    ('mortality', 'integer_value', [1, 0], [1, 0]),
    ('mortality', 'categorical_value', ['died', 'survived'], [1, 0]),
    ('los', 'float_value', [2.5, 0.0], [2.5, 0]),
    ('los', 'integer_value', [2, 0], [2, 0]),
    ('cvd', 'integer_value', [3, 1], [3, 1]),
    ('cvd', 'categorical_value', ['HF', 'non_CVD'], [3, 0]),
  ],
)
def test_tasks_that_are_known_by_name(data, task, column, values, expected):
  data.task, data.values, data.labels = task, {column: values}, times(2)
  staged = data.stage()
  assert staged.schema.task == task and staged.cohort['notes'] == []
  assert data.table('samples', 'sample_id').label.tolist() == expected


@pytest.mark.parametrize(
  ('column', 'values', 'target', 'expected', 'note'),
  [
    (
      'boolean_value', [False, True, True],
      Target('binary', ('no_sepsis', 'sepsis')), [0, 1, 1],
      'boolean_value is read as binary',
    ),
    (
      'integer_value', [1, 0, 0],
      Target('binary', ('no_sepsis', 'sepsis')), [1, 0, 0],
      'integer_value is read as binary, in the order no_sepsis, sepsis',
    ),
    ('integer_value', [*range(-1, 20)], Target('regression'), [*range(-1, 20)],
     'integer_value is read as regression'),
    ('float_value', [2.5, -1, 0], Target('regression'), [2.5, -1, 0],
     'float_value is read as regression'),
    (
      'categorical_value', ['mild', 'severe', 'dead'],
      Target('multiclass', ('dead', 'mild', 'severe')), [1, 2, 0],
      'categorical_value is read as multiclass, in the order dead, mild, severe',
    ),
  ],
)  # fmt: skip
def test_any_task_is_what_its_column_says_and_that_is_told(
  data, column, values, target, expected, note
):
  """The other columns are there and empty, as ACES writes them."""
  data.task, data.labels = 'sepsis', times(len(values))
  data.values = {name: [None] * len(values) for name in COLUMNS} | {column: values}
  staged = data.stage()
  assert (staged.schema.task, staged.schema.target) == ('sepsis', target)
  assert data.table('samples', 'sample_id').label.tolist() == expected
  [told] = staged.cohort['notes']
  assert note in told and '--task_file' in told


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'integer_value': [0, 1, 2]}, 'integer_value has 3 .* classes or a count'),
    ({'boolean_value': [True] * 3, 'float_value': [1.0] * 3},
     'values in boolean_value and in float_value. .*column: boolean_value'),
    ({'categorical_value': ['x'] * 3}, 'has 1 different values.* List the classes'),
    ({'boolean_value': [None] * 3}, 'no value column has a value'),
    ({}, 'no value column has a value.*--unlabelled'),
  ],
)  # fmt: skip
def test_what_cannot_be_decided_is_refused(data, values, message):
  data.task, data.labels, data.values = 'sepsis', times(3), values
  with pytest.raises(DataError, match=message):
    data.stage()


def test_too_many_categories_are_not_classes(data):
  data.task, data.labels = 'sepsis', times(101)
  data.values = {'categorical_value': [f'text {k}' for k in range(101)]}
  with pytest.raises(
    DataError, match='has 101 different values, but there must be two to 100'
  ):
    data.stage()


@pytest.mark.parametrize(
  ('fields', 'values', 'target', 'expected'),
  [
    ({'kind': 'binary'}, {'boolean_value': [True, False]},
     Target('binary', ('no_x', 'x')), [1, 0]),
    ({'kind': 'binary', 'classes': ['stays', 'leaves']}, {'boolean_value': [True, False]},
     Target('binary', ('stays', 'leaves')), [1, 0]),
    ({'kind': 'binary', 'classes': ['stays', 'leaves']},
     {'categorical_value': ['leaves', 'stays']},
     Target('binary', ('stays', 'leaves')), [1, 0]),
    ({'kind': 'binary', 'classes': [{'value': True, 'name': 'bad'}, {'value': False}]},
     {'boolean_value': [True, False]}, Target('binary', ('bad', 'False')), [0, 1]),
    ({'kind': 'binary', 'column': 'integer_value'},
     {'boolean_value': [True, True], 'integer_value': [0, 1]},
     Target('binary', ('no_x', 'x')), [0, 1]),
    ({'kind': 'multiclass', 'classes': ['a', 'b', 'c']}, {'integer_value': [2, 0]},
     Target('multiclass', ('a', 'b', 'c')), [2, 0]),
    ({'kind': 'multiclass',
      'classes': [{'value': 30, 'name': 'home'}, {'value': 10, 'name': 'ward'}]},
     {'integer_value': [10, 30]}, Target('multiclass', ('home', 'ward')), [1, 0]),
    ({'kind': 'multiclass', 'classes': [{'value': 'SNF', 'name': 'rehab'}, {'value': 'H'}]},
     {'categorical_value': ['H', 'SNF']}, Target('multiclass', ('rehab', 'H')), [1, 0]),
    ({'kind': 'multiclass'}, {'integer_value': [7, 3]},
     Target('multiclass', ('3', '7')), [1, 0]),
    ({'kind': 'regression', 'unit': 'days', 'low': 0, 'high': 9,
      'description': 'days on a ventilator', 'horizon': 'within 28 days'},
     {'integer_value': [0, 9]},
     Target('regression', (), 'days', 0, 9, 'days on a ventilator', 'within 28 days'),
     [0, 9]),
    ({'kind': 'regression'}, {'float_value': [0.5, 9], 'boolean_value': [True, True]},
     Target('regression'), [0.5, 9]),
  ],
)  # fmt: skip
def test_a_task_file_decides(data, fields, values, target, expected):
  data.task, data.labels, data.values = None, times(2), values
  data.task_file = {'name': 'x'} | fields
  staged = data.stage()
  assert (staged.schema.task, staged.schema.target) == ('x', target)
  assert data.table('samples', 'sample_id').label.tolist() == expected
  told = staged.cohort['notes']
  # Only classes that come from the labels are something to look at.
  assert bool(told) == (fields['kind'] == 'multiclass' and 'classes' not in fields)


@pytest.mark.parametrize(
  ('task', 'values', 'message'),
  [
    ('los', {'boolean_value': [True, False]},
     'label in float_value or integer_value; values are in boolean_value'),
    ('los', {'float_value': [1.0, -1.0]},
     r'has 1 values .*first in row 1 .*number, at least 0, days\.'),
    ('los', {'float_value': [float('nan'), 1.0]}, 'first in row 0'),
    ('los', {'float_value': [float('inf'), 1.0]}, 'first in row 0'),
    ('cvd', {'integer_value': [4, 0]}, r'3 \(HF\)'),
    ('cvd', {'categorical_value': ['HF', 'flu']}, 'first in row 1'),
    ('mortality', {'integer_value': [0, 2]}, r'1 \(died\)'),
    ('mortality', {'boolean_value': [True, True], 'integer_value': [0, 1]},
     'values in boolean_value and in integer_value'),
    ('mortality', {}, 'no value column'),
  ],
)  # fmt: skip
def test_labels_that_do_not_fit(data, task, values, message):
  data.task, data.values, data.labels = task, values, times(2)
  with pytest.raises(DataError, match=message):
    data.stage()


@pytest.mark.parametrize(
  ('fields', 'values', 'message'),
  [
    ({'kind': 'regression', 'high': 5}, {'float_value': [6, 1]},
     r'first in row 0 .*a finite number, at most 5\.'),
    ({'kind': 'binary'}, {'categorical_value': ['a', 'b']}, 'the event last'),
    ({'kind': 'binary'}, {'float_value': [0, 1]},
     'boolean_value or integer_value or categorical_value; values are in float_value'),
    ({'kind': 'multiclass', 'classes': [{'value': 1}, {'value': 2}]},
     {'integer_value': [1, 3]}, r'first in row 1 .*one of 1, 2\.'),
    ({'kind': 'multiclass', 'classes': ['a', 'b']}, {'boolean_value': [True, False]},
     'integer_value or categorical_value'),
  ],
)  # fmt: skip
def test_labels_that_do_not_fit_the_task_file(data, fields, values, message):
  data.task, data.labels, data.values = None, times(2), values
  data.task_file = {'name': 'x'} | fields
  with pytest.raises(DataError, match=message):
    data.stage()


def test_rows_are_dropped_or_kept_by_rule_and_counted(data):
  for subject in (1, 2):
    data.add('LAB//crea//mg/dL', -1, 1, subject=subject)
  data.add('MEDS_DEATH', 10, subject=2)
  rows = [
    (1, at(0), True),
    (1, at(0), True),  # the same again
    (1, at(0), None),  # says nothing that the others do not
    (1, at(1), None),  # not known
    (1, at(48), False),  # nothing in the window
    (7, at(0), True),  # nobody
    (2, at(0), False),
    (2, at(33), True),  # less than a day after death: its hour may not be known
    (2, at(34), True),
  ]
  data.labels = [row[:2] for row in rows]
  data.values = {'boolean_value': [row[2] for row in rows], 'float_value': [None] * 9}
  cohort = data.stage().cohort
  assert cohort['rows']['labels'] == {
    'read': 9,
    'dropped: duplicate': 2,
    'dropped: subject not in the data': 1,
    'dropped: a day or more after MEDS_DEATH': 1,
    'kept: label not known': 1,
    'kept: no event in its window': 2,
  }
  assert [(step['samples'], step['subjects']) for step in cohort['steps']] == [
    (9, 3), (7, 3), (6, 2), (5, 2),
  ]  # fmt: skip
  samples = data.table('samples', 'sample_id')
  expected = [1, np.nan, 0, 0, 1]
  np.testing.assert_array_equal(samples.label, expected)
  assert samples.sample_id.tolist() == [1, 2, 3, 4, 5]
  [note] = cohort['notes']
  assert '2 of 5 samples have no event' in note


@pytest.mark.parametrize(
  ('labels', 'message'),
  [
    ([(1, None), (1, at(1))], 'prediction_time has 1 nulls'),
    ([(1, None), (1, None)], r'prediction_time has 2 nulls.*\(ACES: .*index_timestamp\)'),
    ([(None, at(0)), (1, at(1))], 'subject_id has 1 nulls'),
    ([(1, at(0)), (1, at(0))], '1 times a subject has different labels'),
    ([(5, at(0)), (6, at(0))], 'no label is of a subject in the data'),
    ([(2, at(0)), (2, at(1))], 'every prediction_time is a day or more after MEDS_DEATH'),
  ],
)
def test_labels_without_a_sample(data, labels, message):
  data.add('MEDS_DEATH', -24, subject=2)
  data.labels, data.values = labels, {'boolean_value': [True, False]}
  with pytest.raises(DataError, match=message):
    data.stage()


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'prediction_time': pa.timestamp('us', 'UTC')},
     r'labels.parquet: column prediction_time has a time zone \(UTC\).*the events'),
    ({'prediction_time': pa.date32()}, 'has days without a time. Write the predict'),
    ({'prediction_time': pa.timestamp('ns')},
     r"is timestamp\[ns\], as timestamp\[us\] \(pandas: astype\('datetime64\[us\]'\)"),
    ({'prediction_time': pa.string()}, 'prediction_time is string'),
    ({'subject_id': pa.int32()}, r'subject_id \(want int64, got int32\)'),
    ({'boolean_value': pa.string()}, r'boolean_value \(want bool, got string\)'),
    ({'prediction_time': None}, 'Missing required columns: prediction_time'),
  ],
)  # fmt: skip
def test_columns_of_a_wrong_type(data, change, message):
  data.write()
  path = data.folder / 'labels.parquet'
  table = pq.read_table(path)
  for name, kind in change.items():
    column = table[name]
    table = table.drop_columns(name)
    if kind is not None:
      table = table.append_column(name, column.cast(kind))
  pq.write_table(table, path)
  data.labels = None
  with pytest.raises(DataError, match=message):
    data.stage(labels=str(path))


def test_days_in_disguise_are_told(data):
  data.labels = [(1, dt.datetime(2150, 3, day)) for day in (1, 2)]
  data.values = {'boolean_value': [True, False]}
  notes = data.stage().cohort['notes']
  assert any('every prediction_time is a midnight' in note for note in notes)


def test_text_columns_of_any_writer(data):
  data.task, data.labels = 'cvd', times(2)
  values = pa.array(['HF', 'CHD']).dictionary_encode()
  data.values = {'categorical_value': values}
  data.stage()
  assert data.table('samples', 'sample_id').label.tolist() == [3, 1]
  data.values = {'categorical_value': values.cast(pa.large_string())}
  data.stage()
  assert data.table('samples', 'sample_id').label.tolist() == [3, 1]


def write_three_labels(data, folder):
  """aki, sepsis and stroke: nested, with an unknown, and with a time of its own."""
  data.write_labels(folder / 'aki/train/0.parquet', times(2), boolean_value=[True, False])
  data.write_labels(folder / 'aki/held_out/0.parquet', [(2, at(0))], boolean_value=[True])
  data.write_labels(
    folder / 'sepsis.parquet', [*times(2), (1, at(0))], integer_value=[None, 1, 0]
  )
  data.write_labels(folder / 'stroke.parquet', [(1, at(0.1)), (1, at(5))],
                    boolean_value=[False, True])  # fmt: skip
  return [[1, 0, None], [0, 1, 0], [None, None, 1], [1, None, None]]


def vectors(data):
  """Labels in the order of the samples, None where they are not known."""
  found = data.table('samples', 'sample_id').label
  return [[None if np.isnan(of) else of for of in vector] for vector in found]


def test_several_label_files_are_several_labels(data):
  data.add('LAB//crea//mg/dL', -1, 1, subject=2)
  expected = write_three_labels(data, data.folder / 'cohorts')
  data.task, data.labels = 'complications', None
  names = ('aki', 'sepsis.parquet', 'stroke.parquet')
  given = ','.join(str(data.folder / 'cohorts' / name) for name in names)
  staged = data.stage(labels=given)
  assert staged.schema.target == Target('multilabel', ('aki', 'sepsis', 'stroke'))
  assert vectors(data) == expected
  rows = staged.cohort['rows']
  assert rows['labels'] == {'read': 8, 'dropped: duplicate': 1}
  assert rows['label aki'] == {'kept: label not known': 1, 'true': 2}
  assert rows['label sepsis'] == {'kept: label not known': 2, 'true': 1}
  assert rows['label stroke'] == {'kept: label not known': 2, 'true': 1}
  [note] = staged.cohort['notes']
  assert '3 labels are read as multilabel, in the order aki, sepsis, stroke' in note


@pytest.mark.parametrize(
  'labels',
  [
    'cohorts',
    ['cohorts/aki', 'cohorts/sepsis.parquet', 'cohorts/stroke.parquet'],
    {'aki': 'cohorts/aki', 'stroke': 'cohorts/stroke.parquet',
     'sepsis': 'cohorts/sepsis.parquet'},
    None,
  ],
)  # fmt: skip
def test_a_task_file_lists_labels_with_display_names(data, labels):
  data.add('LAB//crea//mg/dL', -1, 1, subject=2)
  expected = write_three_labels(data, data.folder / 'cohorts')
  data.task, data.labels = None, None
  data.task_file = {
    'name': 'complications',
    'kind': 'multilabel',
    'classes': [
      {'value': 'stroke', 'name': 'Stroke'},
      {'value': 'aki', 'name': 'Acute kidney injury'},
      {'value': 'sepsis'},
    ],
  }
  changes = {}
  if labels is None:
    changes = {'labels': str(data.folder / 'cohorts')}
  else:
    data.task_file['labels'] = labels
  staged = data.stage(**changes)
  classes = ('Stroke', 'Acute kidney injury', 'sepsis')
  assert staged.schema.target == Target('multilabel', classes)
  assert vectors(data) == [[of[2], of[0], of[1]] for of in expected]
  assert staged.cohort['notes'] == [
    note for note in staged.cohort['notes'] if 'no event' in note
  ]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'classes': ['aki', 'sepsis']}, 'classes of task complications do not include stroke'),
    ({'classes': ['aki', 'sepsis', 'stroke', 'gout']}, 'no file or folder has the name'),
    ({'kind': 'binary', 'labels': ['cohorts/aki', 'cohorts/stroke.parquet']},
     '2 files or folders, one per label, but task complications is binary'),
    ({'labels': ['cohorts/aki/train/0.parquet', 'cohorts/aki/held_out/0.parquet']},
     'two labels have the name 0. Name them'),
    ({'labels': {'aki': 'cohorts/aki', 'days': 'days.parquet'}},
     'days.parquet: task complications needs a label in boolean_value or integer_value'),
    ({'labels': {'aki': 'cohorts/aki', 'twice': 'twice.parquet'}},
     'twice: 1 times a subject has different labels'),
    ({'labels': {'aki': 'cohorts/aki', 'many': 'many.parquet'}},
     r'many.parquet: .*first in row 1 .*true or false \(or 1 or 0\)'),
    ({'labels': 'nothing'}, 'task.yaml: labels=nothing: no such file or folder'),
  ],
)  # fmt: skip
def test_labels_that_are_not_those_of_the_task(data, change, message):
  write_three_labels(data, data.folder / 'cohorts')
  data.write_labels(data.folder / 'days.parquet', times(1), float_value=[1.5])
  data.write_labels(data.folder / 'many.parquet', times(2), integer_value=[1, 2])
  data.write_labels(
    data.folder / 'twice.parquet', times(1) * 2, boolean_value=[True, False]
  )
  data.task, data.labels = None, None
  data.task_file = {'name': 'complications', 'kind': 'multilabel', 'labels': 'cohorts'}
  data.task_file |= change
  with pytest.raises(DataError, match=message):
    data.stage()


def test_a_folder_without_a_task_file_is_one_label_and_that_is_told(data):
  folder = data.folder / 'cohort'
  data.write_labels(folder / 'a.parquet', times(1), boolean_value=[True])
  # A shard without anybody, as ACES leaves it: its columns have no value.
  data.write_labels(folder / 'b/0.parquet', [], **{name: [] for name in COLUMNS})
  data.task, data.labels = 'sepsis', None
  staged = data.stage(labels=str(folder))
  assert staged.schema.target.kind == 'binary' and len(data.table('samples')) == 1
  assert any('2 files of' in note and 'multilabel' in note
             for note in staged.cohort['notes'])  # fmt: skip
  data.write_labels(folder / 'c.parquet', times(1), boolean_value=[False])
  with pytest.raises(DataError, match=r'different labels .*kind: multilabel'):
    data.stage(labels=str(folder))


@pytest.mark.parametrize('task', ['mortality', 'x'])
@pytest.mark.parametrize('has_values', [True, False])
def test_samples_to_be_predicted_need_no_value(data, task, has_values):
  data.task, data.values = task, {'boolean_value': [True]} if has_values else {}
  data.task_file = {'name': 'x', 'kind': 'binary'} if task == 'x' else None
  staged = data.stage(unlabelled=True)
  assert data.table('samples').label.isna().tolist() == [True]
  assert staged.cohort['rows']['labels'] == {'read': 1}
  # As a data set with labels has it, so that its model predicts these samples.
  data.values = {'boolean_value': [True]}
  assert data.stage().schema.target == staged.schema.target


def test_unlabelled_samples_of_every_kind(data):
  data.task, data.values = None, {}
  for fields in (
    {'kind': 'multilabel', 'classes': ['aki', 'sepsis']},
    {'kind': 'multiclass', 'classes': ['a', 'b', 'c']},
    {'kind': 'regression', 'unit': 'days'},
  ):
    data.task_file = {'name': 'x'} | fields
    target = data.stage(unlabelled=True).schema.target
    assert (target.kind, list(target.classes)) == (
      fields['kind'],
      fields.get('classes', []),
    )
    label = data.table('samples', 'sample_id').label[0]
    assert np.isnan(label).all() and np.size(label) == target.label_length


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (None, 'the kind of task x is unknown. Give a --task_file with kind'),
    ({'kind': 'multiclass'}, 'the classes of task x'),
    ({'kind': 'multilabel'}, 'the classes of task x'),
  ],
)
def test_unlabelled_samples_without_a_target(data, fields, message):
  data.task, data.values = 'x', {}
  data.task_file = None if fields is None else {'name': 'x'} | fields
  with pytest.raises(DataError, match=message):
    data.stage(unlabelled=True)


def test_prepared_from_end_to_end(data, capsys):
  """A multilabel task with unknowns, by the command's own function."""
  folder = data.folder / 'cohorts'
  for subject in range(1, 13):
    data.add('LAB//crea//mg/dL', -1, 1 + subject / 10, subject=subject)
  everyone = [(subject, at(0)) for subject in range(1, 13)]
  data.write_labels(folder / 'aki.parquet', everyone, boolean_value=[True, False] * 6)
  data.write_labels(folder / 'sepsis.parquet', everyone[:8], boolean_value=[False] * 8)
  data.labels, data.task_file = None, {
    'name': 'complications', 'kind': 'multilabel', 'labels': 'cohorts',
  }  # fmt: skip
  settings = data.write()
  out = data.folder / 'out'
  given = {
    'meds': settings.meds, 'mapping': settings.mapping, 'task_file': settings.task_file,
  }  # fmt: skip
  run = lambda **changes: prepare(
    source='meds', task=None, out=out, workers=1, **(given | changes)
  )
  run()
  dataset = open_dataset(out)
  assert dataset.schema.task == 'complications'
  assert dataset.schema.target == Target('multilabel', ('aki', 'sepsis'))
  index = pd.read_parquet(out / 'index.parquet')
  by_subject = dict(zip(index.subject_id, index.label, strict=True))
  assert list(by_subject[1]) == [1, 0]
  assert by_subject[10][0] == 0 and np.isnan(by_subject[10][1])
  assert json.loads((out / 'cohort.json').read_text())['rows']['label sepsis'] == {
    'kept: label not known': 4, 'true': 0,
  }  # fmt: skip
  capsys.readouterr()
  run()
  assert 'nothing to do' in capsys.readouterr().err
  # Another label is another data set, wherever the files lie.
  data.write_labels(folder / 'sepsis.parquet', everyone[:8], boolean_value=[True] * 8)
  with pytest.raises(DataError, match=r'created by a different request \(labels is sha256'):
    run()


def test_notes_are_told_by_the_command(data, capsys):
  for subject in range(1, 13):
    data.add('LAB//crea//mg/dL', -1, 1 + subject / 10, subject=subject)
  data.labels = [(subject, at(0)) for subject in range(1, 13)]
  data.values = {'integer_value': [0, 1] * 6}
  settings = data.write()
  given = {'meds': settings.meds, 'mapping': settings.mapping,
           'labels': str(data.folder / 'labels.parquet')}  # fmt: skip
  out = prepare(source='meds', task='frail', out=data.folder / 'o', workers=1, **given)
  assert 'note: task frail: integer_value is read as binary' in capsys.readouterr().err
  [note] = json.loads((out / 'cohort.json').read_text())['notes']
  assert 'integer_value is read as binary, in the order no_frail, frail' in note


def test_one_label_file_is_its_content(data):
  """As it was before there were several, so that data sets stay what they are."""
  settings = data.write()
  same = sources.recorded(settings)
  assert set(same) == {'meds', 'labels', 'mapping', 'unlabelled'}
  moved = data.folder / 'elsewhere.parquet'
  moved.write_bytes((data.folder / 'labels.parquet').read_bytes())
  moved_settings = dataclasses.replace(settings, labels=str(moved))
  assert sources.recorded(moved_settings) == same and same['labels'].startswith('sha256 ')
