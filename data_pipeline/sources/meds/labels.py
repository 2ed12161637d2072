"""Task labels in the MEDS label format: one sample for each subject and time."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.format.schema import DataError, Target
from data_pipeline.sources.common import targets
from data_pipeline.sources.common.raw_tables import RawTables
from data_pipeline.sources.meds.files import check, meds_package, parquet_files, read_schema

TARGETS = {
  'mortality': targets.MORTALITY,
  'los': targets.LOS,
  'cvd': targets.CVD,
}
# The value columns that say a task's label, the first that a file has is read.
_COLUMNS = {
  'mortality': ('boolean_value', 'integer_value', 'categorical_value'),
  'los': ('float_value', 'integer_value'),
  'cvd': ('integer_value', 'categorical_value'),
}

Steps = list[dict[str, str | int]]


def make_samples(
  raw: RawTables,
  labels: Path,
  task: str,
  observation_hours: float | None,
  *,
  unlabelled: bool = False,
) -> tuple[Steps, dict[str, int]]:
  """Makes the table `samples` (sample_id, subject_id, prediction_time, start_time, label).

  `sample_id` numbers the samples by subject and prediction time. `start_time` is the
  first time that may be read. Labels of subjects that the data do not hold are dropped.

  Args:
    raw: with the view `data`.
    labels: a parquet file or a folder of them.
    task: a key of `TARGETS`.
    observation_hours: length of the observation window; None: the whole history.
    unlabelled: only subjects and prediction times are read, and every label is null.

  Returns:
    The inclusion steps, and the label rows by reason.

  Raises:
    DataError: not a MEDS label file, a value that the task does not have, two labels
      for one subject and time, or no sample is left.
  """
  paths = parquet_files(labels) if labels.is_dir() else [labels]
  read = _read_times if unlabelled else functools.partial(_read, task=task)
  raw.con.register('label_rows', pa.concat_tables(read(path) for path in paths))
  raw.run('CREATE OR REPLACE TEMP TABLE labels AS SELECT DISTINCT * FROM label_rows')
  count = raw.value('SELECT count(*) FROM label_rows')
  steps = [_step(raw, 'labels', 'label_rows')]
  steps.append(_step(raw, 'one label per subject and time', 'labels'))
  contrary = raw.value("""
    SELECT count(*) FROM (SELECT 1 FROM labels
      GROUP BY subject_id, prediction_time HAVING count(*) > 1)
  """)
  if contrary:
    raise DataError(
      f'{labels}: {contrary} times a subject has different labels for one '
      'prediction_time. Keep one of them.'
    )
  start = "'-infinity'::TIMESTAMP"
  if observation_hours is not None:
    start = f'prediction_time - to_microseconds({round(observation_hours * 3.6e9)})'
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE samples AS
    SELECT row_number() OVER (ORDER BY subject_id, prediction_time) AS sample_id,
      subject_id, prediction_time, {start} AS start_time, label
    FROM labels WHERE subject_id IN (
      SELECT DISTINCT subject_id FROM data WHERE code IS NOT NULL)
  """)
  raw.con.unregister('label_rows')
  steps.append(_step(raw, 'subject in the data', 'samples'))
  kept = steps[-1]['samples']
  if kept == 0:
    raise DataError(
      f'{labels}: no label is of a subject in the data. Check that --labels and --meds '
      'belong to one data set.'
    )
  distinct = int(steps[1]['samples'])
  counts = {
    'read': count,
    'dropped: duplicate': count - distinct,
    'dropped: subject not in the data': distinct - int(kept),
  }
  return steps, {reason: n for reason, n in counts.items() if n or reason == 'read'}


def _read(path: Path, task: str) -> pa.Table:
  """subject_id, prediction_time, label (float64) of one file."""
  schema = read_schema(path)
  check(path, schema, meds_package().LabelSchema)
  # Writers of all four value columns leave those empty that the task does not have.
  table = pq.read_table(path)
  column = next(
    (name for name in _COLUMNS[task]
     if name in schema.names and table[name].null_count < max(table.num_rows, 1)),
    None,
  )  # fmt: skip
  if column is None:
    has = [name for name in schema.names if name.endswith('_value')]
    raise DataError(
      f'{path}: task {task} needs a label in {" or ".join(_COLUMNS[task])}; the file '
      f'has {", ".join(has) or "no value column"}. Check --task, or rename the column.'
    )
  for name in ('subject_id', 'prediction_time', column):
    if table[name].null_count:
      raise DataError(
        f'{path}: column {name} has {table[name].null_count} nulls; MEDS labels have '
        'none. Leave these rows out.'
      )
  labels = _numbers(table[column], TARGETS[task])
  wrong = np.flatnonzero(~np.isfinite(labels))
  if len(wrong):
    raise DataError(
      f'{path}: column {column} has {len(wrong)} values that task {task} does not have, '
      f'the first in row {wrong[0]} (from 0). {_expected(TARGETS[task])}'
    )
  return pa.table({
    'subject_id': table['subject_id'],
    'prediction_time': table['prediction_time'],
    'label': pa.array(labels),
  })  # fmt: skip


def _read_times(path: Path) -> pa.Table:
  """subject_id, prediction_time and a null label of one file."""
  check(path, read_schema(path), meds_package().LabelSchema)
  table = pq.read_table(path, columns=['subject_id', 'prediction_time'])
  for name in table.column_names:
    if table[name].null_count:
      raise DataError(
        f'{path}: column {name} has {table[name].null_count} nulls; MEDS labels have '
        'none. Leave these rows out.'
      )
  return table.append_column('label', pa.nulls(table.num_rows, pa.float64()))


def _numbers(column: pa.ChunkedArray, target: Target) -> np.ndarray:
  """Labels as float64; NaN where the target has no such value."""
  if pa.types.is_boolean(column.type):
    return column.cast(pa.int8()).to_numpy().astype(np.float64)
  if not pa.types.is_integer(column.type) and not pa.types.is_floating(column.type):
    index = {name: float(i) for i, name in enumerate(target.classes)}
    return np.array([index.get(name, np.nan) for name in column.to_pylist()])
  values = column.to_numpy().astype(np.float64)
  return np.where(target.accepts(values), values, np.nan)


def _expected(target: Target) -> str:
  if target.numeric:
    return 'Give days: a finite number, at least 0.'
  named = ', '.join(f'{index} ({name})' for index, name in enumerate(target.classes))
  return f'Give one of {named}.'


def _step(raw: RawTables, text: str, table: str) -> dict[str, str | int]:
  samples, subjects = raw.run(
    f'SELECT count(*), count(DISTINCT subject_id) FROM {table}'
  ).fetchall()[0]
  return {'step': text, 'samples': samples, 'subjects': subjects}
