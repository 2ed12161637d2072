"""`--extra` against plain pandas: every event and every count.

On a simulated hospital with all tables of the extras, and on the open demo, whose copy at
../shared/data has chartevents alone (without words), so that it shows ventilation. The
functions below compute both anew, row by row; of the source they read its tables.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_pipeline.sources import Resources, mimic_iv
from data_pipeline.sources.common.items import items, read_rows
from data_pipeline.sources.simulated import write_hospital

DEMO = Path(__file__).resolve().parents[2] / '../shared/data/mimic-iv-demo'
HOUR = pd.Timedelta(hours=1)
KEYS = ['sample_id', 'item', 'category', 'time', 'value']
URINE, IRRIGANT = (226559,), 227488  # what the simulated hospital has


class Oracle:
  """Events and counts of one hospital, for samples that are one for each subject."""

  def __init__(self, root, samples, *, storetime):
    self._root, self._storetime = root, storetime
    self._of = samples.set_index('subject_id')
    self._events, self.counts = [], Counter()
    self._map = {
      (row['table'], int(row['itemid'])): row['item'] for row in read_rows('item_map')
    }

  def of(self, extra):
    self._items = {item.itemid: (i, item) for i, item in enumerate(items(extra))}
    getattr(self, f'_{extra}')()
    found = pd.DataFrame(self._events, columns=[*KEYS, 'known'])
    duplicates = len(found) - len(found.drop_duplicates(KEYS))
    self.counts['duplicate'] = duplicates
    return found.drop_duplicates(KEYS)[KEYS].sort_values(KEYS, ignore_index=True)

  def _rows(self, name, *times):
    path = self._root / f'{name}.csv.gz'
    rows = pd.read_csv(
      path, parse_dates=list(times), low_memory=False,
      keep_default_na=False, na_values=[''],  # 'None' is a device
    )  # fmt: skip
    return rows[rows.subject_id.isin(self._of.index)]

  def _why_not(self, row, time, counted=True):
    stay = self._of.loc[row.subject_id]
    if pd.isna(time):
      return 'malformed'
    if time > stay.prediction_time:
      return 'dropped: after the prediction time'
    if time < stay.prediction_time - 24 * HOUR:
      return 'dropped: before the stay'
    if pd.notna(row.storetime) and row.storetime > stay.prediction_time:
      kind = 'dropped' if self._storetime else 'kept'
      self.counts[f'{kind}: stored after the prediction time'] += counted
      return 'late' if self._storetime else None
    return None

  def _usable(self, row, time):
    why = self._why_not(row, time)
    if why not in (None, 'late'):
      self.counts[why] += 1
    return why is None

  def _add(self, row, time, item, value=np.nan, category=-1):
    stay, (index, known) = self._of.loc[row.subject_id], self._items[item]
    if not known.categories and not known.low <= value <= known.high:
      self.counts['dropped: outside physiologic limits'] += 1
      return
    hours = (time - stay.prediction_time) / HOUR
    self._events.append((stay.sample_id, index, category, hours, value, row.storetime))

  def _medications(self):
    runs = []
    for row in self._rows(
      'icu/inputevents', 'starttime', 'endtime', 'storetime'
    ).itertuples():
      rate, amount, given = (
        self._map.get((f'inputevents.{kind}', row.itemid))
        for kind in ('rate', 'amount', 'given')
      )
      if not (rate or amount or given):
        continue
      self.counts['inputs'] += 1
      if row.statusdescription.strip().lower() == 'rewritten':
        self.counts['dropped: rewritten or cancelled'] += 1
      elif given:
        if self._usable(row, row.starttime):
          self._add(row, row.starttime, given, category=0)
      elif rate and pd.notna(row.rate):
        start = row.starttime
        begins = self._of.loc[row.subject_id].prediction_time - 24 * HOUR
        if start < begins < row.endtime:
          start = begins
        if self._usable(row, start):
          # Of this hospital all rates are in the unit of their item.
          assert row.rateuom == self._items[rate][1].unit
          self._add(row, start, rate, row.rate)
          runs.append((rate, row))
      elif self._usable(row, row.endtime):
        assert row.amountuom.lower() == self._items[amount][1].unit.lower()
        self._add(row, row.endtime, amount, row.amount)
    for item, row in runs:
      goes_on = any(
        other == item and next_.subject_id == row.subject_id
        and next_.starttime <= row.endtime < next_.endtime
        for other, next_ in runs
      )  # fmt: skip
      if not goes_on and row.endtime <= self._of.loc[row.subject_id].prediction_time:
        self._add(row, row.endtime, item, 0.0)
    of_drug = {'Vancomycin': 'vancomycin', 'Furosemide': 'loop_diuretic',
               'Insulin': 'insulin'}  # fmt: skip
    for row in self._rows('hosp/emar', 'charttime', 'storetime').itertuples():
      self.counts['scans'] += 1
      if row.event_txt != 'Administered':
        self.counts['dropped: not administered'] += 1
      elif self._usable(row, row.charttime):
        self._add(row, row.charttime, of_drug[row.medication], category=0)

  def _urine_output(self):
    volumes = {}
    for row in self._rows('icu/outputevents', 'charttime', 'storetime').itertuples():
      if row.itemid not in (*URINE, IRRIGANT):
        continue
      if self._why_not(row, row.charttime) is None:
        volumes.setdefault(row.subject_id, {}).setdefault(row.charttime, []).append(row)
    for charted in volumes.values():
      before = None
      for time in sorted(charted):
        [row] = charted[time]
        self._add(row, time, 'urine_volume', row.value)
        if before is not None and time - before <= 12 * HOUR:
          self._add(row, time, 'urine_rate', row.value / ((time - before) / HOUR))
        before = time

  def _ventilation(self):
    modes = {
      row['text']: row['category'] for row in read_rows('text_categories')
      if row['item'] in ('223849', 'airway_procedure')
    }  # fmt: skip
    for row in self._rows('icu/chartevents', 'charttime', 'storetime').itertuples():
      item = self._map.get(('chartevents', row.itemid))
      # Its rows are counted for all modalities together, under chartevents.
      if item not in self._items or self._why_not(row, row.charttime, False) is not None:
        continue
      categories = self._items[item][1].categories
      value = row.valuenum
      if categories:
        text = '' if pd.isna(row.value) else str(row.value).strip().upper()
        text = modes.get(text, text)
        if text in categories:
          self._add(row, row.charttime, item, category=categories.index(text))
        else:
          self.counts['dropped: unlisted category'] += 1
      elif pd.isna(value):
        self.counts['dropped: no value'] += 1
      else:
        if item == '223835' and 0.2 <= value <= 1:
          value *= 100
        self._add(row, row.charttime, item, value)
    if not (self._root / 'icu/procedureevents.csv.gz').exists():
      return
    for row in self._rows('icu/procedureevents', 'starttime', 'storetime').itertuples():
      self.counts['procedures'] += 1
      if self._usable(row, row.starttime):
        names = self._items['airway_procedure'][1].categories
        category = names.index(modes[str(row.itemid)])
        self._add(row, row.starttime, 'airway_procedure', category=category)


@pytest.fixture(scope='module')
def simulated(tmp_path_factory):
  folder = tmp_path_factory.mktemp('simulated')
  write_hospital(folder / 'raw', patients=40, seed=4, ecg=False)
  return folder / 'raw/mimic-iv'


@pytest.fixture(scope='module', params=['demo', 'charttime', 'storetime'])
def both(request, tmp_path_factory):
  """Folder of the raw tables, of the staged ones, what was staged, and availability."""
  where, extra = 'charttime', 'ventilation'
  if request.param == 'demo':
    if not DEMO.exists():
      pytest.skip('the MIMIC-IV demo is not at ../shared/data')
    root = DEMO
  else:
    root, where = request.getfixturevalue('simulated'), request.param
    extra = 'medications,urine_output,ventilation'
  folder = tmp_path_factory.mktemp(request.param)
  settings = mimic_iv.Settings(mimic_iv=root, extra=extra, availability=where)
  return root, folder, mimic_iv.stage('mortality', folder, settings, Resources()), where


def test_every_event_and_every_count(both):
  root, folder, staged, availability = both
  samples = pd.read_parquet(folder / 'samples.parquet')
  assert samples.subject_id.is_unique
  for extra in mimic_iv.extras.NAMES:
    if extra not in staged.schema.modalities:
      continue
    oracle = Oracle(root, samples, storetime=availability == 'storetime')
    expected = oracle.of(extra)
    found = pd.read_parquet(folder / f'events_{extra}.parquet')[KEYS]
    # Hours are rounded to 32 bits before they are sorted.
    expected = expected.astype({'time': np.float32, 'value': np.float32})
    expected = expected.sort_values(KEYS, ignore_index=True)
    found = found.sort_values(KEYS, ignore_index=True)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-6)
    assert len(found) > 200 and (found.time <= 0).all() and (found.time >= -24).all()
    rows = staged.cohort['rows']
    assert rows[extra][f'written to {extra}'] == len(expected)
    counts = Counter()
    for name, reasons in rows.items():
      if name.startswith(f'{extra}: '):
        for reason, n in reasons.items():
          counts[reason.removesuffix(' (rate)').removesuffix(' (amount)')] += n
    for reason in oracle.counts:
      if ':' in reason:
        assert counts[reason] == oracle.counts[reason], (extra, reason)
    if extra == 'medications':
      assert counts['read: wanted items of the cohort'] == oracle.counts['inputs'] > 100
      assert counts['read'] == oracle.counts['scans'] > 100
    if extra == 'ventilation' and root == DEMO:
      assert counts['dropped: unlisted category'] == oracle.counts[
        'dropped: unlisted category'
      ] > 0  # fmt: skip


def test_labels_of_d_items(simulated):
  """The itemids are those of MIMIC-IV's dictionary, and of the right table."""
  if not DEMO.exists():
    pytest.skip('the MIMIC-IV demo is not at ../shared/data')
  real = pd.read_csv(DEMO / 'icu/d_items.csv.gz').set_index('itemid')
  for row in read_rows('item_map'):
    if row['modality'] in mimic_iv.extras.NAMES:
      assert real.linksto[int(row['itemid'])] == row['table'].split('.')[0]
  ours = pd.read_csv(simulated / 'icu/d_items.csv.gz').set_index('itemid')
  assert (ours.label == real.label[ours.index]).all()
  # Words of items, held against those of the dictionary.
  words = {
    'norepinephrine_rate': 'Norepinephrine', 'vasopressin_rate': 'Vasopressin',
    'propofol_rate': 'Propofol', 'insulin_short_dose': 'Insulin',
    'furosemide_dose': 'Furosemide', 'red_cells_dose': 'RBC|Red Blood',
    'vancomycin': 'Vancomycin', 'cephalosporin': 'Cef|Keflex',
    'plasma_dose': 'FFP|Frozen Plasma', 'heparin_rate': 'Heparin',
  }  # fmt: skip
  for row in read_rows('item_map'):
    if row['item'] in words:
      assert pd.Series([real.label[int(row['itemid'])]]).str.contains(words[row['item']])[0]
