"""Reads urine output of MIMIC-IV (outputevents): items of urine, volume of a charting.

Used by the criterion of task aki (kidneys.py) and by `--extra=urine_output`.
"""

from __future__ import annotations

from pathlib import Path

from data_pipeline.sources.common import cells
from data_pipeline.sources.common.raw_tables import RawTables

MOST_URINE = 5000  # mL in one row
LONGEST_HOURS = 12  # between two chartings; longer gaps do not mean zero output

# Foley, void, condom catheter, ileoconduit, suprapubic, nephrostomies, straight catheter,
# ureteral stents, irrigant and urine out; irrigant in, which is subtracted.
URINE = (
  226559, 226560, 226561, 226584, 226563, 226564, 226565, 226567, 226557, 226558, 227489,
)  # fmt: skip
IRRIGANT_IN = 227488

# Volume of the rows of a charting, minus irrigant that went in.
VOLUME = f'sum(CASE WHEN itemid = {IRRIGANT_IN} THEN -value ELSE value END)'

_OUTPUTS = {
  'subject_id': 'BIGINT', 'charttime': 'TIMESTAMP', 'itemid': 'INTEGER', 'value': 'DOUBLE',
  'valueuom': 'VARCHAR',
}  # fmt: skip


def read(
  raw: RawTables, root: Path, *, of: str, hours: int = 0, stored: bool = False
) -> dict[str, int]:
  """Makes `read_outputs`: rows of urine and irrigant, with reasons for unused rows.

  Args:
    raw: the database; gets the table `read_outputs`.
    root: the folder of MIMIC-IV.
    of: table with subject_id, start_time and prediction_time.
    hours: rows are read until so many hours after the prediction time.
    stored: also read `storetime`.

  Returns:
    Counts by reason.
  """
  columns = _OUTPUTS | ({'storetime': 'TIMESTAMP'} if stored else {})
  raw.open(root, 'icu/outputevents', columns)
  hidden = ', '.join(f'o.{name}' for name in cells.names(columns).values())
  listed = ', '.join(map(str, (*URINE, IRRIGANT_IN)))
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE read_outputs AS
    SELECT {', '.join(f'o.{name}' for name in columns)}, {hidden},
      CASE WHEN o.charttime IS NULL THEN 'dropped: missing or malformed charttime'
        WHEN o.value IS NULL THEN 'dropped: no value'
        WHEN lower(trim(o.valueuom)) NOT IN ('ml', '') THEN 'dropped: unknown unit'
        WHEN o.value NOT BETWEEN 0 AND {MOST_URINE}
          THEN 'dropped: outside physiologic limits' END AS reason
    FROM outputevents o JOIN {of} s ON s.subject_id = o.subject_id
    WHERE o.itemid IN ({listed}) AND (o.charttime IS NULL OR o.charttime >= s.start_time
      AND o.charttime <= s.prediction_time + INTERVAL {hours} HOURS)
  """)
  counts = {'read': raw.value('SELECT count(*) FROM read_outputs')}
  counts |= raw.counts('SELECT reason, count(*) FROM read_outputs GROUP BY reason')
  return counts | raw.unreadable('outputevents', 'read_outputs', columns)
