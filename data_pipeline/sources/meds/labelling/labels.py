"""Makes samples from labels in the MEDS format, one per subject and time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.format.schema import DataError, Target
from data_pipeline.sources.common.duckdb_files import parquet
from data_pipeline.sources.common.raw_tables import RawTables
from data_pipeline.sources.meds.files import check, meds_package, read_schema
from data_pipeline.sources.meds.labelling import label_values
from data_pipeline.sources.meds.labelling.label_files import LabelFiles
from data_pipeline.sources.meds.labelling.tasks import Task

_KEY = ('subject_id', 'prediction_time')
_VALUES = {
  'boolean_value': pa.bool_(),
  'integer_value': pa.int64(),
  'float_value': pa.float32(),
  'categorical_value': pa.string(),
}
# Many data sets only know the day of a death, and write its midnight.
_DEAD = 'INTERVAL 1 DAY'

Steps = list[dict[str, str | int]]


@dataclasses.dataclass(frozen=True)
class Labels:
  """The samples made from label files.

  Attributes:
    target: what their labels mean.
    steps: the inclusion steps.
    counts: table -> label rows, or samples, by reason.
    notes: decisions and oddities that the user should know about.
  """

  target: Target
  steps: Steps
  counts: dict[str, dict[str, int]]
  notes: list[str]


def make_samples(
  raw: RawTables,
  files: LabelFiles,
  task: Task,
  observation_hours: float | None,
  *,
  unlabelled: bool = False,
) -> Labels:
  """Makes the table `samples` (sample_id, subject_id, prediction_time, start_time, label).

  `sample_id` numbers the samples by subject and prediction time. `start_time` is the
  beginning of the observation window. `label` is a DOUBLE, or for a multilabel task a list
  of them, null if unknown. Labels are dropped if the subject is not in the data, or has
  been dead for a day or more.

  Args:
    raw: with the view `data`.
    files: of the labels.
    task: the known properties of the task.
    observation_hours: length of the observation window; None: the whole history.
    unlabelled: only read subjects and prediction times; every label is null.

  Raises:
    DataError: a file is not a MEDS label file, the task does not allow a value, a label is
      ambiguous, a subject and time have two labels, or no sample is left.
  """
  if unlabelled:
    reading = label_values.Reading(label_values.target_without_labels(task), {})
    tables = {'': [(path, _read(path)) for path in files.all_files()]}
  else:
    of_each = _files(task, files)
    tables = {
      name: [(path, _read(path)) for path in paths] for name, paths in of_each.items()
    }
    reading = label_values.decide(task, tables)
  rows = [
    _rows(path, table, entry, name, reading)
    for entry, name in enumerate(reading.columns or tables)
    for path, table in tables[name]
  ]
  raw.con.register('label_rows', pa.concat_tables(rows))
  counts = _make_labels(raw, files, reading)
  steps = [
    _step(raw, 'labels', 'label_rows'),
    _step(raw, 'one sample per subject and time', 'labels'),
  ]
  raw.con.unregister('label_rows')
  steps += _choose(raw, files, observation_hours, counts['labels'])
  notes = [*reading.notes, *_odd(raw, files, task, reading)]
  _count_known(raw, reading, counts, unlabelled)
  counts = {
    table: {reason: n for reason, n in of.items() if n or reason in ('read', 'true')}
    for table, of in counts.items()
  }
  return Labels(reading.target, steps, counts, notes)


def count_without_events(raw: RawTables, tables: Sequence[Path], found: Labels) -> None:
  """Counts the samples, which are kept, without a row in any of these staged tables."""
  rows = ' UNION ALL '.join(f'SELECT sample_id FROM {parquet(path)}' for path in tables)
  n = raw.value(
    f'SELECT count(*) FROM samples WHERE sample_id NOT IN (SELECT sample_id FROM ({rows}))'
  )
  if n:
    found.counts['labels']['kept: no event in its window'] = n
    found.notes.append(
      f'{n} of {found.steps[-1]["samples"]} samples have no event in their observation '
      'window. Check that prediction times and events use the same clock.'
    )


def _files(task: Task, files: LabelFiles) -> dict[str, tuple[Path, ...]]:
  """Label -> its files: several paths, or the entries of a multilabel task's folder."""
  several = len(files.paths) > 1
  if task.kind == 'multilabel' or (several and task.kind is None):
    return files.of_each_label()
  if several:
    raise DataError(
      f'--labels: {len(files.paths)} files or folders, one per label, but task '
      f'{task.name} is {task.kind}, which has one label. Give one file, or the folder '
      'of all its files.'
    )
  return {task.name: files.all_files()}


