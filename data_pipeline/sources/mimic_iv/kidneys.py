"""Applies the KDIGO criteria to creatinine and urine output, for task `aki`.

KDIGO Clinical Practice Guideline for Acute Kidney Injury, Kidney Int. Suppl. 2 (2012),
Table 2, stage 1. The measurements for labels reach beyond the prediction time and are read
here, separately from those that a model may see.
"""

from __future__ import annotations

from pathlib import Path

from data_pipeline.sources.common.duckdb_files import parquet
from data_pipeline.sources.common.items import items
from data_pipeline.sources.common.raw_tables import RawTables, is_there
from data_pipeline.sources.mimic_iv import events, urine

RISE = 0.3  # mg/dL
RISE_HOURS = 48
RATIO = 1.5
BASELINE_DAYS = 7
OLIGURIA = 0.5  # mL/kg/h
OLIGURIA_HOURS = 6
WEIGHTS = (20, 350)  # kg

# Creatinine in serum; whole blood is measured with another analyser and not comparable.
_CREATININE = '50912'
_INPUTS = {'subject_id': 'BIGINT', 'starttime': 'TIMESTAMP', 'patientweight': 'DOUBLE'}


def measure(
  raw: RawTables, root: Path, scratch: Path, *, before_days: int, horizon_hours: int
) -> dict[str, dict[str, int]]:
  """Makes `creatinine` and `kidney_injuries` of the subjects in `stays`.

  `creatinine` has subject_id, charttime, value in mg/dL, and `baseline`: the lowest of the
  7 days before it, null if there is none. `kidney_injuries` has subject_id and the
  charttime of every measurement that fulfils a criterion.

  Args:
    raw: the database, with the table `stays`; gets the two tables.
    root: the folder of MIMIC-IV.
    scratch: folder for files.
    before_days: measurements are judged from so many days before the prediction time,
    horizon_hours: to so many hours after it.

  Returns:
    Counts by table and reason.
  """
  rows = _creatinine(raw, root, scratch, before_days, horizon_hours)
  # Differences are rounded, because 1.2 - 0.9 is less than 0.3 in binary.
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE kidney_injuries AS
    SELECT DISTINCT subject_id, charttime FROM creatinine
    WHERE round(value - lowest, 6) >= {RISE} OR round(value - {RATIO} * baseline, 6) >= 0
  """)
  if is_there(root, 'icu/outputevents'):
    rows |= _urine(raw, root, horizon_hours)
  else:
    rows['outputevents'] = {'read': 0}
  return rows


def _creatinine(
  raw: RawTables, root: Path, scratch: Path, before_days: int, horizon_hours: int
) -> dict[str, dict[str, int]]:
  modality = 'labs'
  [index] = [i for i, item in enumerate(items(modality)) if item.itemid == _CREATININE]
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE windows AS
    SELECT subject_id, max(prediction_time) + INTERVAL {horizon_hours} HOURS AS last_time,
      min(prediction_time) - INTERVAL {before_days + BASELINE_DAYS} DAYS AS first_time
    FROM stays GROUP BY subject_id
  """)
  folder = scratch / 'labels'
  folder.mkdir()
  events.scan(raw, root, 'labevents', [int(_CREATININE)], 'charttime', folder)
  events.resolve(raw, ['labevents'], modality, folder)
  resolved = parquet(folder / f'resolved_{modality}.parquet')
  before = lambda span: (
    '(PARTITION BY subject_id ORDER BY charttime RANGE BETWEEN '
    f'INTERVAL {span} PRECEDING AND INTERVAL 1 MICROSECOND PRECEDING)'
  )
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE creatinine AS
    WITH one AS (
      SELECT DISTINCT subject_id, charttime, value FROM {resolved}
      WHERE reason IS NULL AND item_index = {index}
    )
    SELECT *, min(value) OVER {before(f'{RISE_HOURS} HOURS')} AS lowest,
      min(value) OVER {before(f'{BASELINE_DAYS} DAYS')} AS baseline
    FROM one
  """)
  used = raw.value('SELECT count(*) FROM creatinine')
  return {'creatinine of the labels': {'used': used}}


def _urine(raw: RawTables, root: Path, horizon_hours: int) -> dict[str, dict[str, int]]:
  """Adds oliguria to `kidney_injuries`, at the time when it has lasted 6 h.

  The output of a charting covers the time since the previous charting. At each charting the
  period since the last charting at least 6 h earlier is judged, if it is at most 12 h. The
  weight is the first `patientweight` of inputevents in the stay that is known at the
  prediction time; without one, urine output is not judged.
  """
  counts = urine.read(raw, root, of='stays', hours=horizon_hours)
  raw.open(root, 'icu/inputevents', _INPUTS)
  low, high = WEIGHTS
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE weights AS
    SELECT s.subject_id, arg_min(i.patientweight, (i.starttime, i.patientweight)) AS kg
    FROM stays s JOIN inputevents i ON i.subject_id = s.subject_id
      AND i.starttime >= s.intime AND i.starttime <= s.prediction_time
      AND i.patientweight BETWEEN {low} AND {high}
    GROUP BY s.subject_id
  """)
  # A repeated row is one charting.
  raw.run(f"""
    INSERT INTO kidney_injuries
    WITH charted AS (
      SELECT DISTINCT subject_id, charttime, itemid, value FROM read_outputs
      WHERE reason IS NULL
    ), chartings AS (
      SELECT subject_id, charttime, {urine.VOLUME} AS volume
      FROM charted GROUP BY subject_id, charttime
    ), summed AS (
      SELECT *, sum(volume) OVER (PARTITION BY subject_id ORDER BY charttime) AS total,
        charttime - INTERVAL {OLIGURIA_HOURS} HOURS AS earlier
      FROM chartings
    ), stretches AS (
      SELECT b.subject_id, b.charttime, b.total - a.total AS volume,
        date_diff('second', a.charttime, b.charttime) / 3600.0 AS hours
      FROM summed b ASOF JOIN summed a
        ON a.subject_id = b.subject_id AND b.earlier >= a.charttime
    )
    SELECT r.subject_id, r.charttime FROM stretches r JOIN weights w USING (subject_id)
    WHERE r.hours <= {urine.LONGEST_HOURS} AND r.volume < {OLIGURIA} * w.kg * r.hours
  """)
  without = raw.value("""
    SELECT count(*) FROM stays WHERE subject_id NOT IN (SELECT subject_id FROM weights)
  """)
  if without:
    counts['missing: weight in the first 24 h, urine output not judged'] = without
  return {'outputevents': counts}
