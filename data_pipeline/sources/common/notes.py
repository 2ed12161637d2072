"""Reads notes as vectors of a text model, from a user's parquet file (`--notes=FILE`).

Columns: `sample_id`, or `stay_id` if samples are stays, or `subject_id`; `time`, a
TIMESTAMP without a zone, when the note was written; `vector`, a list of numbers with the
same length in every row. Other columns are not read, except `note_type` and `category`: a
file with discharge summaries is an error, because they are written after the stay and
reveal its outcome.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.format.modalities import Notes
from data_pipeline.format.schema import DataError
from data_pipeline.sources.common.duckdb_files import parquet
from data_pipeline.sources.common.raw_tables import RawTables

NAME = 'clinical_notes'  # of the modality, and of its rows in cohort.json
_KEYS = ('sample_id', 'stay_id', 'subject_id')
_TYPES = ('note_type', 'category')
_REMEDY = 'See docs/sources.md, "Notes".'


@dataclasses.dataclass(frozen=True)
class NotesFile:
  """A checked file of notes.

  Attributes:
    path: the user's file.
    key: the column that names the sample or the subject.
    width: length of a vector.
  """

  path: Path
  key: str
  width: int


def checked(raw: RawTables, path: Path, *, stays: bool) -> NotesFile:
  """Checks a file of notes, before other tables take hours.

  Args:
    raw: any connection; no table of it is read.
    path: the user's file.
    stays: whether samples are stays, so that `stay_id` names one.

  Raises:
    DataError: the file has another format; the message names the column.
  """
  key = _check_columns(path, stays)
  source = parquet(path)
  _refuse_discharge_summaries(raw, path, source)
  return NotesFile(path, key, _width(raw, path, source))


def write_notes(
  raw: RawTables, file: NotesFile, output: Path, *, observation_hours: float | None
) -> tuple[Notes, dict[str, int]]:
  """Writes the staging table of the notes in the observation window.

  Args:
    raw: with the table `samples` (sample_id, subject_id, prediction_time).
    file: from `checked`.
    output: parquet file with columns sample_id, vector, time (hours relative to the
      prediction time).
    observation_hours: length of the window before the prediction time; None: all notes.

  Returns:
    The modality, and row counts.
  """
  source, key, width = parquet(file.path), file.key, file.width
  column = 'subject_id' if key == 'subject_id' else 'sample_id'
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE notes_of_samples AS
    SELECT s.sample_id, n.key, n.time, n.number,
      epoch(n.time - s.prediction_time) / 3600 AS hours
    FROM (
      SELECT TRY_CAST({key} AS BIGINT) AS key, "time", file_row_number AS number
      FROM {_numbered(source)}
    ) n LEFT JOIN samples s ON n.key = s.{column}
  """)
  first = "'-Infinity'" if observation_hours is None else -observation_hours
  counts = raw.counts(f"""
    SELECT 'read', count(DISTINCT number) FROM notes_of_samples
    UNION ALL SELECT CASE
      WHEN key IS NULL OR time IS NULL THEN 'dropped: missing key or time'
      WHEN sample_id IS NULL THEN 'dropped: of no sample'
      WHEN hours > 0 THEN 'dropped: after the prediction time'
      WHEN hours < {first} THEN 'dropped: before the observation window'
      ELSE 'used' END AS reason, count(*)
    FROM notes_of_samples GROUP BY reason
  """)
  raw.copy(
    f"""
    SELECT s.sample_id, CAST(n.vector AS FLOAT[{width}]) AS vector,
      CAST(s.hours AS FLOAT) AS time
    FROM notes_of_samples s
    JOIN (
      SELECT vector, file_row_number AS number FROM {_numbered(source)}
    ) n USING (number)
    WHERE s.hours BETWEEN {first} AND 0
    """,
    output,
  )
  return Notes(width), counts


def _check_columns(path: Path, stays: bool) -> str:
  """The column that names the sample.

  Raises:
    DataError: a column is missing or of another type.
  """
  try:
    found = pq.read_schema(path)
  except (OSError, pa.ArrowInvalid) as error:
    raise DataError(f'--notes={path}: not a parquet file. {_REMEDY}') from error
  keys = [name for name in _KEYS if name in found.names and (stays or name != 'stay_id')]
  if not keys:
    wanted = ', '.join(_KEYS if stays else ('sample_id', 'subject_id'))
    raise DataError(f'--notes={path} has none of the columns {wanted}. {_REMEDY}')
  for name in ('time', 'vector'):
    if name not in found.names:
      raise DataError(f'--notes={path}: column {name} is missing. {_REMEDY}')
  time, vector = found.field('time').type, found.field('vector').type
  if not pa.types.is_timestamp(time) or time.tz is not None:
    raise DataError(
      f'--notes={path}: column time is {time}, not a timestamp without a zone. {_REMEDY}'
    )
  listed = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
  numbers = any(is_list(vector) for is_list in listed) and (
    pa.types.is_floating(vector.value_type) or pa.types.is_integer(vector.value_type)
  )
  if not numbers:
    raise DataError(
      f'--notes={path}: column vector is {vector}, not a list of numbers. {_REMEDY}'
    )
  return keys[0]


def _refuse_discharge_summaries(raw: RawTables, path: Path, source: str) -> None:
  names = {name.lower(): name for name in pq.read_schema(path).names}
  for name in _TYPES:
    if name in names:
      column = '"' + names[name].replace('"', '""') + '"'
      count = raw.value(f"""
        SELECT count(*) FROM {source} WHERE lower(trim(CAST({column} AS VARCHAR))) = 'ds'
          OR lower(CAST({column} AS VARCHAR)) LIKE '%discharge%'
      """)
      if count:
        raise DataError(
          f'--notes={path}: by their {name}, {count} rows are discharge summaries. They '
          'are written after the stay, whatever their time: remove them.'
        )


def _width(raw: RawTables, path: Path, source: str) -> int:
  """The length of a vector.

  Raises:
    DataError: there is no row, vectors have different lengths, or a number is not finite.
  """
  [(rows, shortest, longest, empty, bad)] = raw.run(f"""
    SELECT count(*), min(len(vector)), max(len(vector)), count(*) - count(vector),
      count(*) FILTER (
        list_bool_or(
          [NOT coalesce(isfinite(TRY_CAST(x AS FLOAT)), false) for x in vector]
        )
      )
    FROM {source}
  """).fetchall()
  if not rows:
    raise DataError(f'--notes={path} has no rows.')
  if empty or not longest or shortest != longest:
    lengths = 'some are null' if empty else f'they have {shortest} to {longest} numbers'
    raise DataError(
      f'--notes={path}: all vectors must have the same length of at least 1; {lengths}.'
    )
  if bad:
    raise DataError(f'--notes={path}: {bad} vectors have a missing or non-finite number.')
  return int(longest)


def _numbered(source: str) -> str:
  """The same table function with the column `file_row_number`."""
  return source.removesuffix(')') + ', file_row_number = true)'
