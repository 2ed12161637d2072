"""The input pipeline against a slow oracle that reads the staging files."""

from __future__ import annotations

import shutil

import jax
import numpy as np
import pandas as pd
import pytest

from data_pipeline.ecg import conditioning, reading
from data_pipeline.ecg.raw_recording import RawRecording
from data_pipeline.format import records
from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.modalities.waveform import ECG_MEASUREMENTS
from data_pipeline.format.schema import DataError
from data_pipeline.reading import input_pipeline, planning
from data_pipeline.reading.padding import padding
from tests.support import staging_fixture

SCHEMA = staging_fixture.SCHEMA
MODALITIES = SCHEMA.modalities


@pytest.fixture
def copied(folder, tmp_path):
  """A data set of its own, to damage."""
  shutil.copytree(folder / 'out', tmp_path / 'out')
  return open_dataset(tmp_path / 'out')


@pytest.fixture(scope='module')
def tables(folder):
  return {p.stem: pd.read_parquet(p) for p in (folder / 'raw').glob('*.parquet')}


def _flatten(tree, prefix=''):
  for name, value in tree.items():
    if isinstance(value, dict):
      yield from _flatten(value, f'{prefix}{name}/')
    else:
      yield prefix + name, value


def _assert_equal(one, two):
  one, two = dict(_flatten(one)), dict(_flatten(two))
  assert one.keys() == two.keys()
  for name, value in one.items():
    assert value.dtype == two[name].dtype, name
    np.testing.assert_array_equal(value, two[name], err_msg=name)


def _run(
  dataset,
  *,
  rows=None,
  modalities=MODALITIES,
  batching=None,
  plan=None,
  shuffle=(0, 0),
  **options,
):
  batching = batching or staging_fixture.batching()
  if plan is None:
    rows = np.arange(len(dataset)) if rows is None else rows
    plan = planning.plan_epoch(
      dataset,
      rows,
      modalities=modalities,
      batching=batching,
      batch_rows=4,
      devices=2,
      shuffle=shuffle,
    )
  steps = input_pipeline.batches(
    dataset, plan, modalities=modalities, batching=batching, **options
  )
  return plan, list(steps)


def _oracle(dataset, tables, rows, lengths, batching, capacity):
  """One device's batch, row by row."""
  b = len(rows)
  batch = {
    'label': np.zeros(b, np.float32),
    'weight': (rows >= 0).astype(np.float32),
    'row': rows,
    'static': {
      'numeric': np.zeros((b, 2), np.float32),
      'numeric_mask': np.zeros((b, 2), bool),
      'categorical': np.full((b, 1), -1, np.int32),
    },
    'vitals': {
      'value': np.zeros((b, 6, 2), np.float32),
      'observed': np.zeros((b, 6, 2), bool),
    },
    'ecg': {
      'signal': np.zeros((capacity, 1250, 12), np.int16),
      'gain': np.zeros(capacity, np.float32),
      'time': np.zeros(capacity, np.float32),
      'measurements': np.zeros((capacity, 9), np.float32),
      'measurements_mask': np.zeros((capacity, 9), bool),
      'terms': np.zeros((capacity, 3), np.uint8),
      'owner': np.zeros(capacity, np.int32),
      'mask': np.zeros(capacity, bool),
    },
  }
  for name, n in lengths.items():
    batch[name] = {
      'item': np.zeros((b, n), np.int32),
      'value': np.zeros((b, n), np.float32),
      'category': np.zeros((b, n), np.int32),
      'time': np.zeros((b, n), np.float32),
      'mask': np.zeros((b, n), bool),
    }
  slot = 0
  for i, row in enumerate(rows):
    if row < 0:
      continue
    sample = dataset.index['sample_id'][row]
    of_sample = {
      name: table[table['sample_id'] == sample] for name, table in tables.items()
    }
    batch['label'][i] = of_sample['samples']['label'].item()
    static = of_sample['static'].iloc[0]
    for s, name in enumerate(('age', 'weight')):
      if not np.isnan(static[name]):
        batch['static']['numeric'][i, s] = static[name]
        batch['static']['numeric_mask'][i, s] = True
    if isinstance(static['gender'], str):
      batch['static']['categorical'][i, 0] = 'FM'.index(static['gender'])
    for _, cell in of_sample['grid_vitals'].iterrows():
      at = i, int(cell['step']), int(cell['signal'])
      batch['vitals']['value'][at] = cell['value']
      batch['vitals']['observed'][at] = True
    for name, n in lengths.items():
      events = of_sample[f'events_{name}']
      # Equal times: by item, category, then value, as the records are sorted.
      events = events.sort_values(['time', 'item', 'category', 'value']).tail(n)
      for e, (_, event) in enumerate(events.iterrows()):
        for array in ('item', 'category', 'time'):
          batch[name][array][i, e] = event[array]
        batch[name]['value'][i, e] = 0 if np.isnan(event['value']) else event['value']
        batch[name]['mask'][i, e] = True
    recordings = []
    ordered = of_sample['recordings'].sort_values(['time', 'study_id'])
    for _, recording in ordered.iterrows():
      try:
        recordings.append((recording, *conditioning.load(RawRecording(recording['path']))))
      except reading.EcgError:
        continue
    for recording, signal, gain in recordings[-batching.max_recordings :]:
      ecg = batch['ecg']
      measured = recording[list(ECG_MEASUREMENTS)].to_numpy(np.float32)
      ecg['signal'][slot] = signal
      ecg['gain'][slot] = gain
      ecg['time'][slot] = recording['time']
      ecg['measurements'][slot] = np.nan_to_num(measured)
      ecg['measurements_mask'][slot] = ~np.isnan(measured)
      ecg['terms'][slot, list(recording['terms'])] = 1
      ecg['owner'][slot] = i
      ecg['mask'][slot] = True
      slot += 1
  return batch


