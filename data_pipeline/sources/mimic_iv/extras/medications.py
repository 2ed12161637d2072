"""`--extra=medications`: administered medications, from inputevents and emar.

A row of inputevents is an interval. `tables/item_map.csv` says how each item is read. As a
rate, it is an event at its start, and one of rate 0 at its end unless another row of the
item runs then. An infusion that runs past the prediction time is only its start and rate,
without anything later; one that already runs when the stay begins is read from there. As
an amount, it is an event at its end, when all of it has been given, so rows that run past
the prediction time are left out. As given, it is an event at its start. Rewritten rows
(documentation of MIMIC-IV) and cancelled rows were not given.

emar has no comparable doses (`emar_detail` is not read): an administration is an event of
the drug's item, by the names in `tables/emar_drugs.csv`.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from data_pipeline.sources.common import cells
from data_pipeline.sources.common.duckdb_files import parquet
from data_pipeline.sources.common.items import items, make_table, read_rows
from data_pipeline.sources.common.raw_tables import RawTables, is_there
from data_pipeline.sources.mimic_iv import drugs, events

NAME = 'medications'
TABLES = ('icu/inputevents', 'hosp/emar')
# Values of event_txt, in lower case. All others were not given, have ended, or are
# paperwork.
ADMINISTERED = (
  'administered', 'administered in other location', 'administered bolus from iv drip',
  'delayed administered', 'partial administered', 'started', 'started in other location',
  'delayed started', 'restarted', 'restarted in other location', 'delayed restarted',
)  # fmt: skip

_INPUTS = {
  'subject_id': 'BIGINT', 'starttime': 'TIMESTAMP', 'endtime': 'TIMESTAMP',
  'storetime': 'TIMESTAMP', 'itemid': 'INTEGER', 'amount': 'DOUBLE',
  'amountuom': 'VARCHAR', 'rate': 'DOUBLE', 'rateuom': 'VARCHAR',
  'statusdescription': 'VARCHAR',
}  # fmt: skip
_EMAR = {
  'subject_id': 'BIGINT', 'charttime': 'TIMESTAMP', 'storetime': 'TIMESTAMP',
  'medication': 'VARCHAR', 'event_txt': 'VARCHAR',
}  # fmt: skip
_MEASURED = ('inputevents.rate', 'inputevents.amount')
_GIVEN = 'inputevents.given'


def resolve(
  raw: RawTables, root: Path, availability: str, folder: Path
) -> dict[str, dict[str, int]]:
  """Writes `folder/resolved_medications.parquet`, as `events.resolve` does.

  Args:
    raw: with the tables `samples` and `windows`, of one sample a subject.
    root: the folder of MIMIC-IV.
    availability: 'charttime' or 'storetime'.
    folder: for files.

  Returns:
    Table -> reason -> count.
  """
  counts: dict[str, dict[str, int]] = {}
  parts = []
  if is_there(root, 'icu/inputevents'):
    counts['inputevents'] = _scan_inputs(raw, root, availability, folder)
    resolved = events.resolve(raw, list(_MEASURED), NAME, folder)
    for table, reasons in resolved.items():
      kind = table.partition('.')[2]
      counts['inputevents'] |= {f'{why} ({kind})': n for why, n in reasons.items()}
    # `resolve` names its file by the modality, as the final file is named.
    measured = folder / f'measured_{NAME}.parquet'
    (folder / f'resolved_{NAME}.parquet').rename(measured)
    parts += [_measured_sql(measured), _ends_sql(measured), _given_sql()]
  if is_there(root, 'hosp/emar'):
    counts['emar'] = _read_emar(raw, root, availability)
    parts.append('SELECT * FROM administered')
  raw.copy(' UNION ALL '.join(parts), folder / f'resolved_{NAME}.parquet')
  return counts


def _scan_inputs(
  raw: RawTables, root: Path, availability: str, folder: Path
) -> dict[str, int]:
  """Makes `inputs`, and the two files that `events.resolve` reads."""
  raw.open(root, 'icu/inputevents', _INPUTS)
  rows = [row for row in read_rows('item_map') if row['modality'] == NAME]
  ways = sorted({int(row['itemid']) for row in rows})
  of = {
    way: ', '.join(row['itemid'] for row in rows if row['table'] == way)
    for way in (*_MEASURED, _GIVEN)
  }
  first = f'{events.NO_KEYS} {events.WITHDRAWN}'
  hidden = ', '.join(cells.names(_INPUTS).values())
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE inputs AS
    WITH wanted AS (
      SELECT * REPLACE (
        CASE WHEN isfinite(rate) THEN rate END AS rate,
        CASE WHEN isfinite(amount) THEN amount END AS amount,
        CASE WHEN endtime >= starttime THEN endtime END AS endtime
      ),
        endtime < starttime AS is_reversed,
        CASE WHEN itemid IN ({of[_GIVEN]}) THEN '{_GIVEN}'
          WHEN itemid IN ({of['inputevents.rate']})
            AND (rate IS NOT NULL OR itemid NOT IN ({of['inputevents.amount']}))
            THEN 'inputevents.rate'
          ELSE 'inputevents.amount' END AS way
      FROM inputevents
      WHERE itemid IS NULL OR itemid IN ({', '.join(map(str, ways))})
    ), timed AS (
      SELECT i.*, way = 'inputevents.rate' AND starttime < w.first_time
        AND endtime > w.first_time AS runs_already,
        CASE WHEN runs_already THEN w.first_time
          WHEN way = 'inputevents.amount' THEN endtime ELSE starttime END AS time
      FROM wanted i LEFT JOIN windows w USING (subject_id)
    )
    SELECT e.subject_id, e.itemid, e.starttime, e.endtime, e.storetime, e.time, e.amount,
      trim(e.amountuom) AS amountuom, e.rate, trim(e.rateuom) AS rateuom, e.way,
      e.is_reversed, e.runs_already, {hidden},
      {events.reason_sql('time', availability, first=first)} AS reason
    FROM timed e {events.OF_WINDOWS}
  """)
  for way, number, unit in (
    ('inputevents.rate', 'rate', 'rateuom'),
    ('inputevents.amount', 'amount', 'amountuom'),
  ):
    raw.copy(
      f"""
      SELECT subject_id, itemid, time AS charttime, storetime,
        CAST(NULL AS VARCHAR) AS value, {number} AS number, {unit} AS unit,
        CAST(NULL AS VARCHAR) AS comments, true AS kept
      FROM inputs WHERE way = '{way}' AND coalesce(reason, '') NOT LIKE 'dropped%'
      """,
      folder / f'{way}.parquet',
    )
  counts = {'read: wanted items of the cohort': raw.value('SELECT count(*) FROM inputs')}
  counts |= raw.counts('SELECT reason, count(*) FROM inputs GROUP BY reason')
  counts |= raw.counts("""
    SELECT 'repaired: endtime before starttime is missing', count(*) FROM inputs
    WHERE is_reversed
    UNION ALL SELECT 'repaired: runs when the stay begins, read from there', count(*)
    FROM inputs WHERE runs_already AND coalesce(reason, '') NOT LIKE 'dropped%'
  """)
  return counts | raw.unreadable('inputevents', 'inputs', _INPUTS)