def _read(path: Path) -> pa.Table:
  """The columns of a label file, with all four value columns, null if absent."""
  schema = read_schema(path)
  _check_times(path, schema)
  check(path, schema, meds_package().LabelSchema)
  table = pq.read_table(path)
  for name in _KEY:
    if table[name].null_count:
      aces = (
        ' (ACES: give a window of the task configuration an index_timestamp)'
        if table[name].null_count == table.num_rows and name == 'prediction_time'
        else ''
      )
      raise DataError(
        f'{path}: column {name} has {table[name].null_count} nulls; every label needs a '
        f'subject and a time{aces}. Remove these rows.'
      )
  columns = {name: table[name] for name in _KEY}
  for name, kind in _VALUES.items():
    has = name in table.column_names
    columns[name] = table[name].cast(kind) if has else pa.nulls(len(table), kind)
  return pa.table(columns)


def _check_times(path: Path, schema: pa.Schema) -> None:
  """Raises DataError, with the remedy, if prediction times are of another type."""
  if 'prediction_time' not in schema.names:
    return
  kind = schema.field('prediction_time').type
  remedy = None
  if pa.types.is_date(kind):
    remedy = 'has days without a time. Write the prediction time'
  elif pa.types.is_timestamp(kind) and kind.tz is not None:
    remedy = (
      f'has a time zone ({kind.tz}), but times of MEDS have none. Write them like the '
      'times of the events'
    )
  elif kind != pa.timestamp('us'):
    remedy = f'is {kind}'
  if remedy is not None:
    raise DataError(
      f'{path}: column prediction_time {remedy}, as timestamp[us] (pandas: '
      "astype('datetime64[us]'); polars: cast(pl.Datetime('us')))."
    )


def _rows(
  path: Path, table: pa.Table, entry: int, name: str, reading: label_values.Reading
) -> pa.Table:
  """subject_id, prediction_time, entry (of a label vector) and label of a file."""
  if reading.columns:
    label = label_values.to_numbers(path, table, reading.columns[name], reading)
  else:
    label = pa.nulls(len(table), pa.float64())
  entries = pa.repeat(pa.scalar(entry, pa.int32()), len(table))
  return table.select(_KEY).append_column('entry', entries).append_column('label', label)


