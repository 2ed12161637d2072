"""Staging of the open demo: every count and every staged value against plain pandas.

`Oracle` computes both anew from the raw files with the rules of docs/design.md and
the tables of the source. It shares no SQL; of the code under test it uses only what is
tested by itself: the parsers of texts and drug names, and the conversions of units.
"""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_pipeline.ecg.report_terms import terms_of
from data_pipeline.format.modalities.waveform import ECG_MEASUREMENTS
from data_pipeline.sources import Resources
from data_pipeline.sources.common import results
from data_pipeline.sources.common.items import (
  conversions,
  items,
  read_rows,
  static_items,
  unit_key,
)
from data_pipeline.sources.mimic_iv import Settings, drugs, stage

DATA = Path(__file__).resolve().parents[2] / '../shared/data'
HOUR, DAY = pd.Timedelta(hours=1), pd.Timedelta(days=1)
CATEGORICAL_VITALS = (220048, 224650, 224651, 226479, 226480)
pytestmark = pytest.mark.skipif(
  not (DATA / 'mimic-iv-demo').exists(), reason='the MIMIC-IV demo is not at ../shared/data'
)


def raw(name, *times):
  path = DATA / 'mimic-iv-demo' / f'{name}.csv.gz'
  return pd.read_csv(path, low_memory=False, parse_dates=list(times))


def ecg(name, *times):
  path = DATA / 'mimic-iv-ecg-grafted' / f'{name}.csv'
  return pd.read_csv(path, low_memory=False, parse_dates=list(times))


