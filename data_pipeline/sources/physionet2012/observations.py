"""Converts record texts to observations in DuckDB: values, repairs, reasons for drops."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pyarrow as pa
from tqdm import tqdm

from data_pipeline.format.schema import DataError
from data_pipeline.sources.common import cells
from data_pipeline.sources.common.items import make_table
from data_pipeline.sources.common.raw_tables import RawTables
from data_pipeline.sources.physionet2012 import records
from data_pipeline.sources.physionet2012.variables import repairs, variables

HOURS = 48
_BATCH = 250  # records, about 2 MB of text


def read(raw: RawTables, sets: list[records.RecordSet]) -> None:
  """Makes the tables `cells` and `records` of all files of a set.

  `cells` has record, line, time, parameter and value: the last three are texts, or null if
  a line does not have three cells. `records` has record and of_set.

  Raises:
    DataError: as `records.texts`, or a record is repeated.
  """
  raw.run('CREATE OR REPLACE TEMP TABLE records (record BIGINT, of_set VARCHAR)')
  raw.run("""
    CREATE OR REPLACE TEMP TABLE cells (record BIGINT, line INTEGER, time VARCHAR,
      parameter VARCHAR, value VARCHAR)
  """)
  for one in sets:
    stream = iter(tqdm(records.texts(one), desc=one.name, unit='record'))
    for batch in _batches(stream):
      numbers, texts = zip(*batch, strict=True)
      names = [one.name] * len(numbers)
      raw.con.register(
        'batch', pa.table({'record': numbers, 'of_set': names, 'text': texts})
      )
      raw.run('INSERT INTO records SELECT record, of_set FROM batch')
      raw.run("""
        INSERT INTO cells
        WITH lines AS (
          SELECT record, unnest(string_split(text, chr(10))) AS content,
            generate_subscripts(string_split(text, chr(10)), 1) AS line
          FROM batch
        ), split AS (
          SELECT record, line, string_split(rtrim(content, chr(13)), ',') AS part
          FROM lines WHERE rtrim(content, chr(13)) <> ''
        )
        SELECT record, line, if(len(part) = 3, part[1], NULL),
          if(len(part) = 3, part[2], NULL), if(len(part) = 3, part[3], NULL)
        FROM split
      """)
      raw.con.unregister('batch')
  twice = raw.run("""
    SELECT record, min(of_set), max(of_set) FROM records
    GROUP BY record HAVING count(*) > 1 ORDER BY record
  """).fetchall()
  if twice:
    record, first, last = twice[0]
    raise DataError(
      f'record {record} is repeated, in {first} and in {last} ({len(twice)} such '
      'records). Keep one of the copies.'
    )


def resolve(raw: RawTables) -> dict[str, int]:
  """Makes the table `observations` from `cells` for the records of `samples`.

  Its columns: record, line, minute, variable (index into `variables()`), static (whether
  it is known on admission), value (after repair; null for a category), category, reason
  (why it is dropped, else null). The first of equal rows, and of several static rows of a
  variable, is kept.

  Returns:
    Rows read, dropped and repaired, by reason.

  Raises:
    DataError: more than a small share of the times or values are unreadable.
  """
  _register(raw)
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE observations AS
    WITH numbers AS (
      SELECT c.record, c.line, v.variable, v.role, v.low, v.high, v.has_codes,
        c.parameter IS NOT NULL AS complete, s.record IS NOT NULL AS wanted,
        if(regexp_full_match(c.time, '[0-9]{{2,3}}:[0-5][0-9]'),
          TRY_CAST(split_part(c.time, ':', 1) AS INTEGER) * 60
          + TRY_CAST(split_part(c.time, ':', 2) AS INTEGER), NULL) AS minute,
        {cells.value('c.value', 'DOUBLE', 'VARCHAR')} AS number,
        c.parameter = 'RecordID' AS is_id
      FROM cells c
      LEFT JOIN variables v ON v.name = c.parameter
      LEFT JOIN samples s ON s.record = c.record
    ), read AS (
      SELECT n.*, k.category, r.reason AS repair,
        coalesce(n.number * r.scale + r.shift, n.number) AS repaired,
        n.role = 'static' OR (n.role = 'both' AND n.minute = 0) AS static
      FROM numbers n
      LEFT JOIN codes k ON k.variable = n.variable AND k.code = n.number
      LEFT JOIN repairs r ON r.variable = n.variable AND n.number BETWEEN r.low AND r.high
    ), judged AS (
      SELECT *, CASE
        WHEN NOT wanted THEN 'dropped: the stay is not in the cohort'
        WHEN NOT complete THEN 'dropped: not three cells'
        WHEN is_id THEN 'RecordID'
        WHEN variable IS NULL THEN 'dropped: unknown parameter'
        WHEN minute IS NULL THEN 'dropped: unreadable time'
        WHEN number IS NULL OR NOT isfinite(number) THEN 'dropped: unreadable value'
        WHEN number = -1 THEN 'missing: -1'
        WHEN role = 'static' AND minute > 0 THEN 'dropped: descriptor after 00:00'
        WHEN minute > {HOURS * 60} THEN 'dropped: after 48:00'
        WHEN has_codes AND category IS NULL THEN 'dropped: unlisted category'
        WHEN NOT has_codes AND repaired NOT BETWEEN low AND high
          THEN 'dropped: outside physiologic limits'
      END AS reason
      FROM read
    )
    SELECT record, line, minute, variable, static, category, repair,
      if(has_codes, NULL, repaired) AS value,
      coalesce(reason, if(row_number() OVER (
        PARTITION BY record, variable, if(static, -1, minute), reason,
          if(static, NULL, repaired)
        ORDER BY line) > 1, 'dropped: duplicate', NULL)) AS reason
    FROM judged
  """)
  raw.run('DROP TABLE cells')
  counts = {'read': raw.value('SELECT count(*) FROM observations')}
  counts |= raw.counts('SELECT reason, count(*) FROM observations GROUP BY reason')
  for what, form in (('time', 'HH:MM'), ('value', 'a number with a decimal point')):
    unreadable = counts.get(f'dropped: unreadable {what}', 0)
    if cells.too_many(unreadable, counts['read']):
      raise DataError(
        f'{unreadable} of {counts["read"]} rows of the records have a {what} that is not '
        f'{form}. Download the sets again from {records.DOWNLOAD}'
      )
  return counts | raw.counts("""
    SELECT 'repaired: ' || v.name || ', ' || repair, count(*)
    FROM observations JOIN variables v USING (variable)
    WHERE reason IS NULL AND repair IS NOT NULL GROUP BY ALL
  """)


