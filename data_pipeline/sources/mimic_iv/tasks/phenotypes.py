"""Phenotypes: 25 acute and chronic conditions, predicted after two days in the ICU.

Anchor: the first ICU stay of each subject, at least 48 h long.
Prediction time: 48 h after its start.
Observation window: these 48 h.
Horizon: the discharge from hospital, when the diagnoses are coded.
Excluded: patients who are dead or discharged from hospital by the prediction time; stays
  without patient or admission; admissions without any coded diagnosis.
Label: one per condition: 1 if a diagnosis of the admission, at any position, has a code of
  it (`tables/phenotypes.csv`). The condition may have begun before the stay or after the
  prediction time, because codes have no time.
Unlabelled: ongoing stays and admissions without codes are samples too.
Source: Harutyunyan et al., Scientific Data 6, 96 (2019), who classify whole ICU stays of
  MIMIC-III (of admissions with one stay, of adults) by ICD-9; here the first 48 h predict,
  and MIMIC-IV's ICD-10 codes have the same CCS categories.
"""

from __future__ import annotations

import pyarrow as pa

from data_pipeline.format.schema import Target
from data_pipeline.sources.common.items import make_table, read_rows
from data_pipeline.sources.mimic_iv import tables
from data_pipeline.sources.mimic_iv.cohort import Cohort
from data_pipeline.sources.mimic_iv.tasks.task import Task

HOURS = 48


def names() -> tuple[str, ...]:
  """The conditions in the order of the labels: as in the benchmark, by name."""
  return tuple(sorted({row['phenotype'] for row in read_rows('phenotypes')}))


def _choose(cohort: Cohort) -> None:
  raw = cohort.raw
  cohort.first_stays(HOURS)
  if cohort.unlabelled:
    cohort.choose(None, labels=len(names()))
    return
  cohort.rows['diagnoses_icd'] = tables.open_icd(raw, cohort.root, 'diagnoses')
  raw.run('DELETE FROM stays WHERE hadm_id NOT IN (SELECT hadm_id FROM diagnoses)')
  cohort.step('admission has coded diagnoses', 'stays')
  order = {name: index for index, name in enumerate(names())}
  make_table(
    raw.con, 'phenotype_codes',
    {'version': pa.int32(), 'code': pa.string(), 'label': pa.int32()},
    [(int(row['icd_version']), row['icd_code'], order[row['phenotype']])
     for row in read_rows('phenotypes')],
  )  # fmt: skip
  each = ', '.join(
    f'max(CAST(c.label IS NOT DISTINCT FROM {i} AS INTEGER))' for i in order.values()
  )
  raw.run(f"""
    CREATE OR REPLACE TEMP TABLE phenotypes AS
    SELECT d.hadm_id, [{each}] AS labels FROM diagnoses d
    LEFT JOIN phenotype_codes c ON c.version = d.icd_version AND c.code = d.icd_code
    GROUP BY d.hadm_id
  """)
  raw.run("""
    CREATE OR REPLACE TEMP TABLE coded_stays AS
    SELECT s.*, labels FROM stays s JOIN phenotypes USING (hadm_id)
  """)
  cohort.choose('s.labels', labels=len(order), table='coded_stays')


TASK = Task(
  name='phenotypes',
  target=Target(
    'multilabel',
    names(),
    description='conditions among the discharge diagnoses',
    horizon='until discharge',
  ),
  choose=_choose,
  observation_hours=float(HOURS),
  of_stays=True,
)