class Oracle:
  """Cohort, counts and staged values of one task.

  Attributes:
    steps: as in cohort.json.
    rows: likewise; counts of 0 are left out.
    samples: indexed by sample_id.
  """

  def __init__(self, task):
    self.task = task
    self.steps, self.rows = [], {}
    self.patients = raw('hosp/patients', 'dod').set_index('subject_id')
    self.admissions = raw('hosp/admissions', 'admittime', 'dischtime', 'deathtime')
    self._count('patients', read=len(self.patients))
    flag, timed = self.admissions.hospital_expire_flag, self.admissions.deathtime.notna()
    self._add('admissions', {
      'read': len(self.admissions),
      'kept: hospital_expire_flag without deathtime': (~timed & (flag == 1)).sum(),
      'kept: deathtime without hospital_expire_flag': (timed & (flag == 0)).sum(),
    })  # fmt: skip
    deathtime = self.admissions.groupby('subject_id').deathtime.min()
    self.dead_from = deathtime.reindex(self.patients.index).fillna(self.patients.dod + DAY)
    self.records = ecg('record_list', 'ecg_time')
    self._count('record_list', read=len(self.records))
    self.samples = self._cvd() if task == 'cvd' else self._icu()
    self._resolved = {}
    for table in ('labevents',) if task == 'cvd' else ('labevents', 'chartevents'):
      self._resolved[table] = self._scan(table)
    self.labs = self._labs()
    if task == 'cvd':
      self._omr()
      self._prescriptions()
    else:
      self.grid = self._grid()
      self._unlisted()
    self.recordings = self._recordings()

  def _count(self, table, **reasons):
    """Keyword names stand for the reasons of cohort.json, `_` for ': '."""
    self._add(table, {name.replace('__', ': ').replace('_', ' '): n
                      for name, n in reasons.items()})  # fmt: skip

  def _add(self, table, reasons):
    of = self.rows.setdefault(table, Counter())
    of.update({reason: int(n) for reason, n in reasons.items()})

  def _step(self, text, frame):
    count = {'samples': len(frame), 'subjects': frame.subject_id.nunique()}
    self.steps.append({'step': text, **count})
    return frame

  def _icu(self):
    stays = raw('icu/icustays', 'intime', 'outtime')
    self._count('icustays', read=len(stays))
    self._step('ICU stays', stays)
    stays = stays.sort_values(['intime', 'stay_id']).groupby('subject_id').head(1)
    self._step('first ICU stay of the subject', stays)
    stays = stays[stays.outtime - stays.intime >= DAY].copy()
    self._step('stay of at least 24 h', stays)
    stays['prediction_time'], stays['start_time'] = stays.intime + DAY, stays.intime
    dead_from = stays.subject_id.map(self.dead_from)
    stays = stays[~(dead_from <= stays.prediction_time)]
    self._step('alive after 24 h', stays)
    of = self.admissions.drop(columns='subject_id').set_index('hadm_id')
    stays = stays[~(stays.hadm_id.map(of.dischtime) <= stays.prediction_time)]
    self._step('in hospital after 24 h', stays)
    stays = stays.join(of, on='hadm_id', how='inner')
    stays['label'] = (
      stays.hospital_expire_flag.astype(float)
      if self.task == 'mortality'
      else (stays.outtime - stays.intime) / DAY
    )
    stays['age'] = self._age(stays, stays.admittime)
    self._step('subject, admission and label known', stays)
    return stays.set_index('stay_id').rename_axis('sample_id')

  def _age(self, frame, time):
    patient = self.patients.loc[frame.subject_id].set_index(frame.index)
    return patient.anchor_age + time.dt.year - patient.anchor_year

  def _cvd(self):
    coded = {}
    for kind in ('diagnoses', 'procedures'):
      codes = raw(f'hosp/{kind}_icd')
      unique = codes.drop_duplicates(
        ['subject_id', 'hadm_id', 'seq_num', 'icd_code', 'icd_version']
      )
      duplicates = len(codes) - len(unique)
      self._count(f'{kind}_icd', read=len(codes), dropped__duplicate=duplicates)
      coded[kind] = unique.groupby('hadm_id')
    ecgs = self._step('ECGs', self.records.copy())
    ecgs = self._step(
      'subject in patients', ecgs[ecgs.subject_id.isin(self.patients.index)]
    )
    ecgs = ecgs[self._age(ecgs, ecgs.ecg_time).between(18, 89)]
    self._step('age 18 to 89', ecgs)
    ecgs = ecgs[~(ecgs.subject_id.map(self.dead_from) <= ecgs.ecg_time)]
    self._step('alive at the ECG', ecgs)
    found = {name: [] for name in ('admitted', 'coded', 'clear')}
    labels = {}
    for ecg_ in ecgs.itertuples():
      after = self.admissions[
        (self.admissions.subject_id == ecg_.subject_id)
        & (self.admissions.admittime > ecg_.ecg_time)
        & (self.admissions.admittime <= ecg_.ecg_time + 90 * DAY)
        & (self.admissions.dischtime - self.admissions.admittime >= DAY)
        & ~(self.dead_from[ecg_.subject_id] <= self.admissions.admittime)
      ].sort_values(['admittime', 'hadm_id'])
      if after.empty:
        continue
      found['admitted'].append(ecg_.Index)
      of = {k: g.get_group(after.hadm_id.iloc[0]) for k, g in coded.items()
            if after.hadm_id.iloc[0] in g.groups}  # fmt: skip
      operated = _classes(of.get('procedures'), 'procedures')
      diagnosed = _classes(of.get('diagnoses'), 'diagnoses')
      if not ('diagnoses' in of or operated):
        continue
      found['coded'].append(ecg_.Index)
      primary = [name for seq_num, name in diagnosed if seq_num == 1]
      if diagnosed and not operated and not primary:
        continue
      found['clear'].append(ecg_.Index)
      name = 'CHD' if operated else primary[0] if primary else 'non_CVD'
      labels[ecg_.study_id] = ('non_CVD', 'CHD', 'stroke', 'HF').index(name)
    self._step('admitted for at least 24 h within 90 days', ecgs.loc[found['admitted']])
    self._step('admission has coded diagnoses', ecgs.loc[found['coded']])
    ecgs = ecgs.loc[found['clear']].set_index('study_id').rename_axis('sample_id')
    self._step('no CVD diagnosis that is not primary (or operated)', ecgs)
    ecgs['prediction_time'], ecgs['start_time'] = ecgs.ecg_time, pd.NaT
    ecgs['label'], ecgs['age'] = pd.Series(labels), self._age(ecgs, ecgs.ecg_time)
    return ecgs

  def _scan(self, table):
    """Rows inside the window, with item, value, category and the reason to drop them."""
    folder = {'labevents': 'hosp', 'chartevents': 'icu'}[table]
    events = raw(f'{folder}/{table}', 'charttime', 'storetime')
    modalities = {'cvd_labs'} if self.task == 'cvd' else {'labs', 'vitals'}
    names = {
      int(row['itemid']): (row['modality'], row['item'], row['unit'])
      for row in read_rows('item_map')
      if row['table'] == table and row['modality'] in modalities
    }
    wanted = [*names, *(CATEGORICAL_VITALS if table == 'chartevents' else ())]
    last = self.samples.groupby('subject_id').prediction_time.max()
    first = self.samples.groupby('subject_id').start_time.min()
    events = events[events.itemid.isin(wanted) & events.subject_id.isin(last.index)].copy()
    last, first = events.subject_id.map(last), events.subject_id.map(first)
    after, before = events.charttime > last, events.charttime < first
    self._add(table, {
      'read: wanted items of the cohort': len(events),
      'dropped: missing or malformed charttime': events.charttime.isna().sum(),
      'dropped: after the prediction time': after.sum(),
      'dropped: before the stay': before.sum(),
    })  # fmt: skip
    inside = events.charttime.notna() & ~after & ~before
    late = (events.storetime > last)[inside].sum()
    self._add(table, {'kept: stored after the prediction time': late})
    kept = []
    for row in events[inside].itertuples():
      if row.itemid in names:
        modality, name, unit = names[row.itemid]
        known = {item.itemid: (index, item) for index, item in enumerate(items(modality))}
        index, item = known[name]
        comments = _text(getattr(row, 'comments', None))
        value, category, reason, repair = _resolve(item, row, comments, unit)
        self._add(table, {reason or repair: 1} if reason or repair else {})
      elif pd.isna(row.value):
        modality, index, value, category = 'vitals_categorical', -1, None, -1
        reason = 'dropped: no value'
        self._add(modality, {'read': 1, reason: 1})
      else:
        raise NotImplementedError('the demo has no categorical vitals')
      if not reason:
        kept.append((row.subject_id, modality, row.itemid, index, row.charttime, value,
                     category))  # fmt: skip
    return pd.DataFrame(
      kept,
      columns=[
        'subject_id',
        'modality',
        'itemid',
        'item',
        'charttime',
        'value',
        'category',
      ],
    )

  def _within(self, events):
    """Events joined to the samples that may know them."""
    samples = self.samples.reset_index()
    samples = samples[['sample_id', 'subject_id', 'prediction_time', 'start_time']]
    joined = events.merge(samples, on='subject_id')
    return joined[
      (joined.charttime <= joined.prediction_time)
      & ~(joined.charttime < joined.start_time)
    ]  # fmt: skip

  def _labs(self):
    events = pd.concat(self._resolved.values())
    events = events[events.modality.isin(['labs', 'cvd_labs'])]
    unique = events.drop_duplicates(
      ['subject_id', 'item', 'value', 'category', 'charttime']
    )
    self._count('labs', dropped__duplicate=len(events) - len(unique))
    labs = self._within(unique)
    self._count('labs', written_to_labs=len(labs))
    return labs.assign(time=(labs.charttime - labs.prediction_time) / HOUR)

  def _grid(self):
    events = self._resolved['chartevents']
    events = events[events.modality == 'vitals']
    unique = events.drop_duplicates(['subject_id', 'itemid', 'charttime', 'value'])
    inside = self._within(unique)
    step = (inside.charttime - inside.start_time) // pd.Timedelta(minutes=6)
    grid = inside.assign(step=step.clip(upper=239))
    grid = grid.groupby(['sample_id', 'step', 'item']).value.mean()
    self._count('vitals', dropped__duplicate=len(events) - len(unique),
                observations_averaged=len(unique), written_to_vitals=len(grid))  # fmt: skip
    return grid

  def _unlisted(self):
    for item in static_items('icu'):
      if item.categories:
        column = self.samples.get(item.itemid)
        if column is None:
          column = self.samples.subject_id.map(self.patients[item.itemid])
        unlisted = ~column.dropna().str.strip().str.upper().isin(item.categories)
        reason = f'repaired: unlisted {item.itemid} is missing'
        self._add('static', {reason: unlisted.sum()})

  def _omr(self):
    rows = raw('hosp/omr', 'chartdate')
    rows = rows[rows.subject_id.isin(self.samples.subject_id)]
    limits = {item.itemid: (item.low, item.high) for item in static_items('core')}
    scales = {'Weight (Lbs)': ('weight', 0.45359237), 'Height (Inches)': ('height', 2.54)}
    seen = set()
    for row in rows.itertuples(index=False):
      if row.result_name in ('Blood Pressure', 'Blood Pressure Sitting'):
        values = dict(
          zip(('sbp', 'dbp'), map(float, row.result_value.split('/')), strict=True)
        )
      elif row.result_name in scales:
        name, scale = scales[row.result_name]
        values = {name: float(row.result_value) * scale}
      else:
        continue
      for name, value in values.items():
        self._count('omr', values_read=1)
        low, high = limits[name]
        if not low <= value <= high:
          self._count('omr', dropped__outside_physiologic_limits=1)
        elif (name, *row) in seen:
          self._count('omr', dropped__duplicate=1)
        seen.add((name, *row))

  def _prescriptions(self):
    rows = raw('hosp/prescriptions', 'starttime')
    rows = rows[rows.subject_id.isin(self.samples.subject_id)]
    known = drugs.rules()
    grouped = rows.drug.dropna().map(lambda drug: bool(drugs.groups_of(drug, known)))
    self._count('prescriptions', read=len(rows), in_no_drug_group=(~grouped).sum())
    self._add('prescriptions', {
      'dropped: missing or malformed starttime': rows.starttime.isna().sum(),
      'dropped: no drug name': rows.drug.isna().sum(),
    })  # fmt: skip

  def _recordings(self):
    records = self.records.rename(columns={'ecg_time': 'charttime'})
    wanted = self._within(records)
    measured = ecg('machine_measurements').set_index('study_id')
    used = measured.loc[measured.index.isin(wanted.study_id)]
    limits = {row['measurement']: row for row in read_rows('measurements')}
    values = used[list(ECG_MEASUREMENTS)].apply(pd.to_numeric, errors='coerce')
    low = [float(limits[name]['low']) for name in ECG_MEASUREMENTS]
    high = [float(limits[name]['high']) for name in ECG_MEASUREMENTS]
    unusable = values.notna() & ~(values.ge(low) & values.le(high))
    lines = used.filter(regex=r'^report_\d+$').stack().dropna()
    lines = lines[lines.str.strip() != '']
    unmatched = lines.map(lambda line: bool(terms_of([line])[1]))
    studies = wanted.study_id.nunique()
    self._add('record_list', {'used: distinct recordings': studies})
    self._add('machine_measurements', {
      'used: recordings': len(used),
      'missing: recordings without a row': studies - len(used),
      'missing: measurements out of range or not measurable': unusable.to_numpy().sum(),
      'report lines read': len(lines),
      'dropped: unmatched report lines': unmatched.sum(),
    })  # fmt: skip
    return wanted.assign(time=(wanted.charttime - wanted.prediction_time) / HOUR)


