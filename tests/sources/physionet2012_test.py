"""PhysioNet 2012: made-up files with every fault, and set-a against plain pandas."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_pipeline.format.schema import DataError
from data_pipeline.sources import Resources, make_settings
from data_pipeline.sources.physionet2012 import Settings, stage
from data_pipeline.sources.physionet2012.variables import repairs, variables

REAL = Path(__file__).resolve().parents[2] / '../shared/data/physionet2012'
HEADER = 'Time,Parameter,Value'
OUTCOMES = 'RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death'
ADMISSION = {'Age': '60', 'Gender': '1', 'Height': '170', 'ICUType': '3', 'Weight': '80'}


def record(number, *rows, header=HEADER, **admission):
  """Text of a record; `rows` follow the descriptors."""
  descriptors = {'RecordID': str(number), **ADMISSION, **admission}
  lines = [f'00:00,{name},{value}' for name, value in descriptors.items()]
  return '\n'.join([header, *lines, *rows]) + '\n'


def write(folder, texts, outcomes=None, *, name='set-a'):
  """A set as an extracted folder; by default everybody leaves after 5 days."""
  (folder / name).mkdir(parents=True)
  for number, text in texts.items():
    (folder / name / f'{number}.txt').write_text(text)
  if outcomes is None:
    outcomes = [f'{number},6,1,5,-1,0' for number in texts]
  path = folder / f'Outcomes-{name[-1]}.txt'
  path.write_text('\n'.join([OUTCOMES, *outcomes]) + '\n')
  return folder


def pack(folder, kind, *, name='set-a'):
  """Turns an extracted set into an archive."""
  ending = f'.tar.{kind}' if kind else '.tar'
  path = folder / f'{name}{ending}'
  with tarfile.open(path, f'w:{kind}') as archive:
    archive.add(folder / name, name)
  for text in (folder / name).iterdir():
    text.unlink()
  (folder / name).rmdir()
  return path


def staged(root, tmp_path, task='mortality', threads=2):
  """What `stage` returns, and its tables."""
  out = tmp_path / f'staged-{task}-{threads}'
  result = stage(task, out, Settings(root), Resources(threads=threads))
  tables = {path.stem: pd.read_parquet(path) for path in out.glob('*.parquet')}
  assert not (out / 'scratch').exists()
  return result, tables


def rows_of(result):
  return result.cohort['rows']['records']


def test_values_times_and_cells(tmp_path):
  text = record(
    7, '00:10,HR,80', '00:20,HR,90', '00:30,HR,100', '47:59,K,4.1', '48:00,HR,70',
    '12:00,MechVent,1', '12:00,Weight,81.5', '12:00,MAP,70', '12:00,MAP,72',
  )  # fmt: skip
  result, tables = staged(write(tmp_path, {7: text}), tmp_path)
  schema = result.schema
  events = tables['events_events']
  name = np.array([item.itemid for item in schema.modalities['events'].items])[
    events['item']
  ]
  found = sorted(
    zip(name, events['time'], events['value'].fillna(-9), events['category'], strict=True)
  )
  expected = [
    ('HR', -48 + 1 / 6, 80, -1), ('HR', -48 + 1 / 3, 90, -1), ('HR', -47.5, 100, -1),
    ('HR', 0, 70, -1), ('K', -1 / 60, 4.1, -1), ('MAP', -36, 70, -1), ('MAP', -36, 72, -1),
    ('MechVent', -36, -9, 1), ('Weight', -36, 81.5, -1),
  ]  # fmt: skip
  assert [row[0] for row in found] == [row[0] for row in expected]
  np.testing.assert_allclose(
    [row[1:] for row in found], [row[1:] for row in expected], rtol=0, atol=2e-6
  )
  assert events['time'].max() <= 0
  grid = tables['grid_vitals']
  signal = np.array([item.itemid for item in schema.modalities['vitals'].items])[
    grid['signal']
  ]
  cells = dict(zip(zip(signal, grid['step'], strict=True), grid['value'], strict=True))
  assert cells == {('HR', 0): 85, ('HR', 1): 100, ('HR', 95): 70, ('MAP', 24): 71}
  [sample] = tables['samples'].to_dict('records')
  assert sample == {
    'sample_id': 7, 'subject_id': 7, 'prediction_time': pd.Timestamp('2000-01-03'),
    'label': 0, 'sex': 'M', 'age': 60, 'unit': 'medical',
  }  # fmt: skip
  [static] = tables['static'].to_dict('records')
  assert static == {
    'sample_id': 7, 'Age': 60, 'Height': 170, 'Weight': 80, 'Gender': 'M',
    'ICUType': 'medical',
  }  # fmt: skip


def test_scales_are_repaired_and_counted(tmp_path):
  text = record(
    7, '01:00,Temp,2.8', '02:00,Temp,98.6', '03:00,pH,735', '04:00,FiO2,40', Height='14'
  )  # fmt: skip
  result, tables = staged(write(tmp_path, {7: text}), tmp_path)
  assert tables['static'].loc[0, 'Height'] == 168
  values = tables['events_events'].sort_values('time')['value']
  np.testing.assert_allclose(values, [37.04, 37, 7.35, 0.4], rtol=1e-5)
  repaired = {r: n for r, n in rows_of(result).items() if r.startswith('repaired')}
  assert repaired == {
    'repaired: Temp, degrees Celsius were converted from Fahrenheit': 1,
    'repaired: Temp, Fahrenheit': 1,
    'repaired: pH, two decimal places lost': 1,
    'repaired: FiO2, percent to fraction': 1,
    'repaired: Height, feet were converted from inches': 1,
  }


def test_repairs_begin_outside_the_limits_and_end_inside():
  limits = {one.item.itemid: one.item for one in variables()}
  for repair in repairs():
    item = limits[repair.variable]
    assert repair.high < item.low or repair.low > item.high, repair
    ends = [end * repair.scale + repair.offset for end in (repair.low, repair.high)]
    assert item.low <= ends[0] < ends[1] <= item.high, repair


@pytest.mark.parametrize(
  ('row', 'reason'),
  [
    ('01:00,Heart,80', 'dropped: unknown parameter'),
    ('01:00,,80', 'dropped: unknown parameter'),
    ('01:00,HR,high', 'dropped: unreadable value'),
    ('01:00,HR,nan', 'dropped: unreadable value'),
    ('01:00,HR,', 'dropped: unreadable value'),
    ('1h,HR,80', 'dropped: unreadable time'),
    ('01:60,HR,80', 'dropped: unreadable time'),
    ('-1:00,HR,80', 'dropped: unreadable time'),
    ('48:01,HR,80', 'dropped: after 48:00'),
    ('01:00,HR,-1', 'missing: -1'),
    ('01:00,HR,0', 'dropped: outside physiologic limits'),
    ('01:00,MechVent,2', 'dropped: unlisted category'),
    ('01:00,Age,61', 'dropped: descriptor after 00:00'),
    ('00:00,Age,61', 'dropped: duplicate'),
    ('02:00,HR,75', 'dropped: duplicate'),
    ('02:00,HR,75.0', 'dropped: duplicate'),
    ('01:00,HR', 'dropped: not three cells'),
    ('01:00,HR,80,1', 'dropped: not three cells'),
  ],
)
def test_a_bad_row_is_dropped_and_counted(tmp_path, row, reason):
  text = record(7, '02:00,HR,75', row)
  result, tables = staged(write(tmp_path, {7: text}), tmp_path)
  assert rows_of(result) == {'read': 8, 'RecordID': 1, reason: 1}
  assert len(tables['events_events']) == 1
  assert tables['static'].loc[0, 'Age'] == 60


def test_unknown_descriptors_are_missing(tmp_path):
  text = record(7, Gender='-1', Height='-1', Weight='-1', ICUType='9')
  result, tables = staged(write(tmp_path, {7: text}), tmp_path)
  assert tables['static'].isna().sum().sum() == 4
  assert pd.isna(tables['samples'].loc[0, 'sex'])
  assert rows_of(result)['missing: -1'] == 3
  assert result.cohort['rows']['static'] == {
    'missing: Height': 1, 'missing: Weight': 1, 'missing: Gender': 1,
    'missing: ICUType': 1, 'written to static': 1,
  }  # fmt: skip


def test_records_and_outcomes_that_do_not_meet_are_counted(tmp_path):
  texts = {number: record(number, '01:00,HR,80') for number in (7, 8, 9)}
  rows = ['7,6,1,5,3,1', '7,6,1,5,3,1', '8,6,1,-1,-1,0', '10,6,1,5,-1,0', ',6,1,5,-1,0']
  root = write(tmp_path / 'in', texts, rows)
  result, tables = staged(root, tmp_path)
  assert [step['samples'] for step in result.cohort['steps']] == [3, 2, 2]
  assert result.cohort['rows']['Outcomes-a.txt'] == {
    'read': 5, 'dropped: duplicate': 1, 'dropped: no record of this number': 1,
    'dropped: missing RecordID or outcome': 1,
  }  # fmt: skip
  assert rows_of(result)['dropped: the stay is not in the cohort'] == 7
  assert list(tables['samples']['label']) == [1, 0]
  los, tables = staged(root, tmp_path, 'los')
  assert [step['samples'] for step in los.cohort['steps']] == [3, 2, 1]
  assert los.cohort['rows']['Outcomes-a.txt']['missing: -1'] == 1
  assert list(tables['samples']['label']) == [5]


@pytest.mark.parametrize('kind', ['xz', 'gz', ''])
def test_an_archive_is_read_as_its_folder(tmp_path, kind):
  texts = {number: record(number, '01:00,HR,80') for number in (7, 8)}
  root = write(tmp_path / 'in', texts)
  write(root / '.', {9: record(9, '01:00,HR,80')}, name='set-b')
  expected = staged(root, tmp_path)
  archive = pack(root, kind)
  found = staged(root, tmp_path, threads=1)
  assert found[0] == expected[0]
  assert found[0].versions == {'challenge-2012': 'set-a, set-b'}
  keys = {'samples': 'sample_id', 'static': 'sample_id'}
  for name, table in expected[1].items():
    by = keys.get(name, list(table.columns))
    pd.testing.assert_frame_equal(
      found[1][name].sort_values(by, ignore_index=True),
      table.sort_values(by, ignore_index=True),
    )
  alone, _ = staged(archive, tmp_path / 'alone')
  assert alone.versions == {'challenge-2012': 'set-a'}


@pytest.mark.parametrize('kind', ['xz', 'gz', ''])
@pytest.mark.parametrize('share', [0, 0.3, 0.7, 0.999])
def test_a_truncated_archive_is_named(tmp_path, kind, share):
  rng = np.random.default_rng(0)
  texts = {
    number: record(number, *(f'01:00,HR,{hr}' for hr in rng.uniform(50, 90, 40)))
    for number in range(40)
  }
  archive = pack(write(tmp_path, texts), kind)
  if kind == '' and share == 0.999:
    pytest.skip('the end of a plain tar is padding')
  archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * share)])
  with pytest.raises(DataError, match=r'set-a\.tar.*truncated.*Download'):
    staged(tmp_path, tmp_path)


def test_an_archive_without_records_is_named(tmp_path):
  write(tmp_path, {7: record(7)})
  with tarfile.open(pack(tmp_path, 'gz'), 'w:gz') as archive:
    info = tarfile.TarInfo('set-a/README.md')
    archive.addfile(info, io.BytesIO())
  with pytest.raises(DataError, match='contains no record'):
    staged(tmp_path, tmp_path)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (record(7, header='Time,Variable,Value'), r"7\.txt: the first line is not 'Time,"),
    (record(7).removeprefix(HEADER + '\n'), r"7\.txt: the first line is not 'Time,"),
    ('', r"7\.txt: the first line is not 'Time,"),
    (HEADER + '\n', r'7\.txt: there is no row 00:00,RecordID,7'),
    (record(8), r'7\.txt: another record has the row 00:00,RecordID,7'),
  ],
)
def test_a_file_that_is_not_its_record_is_named(tmp_path, text, message):
  with pytest.raises(DataError, match=message):
    staged(write(tmp_path, {7: text}), tmp_path)


def test_faults_of_whole_files_are_named(tmp_path):
  with pytest.raises(DataError, match='no such folder or file'):
    make_settings('physionet2012', {'physionet2012': tmp_path / 'nowhere'})
  with pytest.raises(DataError, match=r'no set-a.*physionet\.org'):
    staged(tmp_path, tmp_path)
  write(tmp_path, {7: record(7)})
  outcomes = tmp_path / 'Outcomes-a.txt'
  text = outcomes.read_text()
  outcomes.write_text(text.replace('In-hospital_death', 'Death'))
  with pytest.raises(DataError, match=r"Outcomes-a\.txt: no column 'In-hospital_death'"):
    staged(tmp_path, tmp_path)
  outcomes.write_text(f'{text}7,6,1,5,3,1\n')
  with pytest.raises(DataError, match=r'Outcomes-a\.txt, line 3: contradicts'):
    staged(tmp_path, tmp_path)
  outcomes.unlink()
  with pytest.raises(DataError, match=r'Outcomes-a\.txt: no such file.*physionet\.org'):
    staged(tmp_path, tmp_path)
  outcomes.write_text(text)
  write(tmp_path, {7: record(7)}, name='set-b')
  with pytest.raises(DataError, match='record 7 is repeated, in set-a and in set-b'):
    staged(tmp_path, tmp_path)


@pytest.fixture(scope='module')
def real(tmp_path_factory):
  """Judged rows of set-a, outcomes, and what was staged for both tasks."""
  if not REAL.exists():
    pytest.skip('PhysioNet 2012 is not at ../shared/data')
  with tarfile.open(REAL / 'set-a.tar.xz') as archive:
    texts = [archive.extractfile(m).read() for m in archive if m.isfile()]
  body = b''.join(text.partition(b'\n')[2] for text in texts)
  frame = pd.read_csv(io.BytesIO(body), names=['time', 'name', 'value'])
  frame['record'] = frame['value'].where(frame['name'] == 'RecordID').ffill().astype(int)
  minutes = lambda text: 60 * int(text.split(':')[0]) + int(text.split(':')[1])
  frame['minute'] = frame['time'].map({text: minutes(text) for text in set(frame['time'])})
  results = {
    task: staged(REAL, tmp_path_factory.mktemp(task), task) for task in ('mortality', 'los')
  }
  return judged(frame), pd.read_csv(REAL / 'Outcomes-a.txt'), results


def judged(frame):
  """All rows with what is wrong with them, those that are kept, and the repetitions."""
  frame = frame[frame['name'] != 'RecordID'].copy()
  of_each = lambda what: frame['name'].map(
    {one.item.itemid: what(one) for one in variables()}
  )
  frame['static'] = of_each(lambda one: one.role == 'static')
  frame['static'] |= (frame['name'] == 'Weight') & (frame['minute'] == 0)
  frame['missing'] = frame['value'] == -1
  for repair in repairs():
    chosen = (frame['name'] == repair.variable) & frame['value'].between(
      repair.low, repair.high
    )
    frame.loc[chosen, 'value'] = frame['value'] * repair.scale + repair.offset
  low = of_each(lambda one: one.item.low).astype(float)
  high = of_each(lambda one: one.item.high).astype(float)
  frame['outside'] = ~frame['missing'] & ((frame['value'] < low) | (frame['value'] > high))
  usable = frame[~frame['missing'] & ~frame['outside']]
  repeated = usable.duplicated(['record', 'minute', 'name', 'value'])
  return frame, usable[~repeated], int(repeated.sum())


def test_every_count_of_set_a(real):
  (frame, kept, repeated), outcomes, results = real
  result, tables = results['mortality']
  assert [step['samples'] for step in result.cohort['steps']] == [4000] * 3
  assert tables['samples']['label'].sum() == 554
  rows = {r: n for r, n in rows_of(result).items() if not r.startswith('repaired')}
  assert rows == {
    'read': len(frame) + 4000,
    'RecordID': 4000,
    'missing: -1': frame['missing'].sum(),
    'dropped: outside physiologic limits': frame['outside'].sum(),
    'dropped: duplicate': repeated,
  }
  events = kept[~kept['static']]
  on_grid = [one.item.itemid for one in variables() if one.on_grid]
  averaged = events[events['name'].isin(on_grid)]
  cells = averaged.assign(step=(averaged['minute'] // 30).clip(upper=95))
  cells = cells.groupby(['record', 'step', 'name'])['value'].mean()
  assert result.cohort['rows']['events'] == {'written to events': len(events)}
  assert result.cohort['rows']['vitals'] == {
    'observations averaged': len(averaged), 'written to vitals': len(cells),
  }  # fmt: skip
  assert sum(rows.values()) - rows['read'] + len(kept) == rows['read']

  names = np.array([item.itemid for item in result.schema.modalities['vitals'].items])
  grid = tables['grid_vitals']
  grid = grid.assign(record=grid['sample_id'], name=names[grid['signal']])
  grid = grid.set_index(['record', 'step', 'name'])['value'].sort_index()
  assert grid.index.equals(cells.sort_index().index)
  np.testing.assert_allclose(grid, cells.sort_index(), rtol=1e-6)

  los, tables = results['los']
  days = outcomes.set_index('RecordID')['Length_of_stay']
  days = days[days >= 0].sort_index()
  assert [step['samples'] for step in los.cohort['steps']] == [4000, 4000, len(days)]
  found = tables['samples'].set_index('sample_id')['label'].sort_index()
  assert found.index.equals(days.index.rename('sample_id')) and (found == days).all()


def test_every_event_of_set_a(real):
  (_, kept, _), _, results = real
  result, tables = results['mortality']
  names = np.array([item.itemid for item in result.schema.modalities['events'].items])
  found = tables['events_events']
  found = found.assign(name=names[found['item']])
  found.loc[found['category'] >= 0, 'value'] = found['category'].astype(np.float32)
  expected = kept[~kept['static']].rename(columns={'record': 'sample_id'})
  expected = expected.assign(time=(expected['minute'] / 60 - 48).astype(np.float32))
  expected['value'] = expected['value'].astype(np.float32)
  keys = ['sample_id', 'name', 'time', 'value']
  pd.testing.assert_frame_equal(
    found[keys].sort_values(keys, ignore_index=True),
    expected[keys].sort_values(keys, ignore_index=True),
    check_dtype=False,
    rtol=1e-6,
  )
  static = kept[kept['static']].set_index(['record', 'name'])['value'].unstack()
  numbers = tables['static'].set_index('sample_id').sort_index()
  for name in ('Age', 'Height', 'Weight'):
    np.testing.assert_allclose(numbers[name], static[name].sort_index(), rtol=1e-7)
  assert (numbers['Gender'].map({'F': 0, 'M': 1}) == static['Gender'])[
    static['Gender'].notna()
  ].all()


def test_outcomes_are_no_inputs(real):
  _, _, results = real
  for result, tables in results.values():
    schema = result.schema
    items = (
      *schema.modalities['events'].items, *schema.modalities['vitals'].items,
      *schema.modalities['static'].numeric, *schema.modalities['static'].categorical,
    )  # fmt: skip
    inputs = {item.itemid for item in items}
    inputs |= {*schema.attributes, *tables['static'].columns}
    assert not inputs & set(OUTCOMES.replace('RecordID,', '').split(','))
