"""`--extra=urine_output`: urine of every charting, in mL and mL/hour.

`urine.py` defines urine and the rows to drop, also for task aki. The volume of a charting
covers the time since the previous charting; divided by these hours it is the second item,
unless they are more than 12. Irrigant that went in is subtracted, so a charting can be
below 0.
"""

from __future__ import annotations

from pathlib import Path

from data_pipeline.sources.common.duckdb_files import parquet
from data_pipeline.sources.common.items import items
from data_pipeline.sources.common.raw_tables import RawTables
from data_pipeline.sources.mimic_iv import events, urine

NAME = 'urine_output'
TABLES = ('icu/outputevents',)


def resolve(
  raw: RawTables, root: Path, availability: str, folder: Path
) -> dict[str, dict[str, int]]:
  """Writes `folder/resolved_urine_output.parquet`, as `events.resolve` does.

  Args:
    raw: with the tables `samples` and `windows`.
    root: the folder of MIMIC-IV.
    availability: 'charttime' or 'storetime'.
    folder: for files.

  Returns:
    Table -> reason -> count.
  """
  counts = urine.read(raw, root, of='samples', stored=True)
  first = 'WHEN e.reason IS NOT NULL THEN e.reason'
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE outputs AS
    SELECT e.*, greatest(e.charttime, e.storetime) AS known_time,
      {events.reason_sql('charttime', availability, first=first)}
        AS why
    FROM read_outputs e JOIN windows w USING (subject_id)
  """)
  counts |= raw.counts('SELECT why, count(*) FROM outputs GROUP BY why')
  volume, rate = items(NAME)
  path = folder / f'resolved_{NAME}.parquet'
  raw.copy(
    f"""
    WITH charted AS (
      SELECT subject_id, charttime, itemid, value, min(known_time) AS known_time
      FROM outputs WHERE coalesce(why, '') NOT LIKE 'dropped%' GROUP BY ALL
    ), chartings AS (
      SELECT subject_id, charttime, {urine.VOLUME} AS volume,
        max(known_time) AS known_time
      FROM charted GROUP BY subject_id, charttime
    ), since AS (
      SELECT *, epoch(charttime - lag(charttime) OVER before) / 3600 AS hours,
        greatest(known_time, lag(known_time) OVER before) AS both_known
      FROM chartings WINDOW before AS (PARTITION BY subject_id ORDER BY charttime)
    ), found AS (
      SELECT subject_id, 0 AS item_index, volume AS value, charttime, known_time,
        volume NOT BETWEEN {volume.low} AND {volume.high} AS is_absurd
      FROM chartings
      UNION ALL
      SELECT subject_id, 1, volume / hours, charttime, both_known,
        volume / hours NOT BETWEEN {rate.low} AND {rate.high}
      FROM since WHERE hours <= {urine.LONGEST_HOURS}
    )
    SELECT subject_id, item_index, value, -1 AS category, charttime, known_time,
      CASE WHEN is_absurd THEN 'dropped: volumes and rates outside physiologic limits' END
        AS reason
    FROM found
    """,
    path,
  )
  counts |= raw.counts(f'SELECT reason, count(*) FROM {parquet(path)} GROUP BY reason')
  raw.run('DROP TABLE outputs')
  return {'outputevents': counts}