def _classes(codes, table):
  """(seq_num, class) of every code that has one."""
  rules = [row for row in read_rows('icd') if row['class'] and row['table'] == table]
  return [
    (code.seq_num, rule['class'])
    for code in (() if codes is None else codes.itertuples())
    for rule in rules
    if int(rule['version']) == code.icd_version
    and str(code.icd_code).strip().startswith(tuple(rule['prefixes'].split('|')))
  ]


def _text(value):
  return None if value is None or pd.isna(value) else str(value)


@functools.cache
def _value_categories():
  return [
    (row['item'], float(row['low']), float(row['high'] or 'inf'), row['category'])
    for row in read_rows('value_categories')
  ]


_conversions = functools.cache(conversions)


def _resolve(item, row, comments, default_unit):
  """(value, category, reason, repair) of a row of the raw table."""
  number, category, text = row.valuenum, None, _text(row.value)
  if pd.notna(number):
    if results.is_void(row.itemid, comments):
      return None, -1, 'dropped: voided by comment', None
  elif text or comments:
    found = results.parse(item, row.itemid, text, comments)
    if found.reason:
      return None, -1, f'dropped: {found.reason}', None
    number, category = found.number, found.category
  if item.kind == 'categorical':
    for name, low, high, listed in _value_categories():
      if (
        category is None
        and name == item.itemid
        and number is not None
        and low <= number < high
      ):
        category = item.categories.index(listed)
    if category is None:
      return None, -1, 'dropped: unlisted category', None
    return None, category, None, None
  if number is None or pd.isna(number):
    return None, -1, 'dropped: no value', None
  unit = unit_key(_text(row.valueuom) or '') or unit_key(default_unit)
  scale, offset = _conversions(item).get(unit, (None, None)) if unit else (1.0, 0.0)
  if scale is None:
    return None, -1, 'dropped: unknown unit', None
  repair = 'repaired: unit converted' if (scale, offset) != (1, 0) else None
  value = number * scale + offset
  if item.itemid == '223835' and 0.2 <= value <= 1:
    value, repair = value * 100, 'repaired: fraction to percent'
  if not item.low <= value <= item.high:
    return None, -1, 'dropped: outside physiologic limits', None
  return value, -1, None, repair


