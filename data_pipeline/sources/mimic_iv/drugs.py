"""Maps drug names of prescriptions to the 27 groups of ATC class C, third level.

The paper mapped drugs through RxNorm on the web. Here a table of names is used,
tables/drug_groups.csv, which a user's file with the same columns can extend.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from data_pipeline.format.schema import DataError
from data_pipeline.sources.common.items import make_table, read_rows
from data_pipeline.sources.common.raw_tables import RawTables

GROUPS = (
  *(f'C01{letter}' for letter in 'ABCDE'), 'C02A', 'C02C', 'C02D', 'C02K',
  *(f'C03{letter}' for letter in 'ABCDE'), 'C03X', 'C04A', 'C05A', 'C05B', 'C07A',
  'C08C', 'C08D', *(f'C09{letter}' for letter in 'ABCD'), 'C09X', 'C10A',
)  # fmt: skip
_COLUMNS = ('group', 'name', 'unless')


@dataclasses.dataclass(frozen=True)
class Rule:
  """A drug belongs to `group` if one of its words starts with `name`, except for `unless`.

  Attributes:
    name: lower case.
    group: of `GROUPS`; '' removes the name from the shipped table.
    unless: texts, none of which the drug's name may contain.
  """

  name: str
  group: str
  unless: tuple[str, ...]


def rules(path: Path | None = None) -> tuple[Rule, ...]:
  """The shipped rules; a user's rows replace those of the same name, and add others.

  Args:
    path: a CSV file with the columns group, name and unless (texts separated by |), like
      tables/drug_groups.csv; lines that start with # are comments.

  Raises:
    DataError: the file is not such a table, or a row has an unknown group or no drug.
  """
  shipped = _shipped()
  if path is None:
    return shipped
  own = _read(path)
  replaced = {rule.name for rule in own}
  kept = [rule for rule in shipped if rule.name not in replaced]
  return (*kept, *(rule for rule in own if rule.group))


@functools.cache
def _shipped() -> tuple[Rule, ...]:
  return tuple(_rule(row) for row in read_rows('drug_groups'))


def groups_of(drug: str, known: Sequence[Rule]) -> tuple[str, ...]:
  """Groups of a drug's name, without repetition, in the order of the rules."""
  text = ' ' + ' '.join(drug.lower().replace(',', ' ').split())
  starts = [' ' + text.replace('-', ' ').replace('/', ' ').replace('(', ' '), text]
  return tuple(
    dict.fromkeys(
      rule.group
      for rule in known
      if any(f' {rule.name}' in start for start in starts)
      and not any(word in text for word in rule.unless)
    )
  )


def make_flags(raw: RawTables, root: Path, known: Sequence[Rule]) -> dict[str, int]:
  """Makes `drugs`: flags from prescriptions that started by the prediction time."""
  columns = {'subject_id': 'BIGINT', 'starttime': 'TIMESTAMP', 'drug': 'VARCHAR'}
  raw.open(root, 'hosp/prescriptions', columns)
  raw.run("""
    CREATE OR REPLACE TEMP TABLE read_prescriptions AS SELECT * FROM prescriptions
    WHERE subject_id IS NULL OR subject_id IN (SELECT subject_id FROM samples)
  """)
  unreadable = raw.unreadable('prescriptions', 'read_prescriptions', columns)
  raw.run("""
    CREATE OR REPLACE TEMP TABLE prescribed AS
    SELECT subject_id, drug, min(starttime) AS first_start, count(*) AS n,
      count(*) FILTER (starttime IS NULL) AS timeless
    FROM read_prescriptions WHERE subject_id IS NOT NULL GROUP BY subject_id, drug
  """)
  raw.run('DROP TABLE read_prescriptions')
  names = [row[0] for row in raw.run('SELECT DISTINCT drug FROM prescribed').fetchall()]
  grouped = [(name, group) for name in names if name for group in groups_of(name, known)]
  make_table(raw.con, 'drug_names', {'drug': pa.string(), 'name': pa.string()}, grouped)
  flags = ', '.join(
    f'max(CAST(d.name = \'{name}\' AS INTEGER)) AS "{name}"' for name in GROUPS
  )
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE drugs AS
    SELECT s.sample_id, {flags} FROM samples s
    JOIN prescribed r ON r.subject_id = s.subject_id
      AND r.first_start <= s.prediction_time
    JOIN drug_names d ON d.drug = r.drug
    GROUP BY s.sample_id
  """)
  read, timeless, nameless, ungrouped = raw.run("""
    SELECT coalesce(sum(n), 0), coalesce(sum(timeless), 0),
      coalesce(sum(n) FILTER (drug IS NULL), 0),
      coalesce(sum(n) FILTER (drug NOT IN (SELECT drug FROM drug_names)), 0)
    FROM prescribed
  """).fetchall()[0]
  return {
    'read': int(read),
    'dropped: missing or malformed starttime': int(timeless),
    'dropped: no drug name': int(nameless),
    'in no drug group': int(ungrouped),
    **unreadable,
  }


def _read(path: Path) -> list[Rule]:
  """A user's rules, including those without a group."""
  remedy = 'Use the format of data_pipeline/sources/common/tables/drug_groups.csv.'
  where = f'--drug_groups={path}'
  try:
    lines = path.read_text(encoding='utf-8-sig').splitlines()
  except UnicodeDecodeError:
    raise DataError(f'{where}: not UTF-8 text. {remedy}') from None
  numbered = [
    (number, line)
    for number, line in enumerate(lines, 1)
    if line.strip() and not line.startswith('#')
  ]
  header = next(csv.reader([numbered[0][1]])) if numbered else []
  for column in _COLUMNS:
    if column not in header:
      raise DataError(f'{where}: no column {column}. {remedy}')
  found = []
  for number, line in numbered[1:]:
    cells = next(csv.reader([line]))
    if len(cells) != len(header):
      raise DataError(f'{where}, line {number}: not {len(header)} cells. {remedy}')
    rule = _rule(dict(zip(header, cells, strict=True)))
    if not rule.name:
      raise DataError(f'{where}, line {number}: no drug name. {remedy}')
    if rule.group and rule.group not in GROUPS:
      raise DataError(
        f'{where}, line {number}: unknown group {rule.group}; give one of '
        f'{", ".join(GROUPS)}, or leave it empty to remove the drug.'
      )
    found.append(rule)
  return found


def _rule(row: Mapping[str, str]) -> Rule:
  unless = (word.strip().lower() for word in row['unless'].split('|'))
  name = ' '.join(row['name'].lower().split())
  return Rule(name, row['group'].strip().upper(), tuple(filter(None, unless)))
