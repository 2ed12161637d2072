"""Selects the samples of a task in counted steps.

A task (`tasks/`) makes the DuckDB table `samples`: sample_id, subject_id, hadm_id,
prediction_time, start_time (null: the whole history), label, the columns of `PERSON`, and
`weight` if samples have different weights. No prediction is after death or discharge.
"""

from __future__ import annotations

from pathlib import Path

from data_pipeline.format.schema import DataError
from data_pipeline.sources.common.raw_tables import RawTables
from data_pipeline.sources.mimic_iv import tables

Steps = list[dict[str, str | int]]

# Static columns and attributes, from a patient `p` and an admission `a`.
PERSON = """
  CAST(p.anchor_age + year(a.admittime) - p.anchor_year AS DOUBLE) AS age,
  trim(p.gender) AS gender, a.race, a.insurance, a.admission_type,
  a.admission_location, p.anchor_year_group AS year_group"""


class Cohort:
  """The inputs of a task's selection, and the result so far.

  Attributes:
    raw: with the tables patients, admissions and deaths (tables.py), and `recordings` if
      there are ECGs.
    root: the folder of MIMIC-IV.
    scratch: folder for temporary files; removed when all is staged.
    unlabelled: only take steps that can be decided at the prediction time: a stay may be
      ongoing, and every label is null.
    steps: samples and subjects after every inclusion step.
    rows: table -> reason -> count.
  """

  def __init__(self, raw: RawTables, root: Path, scratch: Path, *, unlabelled: bool):
    self.raw = raw
    self.root = root
    self.scratch = scratch
    self.unlabelled = unlabelled
    self.steps: Steps = []
    self.rows: dict[str, dict[str, int]] = {}

  def step(self, text: str, table: str) -> None:
    """Counts the remaining samples and subjects in `table`."""
    samples, subjects = self.raw.run(
      f'SELECT count(*), count(DISTINCT subject_id) FROM {table}'
    ).fetchall()[0]
    self.steps.append({'step': text, 'samples': samples, 'subjects': subjects})

  def keep_living(self, table: str, text: str) -> None:
    """Step: alive at `prediction_time`."""
    self.raw.run(f"""
      DELETE FROM {table} s USING deaths d
      WHERE d.subject_id = s.subject_id AND d.dead_from <= s.prediction_time
    """)
    self.step(text, table)

  def keep_in_hospital(self, table: str, text: str) -> None:
    """Step: not discharged from the admission at `prediction_time`."""
    self.raw.run(f"""
      DELETE FROM {table} s USING admissions a
      WHERE a.hadm_id = s.hadm_id AND a.subject_id = s.subject_id
        AND a.dischtime <= s.prediction_time
    """)
    self.step(text, table)

  def open_first_stays(self) -> None:
    """Steps: the first ICU stay of every subject. Makes `icustays` and `first_stays`."""
    self.rows['icustays'] = tables.open_stays(self.raw, self.root)
    self.step('ICU stays', 'icustays')
    self.raw.run("""
      CREATE OR REPLACE TEMP TABLE first_stays AS
      SELECT * FROM icustays
      QUALIFY row_number() OVER (PARTITION BY subject_id ORDER BY intime, stay_id) = 1
    """)
    self.step('first ICU stay of the subject', 'first_stays')

  def first_stays(self, hours: int) -> None:
    """Steps: the first ICU stay of every subject, if it lasts `hours`; alive, in hospital.

    Makes `icustays`, and `stays` for `choose`: the prediction time is `hours` after
    `intime`, where the observation window begins.
    """
    raw = self.raw
    self.open_first_stays()
    raw.run(f"""
      CREATE OR REPLACE TEMP TABLE stays AS
      SELECT *, stay_id AS sample_id, first_careunit AS unit, intime AS start_time,
        intime + INTERVAL {hours} HOURS AS prediction_time
      FROM first_stays WHERE outtime >= intime + INTERVAL {hours} HOURS
        {'OR outtime IS NULL' if self.unlabelled else ''}
    """)
    self.step(f'stay of at least {hours} h', 'stays')
    if self.unlabelled:
      self.keep_before_the_end('stays')
    self.keep_living('stays', f'alive after {hours} h')
    self.keep_in_hospital('stays', f'in hospital after {hours} h')

  def keep_before_the_end(self, table: str) -> None:
    """Step: the tables reach the prediction time of an ongoing stay."""
    self.raw.run(f"""
      DELETE FROM {table} WHERE prediction_time > (
        SELECT max(greatest(intime, outtime)) FROM icustays)
    """)
    self.step('predicted before the tables end', table)

  def choose(
    self,
    label: str | None,
    *,
    labels: int = 1,
    may_be_unknown: bool = False,
    weight: str = '',
    table: str = 'stays',
  ) -> None:
    """Last step: makes `samples`, with patient and admission.

    Args:
      label: SQL on the sample `s`, the patient `p` and the admission `a`: a number, or a
        list if there are several `labels`. None: all labels are null.
      labels: number of labels per sample.
      may_be_unknown: whether to keep samples with a null label.
      weight: SQL on `s`, if samples have different weights.
      table: of the samples, with sample_id, subject_id, hadm_id, prediction_time,
        start_time and `unit`, their first care unit.
    """
    kind = 'DOUBLE' if labels == 1 else 'DOUBLE[]'
    required = label is not None and not may_be_unknown
    if label is None:
      label = 'NULL' if labels == 1 else f'[{", ".join(["NULL"] * labels)}]'
    self.raw.run(f"""
      CREATE OR REPLACE TEMP TABLE samples AS
      SELECT s.sample_id, s.subject_id, s.hadm_id, s.prediction_time, s.start_time,
        CAST({label} AS {kind}) AS label, {f'{weight} AS weight,' if weight else ''}
        s.unit, {PERSON}
      FROM {table} s
      JOIN patients p USING (subject_id)
      JOIN admissions a ON a.hadm_id = s.hadm_id AND a.subject_id = s.subject_id
      WHERE {f'{label} IS NOT NULL' if required else 'true'}
    """)
    what = 'subject, admission and label' if required else 'subject and admission'
    self.step(f'{what} known', 'samples')

  def count_unknown(self, why: str) -> None:
    """Counts the samples whose label is null."""
    unknown = self.raw.value('SELECT count(*) FROM samples WHERE label IS NULL')
    if unknown:
      self.rows['labels'] = {f'missing: {why}': unknown}

  def check(self, task: str) -> None:
    """Checks that samples are left after every step.

    Raises:
      DataError: a step left none.
    """
    for step in self.steps:
      if step['samples'] == 0:
        raise DataError(
          f'{self.root}: task {task}: empty cohort, no sample is left after the step '
          f'{step["step"]!r}. Check that all folders are complete and of the same '
          'release.'
        )
