"""Tasks on MIMIC-IV against plain pandas: counts at every step, labels, weights.

`Oracle` computes both anew from the raw files of the open demo and of a simulated hospital,
row by row. It shares no code with the tasks; the table of phenotypes is read as it is.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_pipeline.sources import Resources, mimic_iv
from data_pipeline.sources.simulated import write_hospital

DEMO = Path(__file__).resolve().parents[2] / '../shared/data/mimic-iv-demo'
TABLES = Path(__file__).resolve().parents[2] / 'data_pipeline/sources/common/tables'
TASKS = ('readmission', 'aki', 'phenotypes', 'decompensation')
HOUR, DAY = pd.Timedelta(hours=1), pd.Timedelta(days=1)
CREATININE = 50912


class Oracle:
  """Cohort of one task on one hospital.

  Attributes:
    steps: as in cohort.json.
    samples: indexed by sample_id, with label, prediction_time, start_time.
  """

  def __init__(self, root, task):
    self._root = root
    self.steps = []
    self.patients = self._raw('hosp/patients', 'dod').set_index('subject_id')
    self.admissions = self._raw('hosp/admissions', 'admittime', 'dischtime', 'deathtime',
                                'edregtime')  # fmt: skip
    first = self.admissions.groupby('subject_id').deathtime.min()
    self.deathtime = first.reindex(self.patients.index)
    self.dead_from = self.deathtime.fillna(self.patients.dod + DAY)
    self.samples = getattr(self, f'_{task}')().sort_index()

  def _raw(self, name, *times):
    path = self._root / f'{name}.csv.gz'
    dtype = {'icd_code': str}
    return pd.read_csv(path, low_memory=False, parse_dates=list(times), dtype=dtype)

  def _step(self, text, frame):
    count = {'samples': len(frame), 'subjects': frame.subject_id.nunique()}
    self.steps.append({'step': text, **count})
    return frame

  def _living(self, frame, text):
    dead = frame.subject_id.map(self.dead_from) <= frame.prediction_time
    return self._step(text, frame[~dead])

  def _in_hospital(self, frame, text):
    ends = frame.hadm_id.map(self.admissions.set_index('hadm_id').dischtime)
    return self._step(text, frame[~(ends <= frame.prediction_time)])

  def _first(self):
    stays = self._step('ICU stays', self._raw('icu/icustays', 'intime', 'outtime'))
    stays = stays.sort_values(['intime', 'stay_id']).groupby('subject_id').head(1)
    return self._step('first ICU stay of the subject', stays)

  def _stays(self, hours):
    stays = self._first()
    stays = stays[stays.outtime - stays.intime >= hours * HOUR].copy()
    self._step(f'stay of at least {hours} h', stays)
    stays['prediction_time'] = stays.intime + hours * HOUR
    stays['start_time'] = stays.intime
    stays = self._living(stays, f'alive after {hours} h')
    stays = self._in_hospital(stays, f'in hospital after {hours} h')
    return stays.set_index(stays.stay_id.rename('sample_id'))

  def _readmission(self):
    found = self.admissions.copy()
    self._step('admissions', found)
    found = self._step('discharge time known', found[found.dischtime.notna()])
    found = found.assign(prediction_time=found.dischtime)
    died = (found.hospital_expire_flag == 1) | found.deathtime.notna()
    found = self._living(found[~died], 'discharged alive')
    found = found[found.dischtime - found.admittime >= DAY]
    self._step('admission of at least 24 h', found)
    labels, elsewhere = {}, {}
    for row in found.itertuples():
      others = self.admissions[
        (self.admissions.subject_id == row.subject_id)
        & (self.admissions.hadm_id != row.hadm_id)
      ]
      elsewhere[row.Index] = (
        (others.admittime <= row.dischtime) & (others.dischtime > row.dischtime)
      ).any()
      wait = others.admittime - row.dischtime
      planned = others.admission_type.isin(
        ['ELECTIVE', 'SURGICAL SAME DAY ADMISSION', 'AMBULATORY OBSERVATION']
      )
      dead = self.dead_from[row.subject_id] <= others.admittime
      back = (wait > pd.Timedelta(0)) & (wait <= 30 * DAY) & ~planned & ~dead
      labels[row.Index] = float(back.any())
    found = found.assign(label=pd.Series(labels))[~pd.Series(elsewhere)]
    self._step('in no other admission at discharge', found)
    self._step('subject, admission and label known', found)
    early = found.edregtime <= found.admittime
    found['start_time'] = found.edregtime.where(early, found.admittime)
    return found.set_index(found.hadm_id.rename('sample_id'))

  def _phenotypes(self):
    stays = self._stays(48)
    codes = self._raw('hosp/diagnoses_icd')
    stays = stays[stays.hadm_id.isin(codes.hadm_id)]
    self._step('admission has coded diagnoses', stays)
    with (TABLES / 'phenotypes.csv').open() as file:
      rows = list(csv.DictReader(line for line in file if not line.startswith('#')))
    names = sorted({row['phenotype'] for row in rows})
    of = {(int(r['icd_version']), r['icd_code']): names.index(r['phenotype']) for r in rows}
    labels = {}
    for sample, hadm in stays.hadm_id.items():
      labels[sample] = np.zeros(25)
      for row in codes[codes.hadm_id == hadm].itertuples():
        if (row.icd_version, row.icd_code.strip()) in of:
          labels[sample][of[row.icd_version, row.icd_code.strip()]] = 1
    self._step('subject, admission and label known', stays)
    return stays.assign(label=pd.Series(labels))

  def _decompensation(self):
    stays = self._first()
    moments = []
    for stay in stays[stays.outtime.notna()].itertuples():
      number = 1
      while stay.intime + 6 * number * HOUR < stay.outtime:
        time = stay.intime + 6 * number * HOUR
        moments.append((stay.stay_id * 10_000 + number, stay.stay_id, stay.subject_id,
                        stay.hadm_id, time, time - DAY))  # fmt: skip
        number += 1
    columns = ('sample_id', 'stay_id', 'subject_id', 'hadm_id', 'prediction_time',
               'start_time')  # fmt: skip
    found = pd.DataFrame(moments, columns=columns).set_index('sample_id')
    self._step('every 6 h of the stay', found)
    found = self._living(found, 'alive at the prediction time')
    found = self._in_hospital(found, 'in hospital at the prediction time')
    self._step('subject and admission known', found)
    found['weight'] = 1 / found.groupby('stay_id').stay_id.transform('size')
    labels = {}
    for row in found.itertuples():
      death, dod = self.deathtime[row.subject_id], self.patients.dod[row.subject_id]
      horizon = row.prediction_time + DAY
      if pd.notna(death):
        labels[row.Index] = float(death <= horizon)
      elif pd.notna(dod):
        ends, begins = dod + DAY <= horizon, dod >= horizon
        labels[row.Index] = 1.0 if ends else 0.0 if begins else np.nan
      else:
        labels[row.Index] = 0.0
    return found.assign(label=pd.Series(labels))

  def _aki(self):
    stays = self._stays(24)
    codes = self._raw('hosp/diagnoses_icd')
    renal = set(codes.hadm_id[codes.icd_code.str.strip().isin(['5856', 'N186'])])
    ended = self.admissions[self.admissions.hadm_id.isin(renal)]
    excluded = []
    for row in stays.itertuples():
      earlier = ended[ended.subject_id == row.subject_id].dischtime <= row.prediction_time
      excluded.append(row.hadm_id in renal or earlier.any())
    stays = self._step('no end-stage renal disease coded', stays[~np.array(excluded)])
    tests = self._raw('hosp/labevents', 'charttime')
    tests = tests[(tests.itemid == CREATININE) & tests.subject_id.isin(stays.subject_id)]
    void = tests.comments.fillna('').str.contains('UNABLE|SPECIMEN|CANCEL', case=False)
    tests = tests[tests.valuenum.between(0.05, 60) & ~void]
    assert set(tests.valueuom) == {'mg/dL'}
    outputs, weights = self._outputs()
    known, already, labels = [], [], {}
    for row in stays.itertuples():
      mine = tests[tests.subject_id == row.subject_id]
      before, after = row.prediction_time - 7 * DAY, row.prediction_time + 48 * HOUR
      known.append(mine.charttime.between(before, row.prediction_time).any())
      events, compared = [], False
      for time, value in zip(mine.charttime, mine.valuenum, strict=True):
        earlier = mine[mine.charttime < time]
        two = earlier.valuenum[earlier.charttime >= time - 48 * HOUR]
        week = earlier.valuenum[earlier.charttime >= time - 7 * DAY]
        rose = len(two) and round(100 * (value - two.min())) >= 30
        if rose or (len(week) and round(100 * value) >= round(150 * week.min())):
          events.append(time)
        compared |= len(week) > 0 and row.prediction_time < time <= after
      events += _oliguria(row, outputs, weights)
      already.append(any(before <= time <= row.prediction_time for time in events))
      injured = any(row.prediction_time < time <= after for time in events)
      labels[row.Index] = 1.0 if injured else 0.0 if compared else np.nan
    known, already = np.array(known), np.array(already)
    self._step('creatinine in the 7 days before', stays[known])
    stays = self._step('no AKI in the 7 days before', stays[known & ~already])
    self._step('subject and admission known', stays)
    return stays.assign(label=pd.Series(labels))

  def _outputs(self):
    if not (self._root / 'icu/outputevents.csv.gz').exists():
      return None, None
    return (
      self._raw('icu/outputevents', 'charttime'),
      self._raw('icu/inputevents', 'starttime').sort_values('starttime', kind='stable'),
    )


def _oliguria(stay, outputs, weights):
  if outputs is None:
    return []
  urine = outputs[outputs.itemid == 226559]
  urine = urine[(urine.subject_id == stay.subject_id) & urine.value.between(0, 5000)]
  end = stay.prediction_time + 48 * HOUR
  urine = urine[urine.charttime.between(stay.intime, end)].drop_duplicates()
  urine = urine.groupby('charttime').value.sum()
  mine = weights[
    (weights.subject_id == stay.subject_id)
    & weights.starttime.between(stay.intime, stay.prediction_time)
    & weights.patientweight.between(20, 350)
  ]
  found = []
  for time in urine.index if len(mine) else ():
    begins = urine.index[urine.index <= time - 6 * HOUR]
    if len(begins) and time - begins[-1] <= 12 * HOUR:
      volume = urine[(urine.index > begins[-1]) & (urine.index <= time)].sum()
      rate = volume / mine.patientweight.iloc[0] / ((time - begins[-1]) / HOUR)
      if rate < 0.5 - 1e-12:
        found.append(time)
  return found


@pytest.fixture(scope='module')
def simulated(tmp_path_factory):
  folder = tmp_path_factory.mktemp('simulated')
  write_hospital(folder / 'raw', patients=60, seed=4, ecg=False)
  return folder / 'raw/mimic-iv'


@pytest.fixture(scope='module', params=['demo', 'simulated'])
def root(request):
  if request.param == 'demo':
    if not DEMO.exists():
      pytest.skip('the MIMIC-IV demo is not at ../shared/data')
    return DEMO
  return request.getfixturevalue('simulated')


@pytest.mark.parametrize('task', TASKS)
def test_every_step_and_every_label(root, tmp_path, task):
  expected = Oracle(root, task)
  staged = mimic_iv.stage(task, tmp_path, mimic_iv.Settings(mimic_iv=root), Resources())
  assert staged.cohort['steps'] == expected.steps
  found = pd.read_parquet(tmp_path / 'samples.parquet').set_index('sample_id').sort_index()
  assert found.index.tolist() == expected.samples.index.tolist()
  assert (found.subject_id == expected.samples.subject_id).all()
  assert (found.prediction_time == expected.samples.prediction_time).all()
  label = np.array(found.label.tolist())
  np.testing.assert_array_equal(label, np.array(expected.samples.label.tolist()))
  assert 0 < np.nanmean(label) < 1
  if task == 'decompensation':
    np.testing.assert_allclose(found.weight, expected.samples.weight)
  else:
    assert 'weight' not in found
  # No event is from outside the window.
  start = (expected.samples.start_time - expected.samples.prediction_time) / HOUR
  labs = pd.read_parquet(tmp_path / 'events_labs.parquet')
  assert len(labs) and (labs.time <= 0).all()
  assert (labs.time >= labs.sample_id.map(start) - 1e-4).all()