_COLUMNS = 'subject_id, item_index, value, category, charttime, known_time, reason'


def _measured_sql(measured: Path) -> str:
  return f'SELECT {_COLUMNS} FROM {parquet(measured)}'


def _ends_sql(measured: Path) -> str:
  """Rate 0 at the end of an infusion, unless another row of the item runs then."""
  return f"""
    SELECT DISTINCT subject_id, item_index, CAST(0 AS DOUBLE) AS value, -1 AS category,
      endtime AS charttime, greatest(endtime, storetime) AS known_time,
      CAST(NULL AS VARCHAR) AS reason
    FROM (
      SELECT DISTINCT i.subject_id, m.item_index, i.starttime, i.endtime, i.storetime
      FROM inputs i JOIN {parquet(measured)} m
        ON m.tbl = 'inputevents.rate' AND m.reason IS NULL
        AND m.subject_id = i.subject_id AND m.itemid = i.itemid
        AND m.charttime = i.time
      WHERE i.way = 'inputevents.rate' AND coalesce(i.reason, '') NOT LIKE 'dropped%'
    ) a
    WHERE endtime > starttime AND NOT EXISTS (
      SELECT 1 FROM inputs b JOIN item_map_{NAME} n
        ON n.tbl = 'inputevents.rate' AND n.itemid = b.itemid
      WHERE b.way = 'inputevents.rate' AND coalesce(b.reason, '') NOT LIKE 'dropped%'
        AND b.subject_id = a.subject_id AND n.item_index = a.item_index
        AND b.starttime <= a.endtime AND (b.endtime IS NULL OR b.endtime > a.endtime)
    )"""


