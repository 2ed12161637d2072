"""Vital signs: the 6-minute grid of eight signals, heart rhythm and ectopy.

MedM2T's grid has 240 cells of 6 minutes over the 24 h before the prediction
(Section "numeric vitals"), 480 over 48 h; a cell holds the mean of its observations. Heart
rhythm is one categorical item, ectopy one item per type with its frequency.
"""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from data_pipeline.sources.common.duckdb_files import parquet
from data_pipeline.sources.common.items import items, make_table, read_rows
from data_pipeline.sources.common.raw_tables import RawTables

GRID_STEP_HOURS = 0.1
RHYTHM = 220048
ECTOPY_PAIRS = {224650: 224651, 226479: 226480}  # type -> its frequency
CATEGORICAL_ITEMIDS = [RHYTHM, *ECTOPY_PAIRS, *ECTOPY_PAIRS.values()]

_RHYTHM_ITEM = '220048'
UNKNOWN = 'Other'


def grid_steps(hours: float) -> int:
  """Number of cells in a window of so many hours."""
  return round(hours / GRID_STEP_HOURS)


def write_grid(
  raw: RawTables, resolved: Path, availability: str, hours: float, output: Path
) -> dict[str, int]:
  """Writes `grid_vitals.parquet` of docs/design.md from resolved rows.

  Args:
    raw: the database, with the table `samples`.
    resolved: parquet file of resolved rows.
    availability: 'charttime' or 'storetime': the time from which a value counts as known.
    hours: from each sample's start to its prediction time.
    output: file to write.

  Returns:
    Row counts by reason.
  """
  known = 'known_time' if availability == 'storetime' else 'charttime'
  cell_us = round(GRID_STEP_HOURS * 3.6e9)
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE observations AS
    SELECT subject_id, itemid, item_index, charttime, value,
      min({known}) AS known, count(*) AS copies
    FROM {parquet(resolved)} WHERE reason IS NULL
    GROUP BY subject_id, itemid, item_index, charttime, value
  """)
  # Ordered, so that the mean does not depend on the number of threads.
  raw.copy(
    f"""
    SELECT s.sample_id,
      CAST(least((epoch_us(o.charttime) - epoch_us(s.start_time)) // {cell_us},
        {grid_steps(hours) - 1}) AS INTEGER) AS step,
      CAST(o.item_index AS INTEGER) AS signal,
      CAST(list_avg(list(o.value ORDER BY o.value)) AS FLOAT) AS value
    FROM samples s JOIN observations o ON o.subject_id = s.subject_id
      AND o.known <= s.prediction_time AND o.charttime >= s.start_time
      AND o.charttime <= s.prediction_time
    GROUP BY ALL
    """,
    output,
  )
  duplicates = raw.value('SELECT coalesce(sum(copies - 1), 0) FROM observations')
  observed = raw.value('SELECT count(*) FROM observations')
  raw.run('DROP TABLE observations')
  cells = raw.value(f'SELECT count(*) FROM {parquet(output)}')
  return {
    'dropped: duplicate': int(duplicates),
    'observations averaged': observed,
    'written to vitals': cells,
  }


def write_categorical(
  raw: RawTables, chartevents: Path, availability: str, output: Path
) -> dict[str, int]:
  """Writes `events_vitals_categorical.parquet` from the scanned chartevents.

  If an ectopy type has several frequencies at the same time, the highest is kept (Rare <
  Occasional < Frequent < Runs Vtach); it is Other if none is known.
  """
  source = f"""
    SELECT *, CASE WHEN storetime > charttime THEN storetime ELSE charttime END
      AS known_time FROM {parquet(chartevents)}
    WHERE kept AND itemid IN ({', '.join(map(str, CATEGORICAL_ITEMIDS))})
  """
  texts = raw.run(f"""
    SELECT DISTINCT itemid, coalesce(value, CAST(number AS VARCHAR), '') FROM ({source})
  """).fetchall()
  make_table(
    raw.con, 'categorical_texts',
    {'itemid': pa.int32(), 'text': pa.string(), 'item_index': pa.int32(),
     'category': pa.int32(), 'reason': pa.string()},
    [(itemid, text, *read_charted(itemid, text)) for itemid, text in texts],
  )  # fmt: skip
  pairs = ', '.join(f'({kind}, {frequency})' for kind, frequency in ECTOPY_PAIRS.items())
  unknown = items('vitals_categorical')[-1].categories.index(UNKNOWN)
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE categorical_read AS
    SELECT e.subject_id, e.itemid, e.charttime, e.known_time, t.item_index, t.category,
      t.reason
    FROM ({source}) e JOIN categorical_texts t ON t.itemid = e.itemid
      AND t.text = coalesce(e.value, CAST(e.number AS VARCHAR), '')
  """)
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE categorical AS
    WITH paired AS (
      SELECT k.*, f.category AS frequency, coalesce(f.known_time, k.known_time) AS
        frequency_known
      FROM categorical_read k JOIN (VALUES {pairs}) AS p(kind, frequency)
        ON p.kind = k.itemid
      LEFT JOIN categorical_read f ON f.itemid = p.frequency
        AND f.subject_id = k.subject_id AND f.charttime = k.charttime
        AND f.category IS NOT NULL
    )
    SELECT subject_id, charttime, item_index, category,
      min(known_time) AS known_time
    FROM categorical_read WHERE itemid = {RHYTHM} AND category IS NOT NULL GROUP BY ALL
    UNION ALL
    SELECT subject_id, charttime, item_index,
      coalesce(max(frequency) FILTER (frequency <> {unknown}), {unknown}) AS category,
      max(greatest(known_time, frequency_known)) AS known_time
    FROM paired WHERE item_index IS NOT NULL
    GROUP BY subject_id, charttime, item_index
  """)
  known = 'known_time' if availability == 'storetime' else 'charttime'
  raw.copy(
    f"""
    SELECT s.sample_id, CAST(c.item_index AS INTEGER) AS item,
      CAST('nan' AS FLOAT) AS value, CAST(c.category AS INTEGER) AS category,
      CAST((epoch_us(c.charttime) - epoch_us(s.prediction_time)) / 3.6e9 AS FLOAT) AS time
    FROM samples s JOIN categorical c ON c.subject_id = s.subject_id
      AND c.{known} <= s.prediction_time AND c.charttime <= s.prediction_time
      AND c.charttime >= s.start_time
    """,
    output,
  )
  counts = raw.counts('SELECT reason, count(*) FROM categorical_read GROUP BY reason')
  read, named, frequencies, events = raw.run("""
    SELECT count(*), count(item_index),
      count(*) FILTER (item_index IS NULL AND category IS NOT NULL),
      (SELECT count(*) FROM categorical) FROM categorical_read
  """).fetchall()[0]
  counts |= {
    'ectopy frequencies, read with their type': frequencies,
    'dropped: duplicate': named - events,
  }
  written = raw.value(f'SELECT count(*) FROM {parquet(output)}')
  return {'read': read, **counts, 'written to vitals_categorical': written}


def read_charted(itemid: int, text: str) -> tuple[int | None, int | None, str | None]:
  """(item_index, category, reason) for a text of `CATEGORICAL_ITEMIDS`.

  A type of ectopy only has an item, its frequency only a category.
  """
  wanted = items('vitals_categorical')
  if not text:
    return None, None, 'dropped: no value'
  if itemid == RHYTHM:
    [index] = [i for i, item in enumerate(wanted) if item.itemid == _RHYTHM_ITEM]
    known = {row['text']: row['category'] for row in read_rows('rhythms')}
    category = known.get(_key(text.partition('(')[0]))
    reason = None if category else 'repaired: unlisted rhythm is Other'
    return index, wanted[index].categories.index(category or UNKNOWN), reason
  if itemid in ECTOPY_PAIRS:
    names = {
      _key(item.name.removeprefix('Ectopy ')): i
      for i, item in enumerate(wanted)
      if item.itemid != _RHYTHM_ITEM
    }
    if _key(text) == 'none':
      return None, None, 'no ectopy'
    index = names.get(_key(text))
    return index, None, None if index is not None else 'dropped: unlisted ectopy type'
  frequencies = wanted[-1].categories
  known = {_key(category): i for i, category in enumerate(frequencies)}
  category = known.get(_key(text))
  if category is None:
    return None, frequencies.index(UNKNOWN), 'repaired: unlisted frequency is Other'
  return None, category, None


def _key(text: str) -> str:
  return re.sub(r'[^a-z0-9]', '', text.lower())
