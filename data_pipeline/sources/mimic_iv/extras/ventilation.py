"""`--extra=ventilation`: devices, ventilator settings, and airway procedures.

The charting of the respiratory therapists (chartevents) is read like vital signs; of
procedureevents only the start is an event, because the end may be after the prediction
time.
"""

from __future__ import annotations

from pathlib import Path

from data_pipeline.sources.common.items import items, read_rows
from data_pipeline.sources.common.raw_tables import RawTables, is_there
from data_pipeline.sources.mimic_iv import events

NAME = 'ventilation'
TABLES = ('icu/chartevents', 'icu/procedureevents')

_PROCEDURES = {
  'subject_id': 'BIGINT', 'starttime': 'TIMESTAMP', 'storetime': 'TIMESTAMP',
  'itemid': 'INTEGER', 'statusdescription': 'VARCHAR',
}  # fmt: skip


def itemids(table: str, *, words: bool | None = None) -> list[int]:
  """Raw itemids of a table, sorted: all, only those that are words, or only the others."""
  categorical = {item.itemid: bool(item.categories) for item in items(NAME)}
  return sorted(
    int(row['itemid'])
    for row in read_rows('item_map')
    if row['modality'] == NAME and row['table'] == table
    and words in (None, categorical[row['item']])
  )  # fmt: skip


def resolve(
  raw: RawTables, root: Path, availability: str, folder: Path
) -> dict[str, dict[str, int]]:
  """Writes `folder/resolved_ventilation.parquet`, as `events.resolve` does.

  Args:
    raw: with the tables `samples` and `windows`.
    root: the folder of MIMIC-IV.
    availability: 'charttime' or 'storetime'.
    folder: with the scanned chartevents.

  Returns:
    Table -> reason -> count; those of the chartevents scan are counted by the scan.
  """
  counts: dict[str, dict[str, int]] = {}
  tables = ['chartevents']
  if is_there(root, 'icu/procedureevents'):
    counts['procedureevents'] = _scan(raw, root, availability, folder)
    tables.append('procedureevents')
  for table, reasons in events.resolve(raw, tables, NAME, folder).items():
    counts.setdefault(table, {}).update(reasons)
  return counts


def _scan(raw: RawTables, root: Path, availability: str, folder: Path) -> dict[str, int]:
  raw.open(root, 'icu/procedureevents', _PROCEDURES)
  first = f'{events.NO_KEYS} {events.WITHDRAWN}'
  listed = ', '.join(map(str, itemids('procedureevents')))
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE procedure_rows AS
    SELECT e.*,
      {events.reason_sql('starttime', availability, first=first)}
        AS reason
    FROM procedureevents e {events.OF_WINDOWS}
    WHERE e.itemid IS NULL OR e.itemid IN ({listed})
  """)
  # The itemid defines the procedure; as text it is read by tables/text_categories.csv.
  raw.copy(
    """
    SELECT subject_id, itemid, starttime AS charttime, storetime,
      CAST(itemid AS VARCHAR) AS value, CAST(NULL AS DOUBLE) AS number,
      CAST(NULL AS VARCHAR) AS unit, CAST(NULL AS VARCHAR) AS comments, true AS kept
    FROM procedure_rows WHERE coalesce(reason, '') NOT LIKE 'dropped%'
    """,
    folder / 'procedureevents.parquet',
  )
  counts = {'read': raw.value('SELECT count(*) FROM procedure_rows')}
  counts |= raw.counts('SELECT reason, count(*) FROM procedure_rows GROUP BY reason')
  counts |= raw.unreadable('procedureevents', 'procedure_rows', _PROCEDURES)
  raw.run('DROP TABLE procedure_rows')
  return counts