def test_batches_equal_the_oracle(dataset, tables):
  batching = staging_fixture.batching()
  plan, steps = _run(dataset, batching=batching)
  assert set(plan.bucket) == {0, 1}
  assert sum(plan.truncated.values()) > 0 and plan.overflowing > 0
  assert (plan.rows == -1).any()
  for step, batch in enumerate(steps):
    for device in range(2):
      lengths = batching.buckets[plan.bucket[step]]
      rows = plan.rows[step, device]
      wanted = _oracle(dataset, tables, rows, lengths, batching, plan.capacity)
      found = {}
      for name, value in batch.items():
        nested = isinstance(value, dict)
        found[name] = {n: v[device] for n, v in value.items()} if nested else value[device]
      _assert_equal(found, wanted)


def test_resume_equals_the_tail(dataset):
  plan, steps = _run(dataset)
  for start in (1, len(steps) - 1, len(steps)):
    _, tail = _run(dataset, plan=plan, start_step=start)
    assert len(tail) == len(steps) - start
    for one, two in zip(steps[start:], tail, strict=True):
      _assert_equal(one, two)


def test_two_runs_are_identical(dataset):
  _, one = _run(dataset)
  _, two = _run(dataset)
  for first, second in zip(one, two, strict=True):
    _assert_equal(first, second)


def test_two_hosts_read_the_halves_of_one_hosts_batches(dataset):
  plan, whole = _run(dataset)
  halves = [_run(dataset, plan=plan, host=host, hosts=2)[1] for host in (0, 1)]
  assert len(halves[0]) == len(halves[1]) == len(plan)
  seen = [np.concatenate([batch['row'].ravel() for batch in half]) for half in halves]
  real = [rows[rows >= 0] for rows in seen]
  assert sorted([*real[0], *real[1]]) == list(range(len(dataset)))
  for batch, one, two in zip(whole, *halves, strict=True):
    one, two = dict(_flatten(one)), dict(_flatten(two))
    joined = {name: np.concatenate([one[name], two[name]]) for name in one}
    _assert_equal(dict(_flatten(batch)), joined)


def test_only_asked_modalities_are_in_the_batch(dataset):
  _, steps = _run(dataset, modalities=('notes',))
  assert set(steps[0]) == {'notes', 'label', 'weight', 'row'}
  _, steps = _run(dataset, modalities=('static',), batching=staging_fixture.batching(()))
  assert set(steps[0]) == {'static', 'label', 'weight', 'row'}


def test_padding_is_a_batch_of_which_nothing_is_read(copied):
  batching = staging_fixture.batching()
  _, steps = _run(copied, batching=batching)
  shutil.rmtree(copied.directory)
  found = padding(copied.schema, modalities=MODALITIES, batching=batching, rows=3)
  real, padded = dict(_flatten(steps[0])), dict(_flatten(found))
  assert real.keys() == padded.keys()
  for name, array in padded.items():
    assert array.dtype == real[name].dtype and array.ndim == real[name].ndim - 1, name
    if name.endswith('mask') or name in ('weight', 'vitals/observed'):
      assert not array.any(), name
  assert (padded['row'] == -1).all() and len(padded['row']) == 3