def _given_sql() -> str:
  return f"""
    SELECT i.subject_id, m.item_index, CAST(NULL AS DOUBLE) AS value, 0 AS category,
      i.time AS charttime, greatest(i.time, i.storetime) AS known_time,
      CAST(NULL AS VARCHAR) AS reason
    FROM inputs i JOIN item_map_{NAME} m ON m.tbl = i.way AND m.itemid = i.itemid
    WHERE i.way = '{_GIVEN}' AND coalesce(i.reason, '') NOT LIKE 'dropped%'"""


def _read_emar(raw: RawTables, root: Path, availability: str) -> dict[str, int]:
  """Makes `administered`, with the columns of resolved rows."""
  raw.open(root, 'hosp/emar', _EMAR)
  known = tuple(
    drugs.Rule(row['name'], row['item'], tuple(filter(None, row['unless'].split('|'))))
    for row in read_rows('emar_drugs')
  )
  given = ', '.join(f"'{each}'" for each in ADMINISTERED)
  first = f"""{events.NO_SUBJECT}
      WHEN coalesce(lower(trim(e.event_txt)), '') NOT IN ({given})
        THEN 'dropped: not administered'
      WHEN coalesce(trim(e.medication), '') = '' THEN 'dropped: no drug name'"""
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE emar_rows AS
    SELECT e.*,
      {events.reason_sql('charttime', availability, first=first)}
        AS reason
    FROM emar e {events.OF_WINDOWS}
  """)
  names = raw.run("""
    SELECT DISTINCT medication FROM emar_rows
    WHERE coalesce(reason, '') NOT LIKE 'dropped%'
  """).fetchall()
  position = {item.itemid: index for index, item in enumerate(items(NAME))}
  make_table(
    raw.con, 'emar_items', {'medication': pa.string(), 'item_index': pa.int32()},
    [(name, position[item]) for [name] in names for item in drugs.groups_of(name, known)],
  )  # fmt: skip
  raw.run("""
    CREATE OR REPLACE TEMP TABLE administered AS
    SELECT e.subject_id, i.item_index, CAST(NULL AS DOUBLE) AS value, 0 AS category,
      e.charttime, greatest(e.charttime, e.storetime) AS known_time,
      CAST(NULL AS VARCHAR) AS reason
    FROM emar_rows e JOIN emar_items i USING (medication)
    WHERE coalesce(e.reason, '') NOT LIKE 'dropped%'
  """)
  counts = {'read': raw.value('SELECT count(*) FROM emar_rows')}
  counts |= raw.counts('SELECT reason, count(*) FROM emar_rows GROUP BY reason')
  counts |= raw.counts("""
    SELECT 'of no item', count(*) FROM emar_rows
    WHERE coalesce(reason, '') NOT LIKE 'dropped%'
      AND medication NOT IN (SELECT medication FROM emar_items)
  """)
  counts |= raw.unreadable('emar', 'emar_rows', _EMAR)
  raw.run('DROP TABLE emar_rows')
  return counts