def _batches(
  stream: Iterator[tuple[int, str]],
) -> Iterator[list[tuple[int, str]]]:
  while batch := list(islice(stream, _BATCH)):
    yield batch


def _register(raw: RawTables) -> None:
  """The tables `variables`, `codes` and `repairs`."""
  every = variables()
  index = {one.item.itemid: i for i, one in enumerate(every)}
  make_table(
    raw.con, 'variables',
    {'variable': pa.int32(), 'name': pa.string(), 'role': pa.string(),
     'low': pa.float64(), 'high': pa.float64(), 'has_codes': pa.bool_()},
    [(i, one.item.itemid, one.role, one.item.low, one.item.high, bool(one.codes))
     for i, one in enumerate(every)],
  )  # fmt: skip
  make_table(
    raw.con, 'codes',
    {'variable': pa.int32(), 'code': pa.float64(), 'category': pa.int32()},
    [(i, code, category) for i, one in enumerate(every)
     for category, code in enumerate(one.codes)],
  )  # fmt: skip
  make_table(
    raw.con, 'repairs',
    {'variable': pa.int32(), 'low': pa.float64(), 'high': pa.float64(),
     'scale': pa.float64(), 'shift': pa.float64(), 'reason': pa.string()},
    [(index[one.variable], one.low, one.high, one.scale, one.offset, one.reason)
     for one in repairs()],
  )  # fmt: skip