@pytest.mark.parametrize('seed', range(3))
def test_random_lengths(tmp_path, seed):
  """Property: events come back complete or as their most recent part, per row."""
  rng = np.random.default_rng(seed)
  raw = tmp_path / 'raw'
  raw.mkdir()
  staged = staging_fixture.write_staging(raw, subjects=12, seed=seed, long=60)
  data = open_dataset(staging_fixture.build_from(raw, staged, tmp_path / 'out'))
  cuts = np.sort(rng.integers(1, 70, 3)).tolist()
  batching = staging_fixture.batching(tuple({'labs': c, 'notes': c} for c in cuts))
  _, steps = _run(data, modalities=('labs',), batching=batching)
  events = pd.read_parquet(raw / 'events_labs.parquet')
  seen = set()
  for batch in steps:
    labs = batch['labs']
    assert labs['item'].shape[-1] in cuts
    for at in np.argwhere(batch['row'] >= 0):
      row = batch['row'][tuple(at)]
      seen.add(int(row))
      mask = labs['mask'][tuple(at)]
      time = labs['time'][tuple(at)]
      of_row = events['time'][events['sample_id'] == data.index['sample_id'][row]]
      kept = np.sort(of_row)[::-1][: mask.size][::-1]
      np.testing.assert_array_equal(time[mask], kept)
      assert not time[~mask].any()
  assert seen == set(range(len(data)))


def _flip(dataset, row, at):
  """Flips one bit of a record, `at` bytes after the start of its payload."""
  path = dataset.directory / dataset.files[dataset.index['file'][row]]
  content = bytearray(path.read_bytes())
  content[dataset.index['offset'][row] + records.HEADER_BYTES + at] ^= 1
  path.write_bytes(content)
  return path.name


@pytest.mark.parametrize('modalities', [('labs',), MODALITIES])
def test_a_corrupt_record_is_named(copied, modalities):
  row = 5
  name = _flip(copied, row, copied.index['head_bytes'][row] // 2)
  message = f'{name}: record of row {row} at byte .* corrupt .* prepare it again'
  with pytest.raises(DataError, match=message):
    _run(copied, modalities=modalities)
  others = np.setdiff1d(np.arange(len(copied)), [row])
  _run(copied, modalities=modalities, rows=others)


def test_without_ecg_no_signal_is_read(copied):
  row = int(np.argmax(copied.lengths('ecg')))
  name = _flip(copied, row, copied.index['bytes'][row] // 2)
  _run(copied, modalities=('static', 'labs', 'notes', 'vitals'))
  with pytest.raises(DataError, match=f'{name}: record of row {row} .* corrupt'):
    _run(copied, modalities=('ecg',), rows=np.array([row]))


def test_signals_can_be_left_unread(copied):
  batching, rows = staging_fixture.batching(max_recordings=8), np.arange(len(copied))
  _, expected = _run(copied, batching=batching)
  row = int(np.argmax(copied.lengths('ecg')))
  _flip(copied, row, copied.index['bytes'][row] // 2)
  _, found = _run(copied, rows=rows, batching=batching, signals=False)
  for one, two in zip(found, expected, strict=True):
    del two['ecg']['signal']
    _assert_equal(one, two)


@pytest.mark.parametrize('modalities', [('labs',), ('ecg',)])
def test_a_shard_that_was_cut_off_is_named(copied, modalities):
  row = len(copied) - 1
  path = copied.directory / copied.files[copied.index['file'][row]]
  # In the head of its last record.
  path.write_bytes(path.read_bytes()[: copied.index['offset'][row] + 40])
  with pytest.raises(DataError, match=f'{path.name}: record of row {row} .* corrupt'):
    _run(copied, modalities=modalities)


def test_a_shard_that_disappears_is_named(copied):
  (copied.directory / copied.files[0]).unlink()
  with pytest.raises(DataError, match=f'{copied.files[0]}: the shard is missing'):
    _run(copied)


def test_a_step_is_compiled_once_per_bucket(dataset):
  traces = 0

  @jax.jit
  def step(batch):
    nonlocal traces
    traces += 1  # Python sees it only when the step is traced.
    return batch['label'].sum()

  plans = []
  for epoch in range(2):
    plan, steps = _run(dataset, shuffle=(0, epoch))
    plans.append(plan.bucket)
    for batch in steps:
      step(batch)
  assert traces == len(np.unique(np.concatenate(plans))) == 2


def test_an_unknown_modality_is_refused(dataset):
  plan, _ = _run(dataset, modalities=('labs',))
  with pytest.raises(DataError, match='no modality imaging'):
    _run(dataset, plan=plan, modalities=('labs', 'imaging'))