@pytest.fixture(scope='module', params=['mortality', 'los', 'cvd'])
def both(request, tmp_path_factory):
  """Oracle, staging folder and what was staged."""
  folder = tmp_path_factory.mktemp(request.param)
  settings = Settings(
    mimic_iv=DATA / 'mimic-iv-demo',
    mimic_iv_ecg=DATA / 'mimic-iv-ecg-grafted',
    static='extended' if request.param == 'cvd' else 'core',
  )
  return Oracle(request.param), folder, stage(request.param, folder, settings, Resources())


def without_zeros(rows):
  found = {table: {r: n for r, n in of.items() if n} for table, of in rows.items()}
  return {table: of for table, of in found.items() if of}


def test_every_step_and_every_count(both):
  oracle, _, staged = both
  assert staged.cohort['steps'] == oracle.steps
  assert without_zeros(staged.cohort['rows']) == without_zeros(oracle.rows)
  assert staged.cohort['unmatched_report_lines'] == []


def test_samples(both):
  oracle, folder, staged = both
  samples = pd.read_parquet(folder / 'samples.parquet')
  assert samples.sample_id.is_unique
  assert list(samples.columns[4:]) == list(staged.schema.attributes)
  samples = samples.set_index('sample_id').sort_index()
  expected = oracle.samples.sort_index()
  assert list(samples.index) == list(expected.index)
  assert (samples.subject_id == expected.subject_id).all()
  assert (samples.prediction_time == expected.prediction_time).all()
  np.testing.assert_allclose(samples.label, expected.label, rtol=1e-9)
  np.testing.assert_array_equal(samples.age, expected.age)