def _make_labels(
  raw: RawTables, files: LabelFiles, reading: label_values.Reading
) -> dict[str, dict[str, int]]:
  """Makes `labels` (subject_id, prediction_time, label) from `label_rows`.

  Equal rows are merged, and so are a label and a null.
  """
  raw.run("""
    CREATE OR REPLACE TEMP TABLE entries AS
    SELECT subject_id, prediction_time, entry, max(label) AS label,
      count(DISTINCT label) AS different, count(*) AS copies
    FROM label_rows GROUP BY subject_id, prediction_time, entry
  """)
  names = list(reading.columns)
  contrary = raw.run("""
    SELECT entry, count(*) FROM entries WHERE different > 1
    GROUP BY entry ORDER BY entry LIMIT 1
  """).fetchall()
  if contrary:
    [(entry, n)] = contrary
    path = files.paths[0] if len(files.paths) == 1 else names[entry]
    raise DataError(
      f'{path}: {n} times a subject has different labels for one prediction_time. Keep one '
      'of them; if each file of a folder is one label, the task needs kind: multilabel.'
    )
  label = 'max(label)'
  if reading.target.kind == 'multilabel':
    each = ', '.join(
      f'max(label) FILTER (entry = {entry})' for entry in range(reading.target.label_length)
    )
    label = f'[{each}]'
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE labels AS
    SELECT subject_id, prediction_time, {label} AS label
    FROM entries GROUP BY subject_id, prediction_time
  """)
  counts = {
    'read': raw.value('SELECT count(*) FROM label_rows'),
    'dropped: duplicate': raw.value('SELECT coalesce(sum(copies - 1), 0) FROM entries'),
  }
  return {'labels': counts}


def _choose(
  raw: RawTables,
  files: LabelFiles,
  observation_hours: float | None,
  counts: dict[str, int],
) -> Steps:
  """Makes `samples` from `labels`; returns the steps, and adds dropped rows to `counts`."""
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE present AS
    SELECT subject_id, min(time) FILTER (starts_with(code, 'MEDS_DEATH')) + {_DEAD} AS dead
    FROM data WHERE code IS NOT NULL AND subject_id IN (SELECT subject_id FROM labels)
    GROUP BY subject_id
  """)
  raw.run("""
    CREATE OR REPLACE TEMP TABLE labels_of_present AS
    SELECT labels.*, coalesce(prediction_time >= dead, false) AS is_dead
    FROM labels JOIN present USING (subject_id)
  """)
  start = "'-infinity'::TIMESTAMP"
  if observation_hours is not None:
    start = f'prediction_time - to_microseconds({round(observation_hours * 3.6e9)})'
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE samples AS
    SELECT row_number() OVER (ORDER BY subject_id, prediction_time) AS sample_id,
      subject_id, prediction_time, {start} AS start_time, label
    FROM labels_of_present WHERE NOT is_dead
  """)
  distinct, present, kept = (
    raw.value(f'SELECT count(*) FROM {table}')
    for table in ('labels', 'labels_of_present', 'samples')
  )
  where = files.paths[0]
  if present == 0:
    raise DataError(
      f'{where}: no label is of a subject in the data. Check that --labels and --meds '
      'belong to the same data set.'
    )
  if kept == 0:
    raise DataError(
      f'{where}: every prediction_time is a day or more after MEDS_DEATH. Check the times.'
    )
  counts['dropped: subject not in the data'] = distinct - present
  counts['dropped: a day or more after MEDS_DEATH'] = present - kept
  return [
    _step(raw, 'subject in the data', 'labels_of_present'),
    _step(raw, 'not dead for a day or more', 'samples'),
  ]


def _count_known(
  raw: RawTables,
  reading: label_values.Reading,
  counts: dict[str, dict[str, int]],
  unlabelled: bool,
) -> None:
  """Counts samples with an unknown label; for a multilabel task, per label."""
  if unlabelled:
    return
  unknown = 'kept: label not known'
  if reading.target.kind != 'multilabel':
    counts['labels'][unknown] = raw.value(
      'SELECT count(*) FROM samples WHERE label IS NULL'
    )
    return
  for entry, name in enumerate(reading.columns):
    [(missing, true)] = raw.run(f"""
      SELECT count(*) FILTER (label[{entry + 1}] IS NULL),
        count(*) FILTER (label[{entry + 1}] = 1) FROM samples
    """).fetchall()
    counts[f'label {name}'] = {unknown: missing, 'true': true}


def _odd(
  raw: RawTables, files: LabelFiles, task: Task, reading: label_values.Reading
) -> list[str]:
  """Notes on data that are read literally but may be meant differently."""
  notes = []
  paths = files.all_files()
  if task.kind is None and len(files.paths) == 1 and len(paths) > 1:
    notes.append(
      f'{len(paths)} files of {files.paths[0]} are read as parts of one label. If each '
      'file is a label, use a --task_file with kind: multilabel.'
    )
  if raw.value("""
    SELECT bool_and(prediction_time = date_trunc('day', prediction_time)) FROM samples
  """):
    notes.append(
      f'task {task.name}: every prediction_time is a midnight. If they are days, no event '
      'of that day is read; write the prediction time instead.'
    )
  return notes


def _step(raw: RawTables, text: str, table: str) -> dict[str, str | int]:
  samples, subjects = raw.run(
    f'SELECT count(*), count(DISTINCT subject_id) FROM {table}'
  ).fetchall()[0]
  return {'step': text, 'samples': samples, 'subjects': subjects}