def test_labs(both):
  oracle, folder, _ = both
  labs = pd.read_parquet(folder / 'events_labs.parquet')
  keys = ['sample_id', 'item', 'category', 'time', 'value']
  found = labs[keys].sort_values(keys, ignore_index=True)
  expected = oracle.labs[keys].astype({'time': np.float32, 'value': np.float32})
  expected = expected.sort_values(keys, ignore_index=True)
  pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-6)


def test_grid(both):
  oracle, folder, staged = both
  if oracle.task == 'cvd':
    assert 'vitals' not in staged.schema.modalities
    return
  grid = pd.read_parquet(folder / 'grid_vitals.parquet')
  found = grid.set_index(['sample_id', 'step', 'signal']).value.sort_index()
  expected = oracle.grid.sort_index()
  assert list(found.index) == list(expected.index)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_recordings(both):
  oracle, folder, _ = both
  recordings = pd.read_parquet(folder / 'recordings.parquet')
  keys = ['sample_id', 'study_id', 'time']
  found = recordings[keys].sort_values(keys, ignore_index=True)
  expected = oracle.recordings[keys].astype({'time': np.float32})
  expected = expected.sort_values(keys, ignore_index=True)
  pd.testing.assert_frame_equal(found, expected, check_dtype=False)
  assert all(Path(path + '.hea').exists() for path in recordings.path.unique())


def test_static(both):
  oracle, folder, staged = both
  static = pd.read_parquet(folder / 'static.parquet').set_index('sample_id').sort_index()
  numeric = [item.itemid for item in staged.schema.modalities['static'].numeric]
  categorical = [item.itemid for item in staged.schema.modalities['static'].categorical]
  assert list(static.columns) == [*numeric, *categorical]
  assert list(static.index) == list(oracle.samples.sort_index().index)
  assert not (folder / 'scratch').exists()


def test_same_with_one_and_more_threads(tmp_path):
  tables = []
  for threads in (1, 3):
    folder = tmp_path / str(threads)
    settings = Settings(mimic_iv=DATA / 'mimic-iv-demo')
    result = stage('mortality', folder, settings, Resources(threads=threads))
    assert 'ecg' not in result.schema.modalities
    assert not (folder / 'recordings.parquet').exists()
    table = pd.read_parquet(folder / 'grid_vitals.parquet')
    tables.append(table.sort_values(['sample_id', 'step', 'signal'], ignore_index=True))
  pd.testing.assert_frame_equal(*tables)
