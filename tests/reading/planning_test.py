"""Planning: every row once, the same shapes on every host, no ECG over capacity."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from data_pipeline.format.schema import DataError
from data_pipeline.reading import planning
from tests.support import staging_fixture

MODALITIES = ('static', 'labs', 'notes', 'vitals', 'ecg')


def _dataset(seed: int, n: int = 300):
  rng = np.random.default_rng(seed)
  lengths = {
    'labs': rng.integers(0, 40, n),
    'notes': rng.integers(0, 30, n),
    'vitals': rng.integers(0, 3, n),
    'ecg': rng.poisson(1, n),
  }
  return SimpleNamespace(schema=staging_fixture.SCHEMA, lengths=lengths.__getitem__)


def _plan(dataset, rows, **options):
  options = {
    'modalities': MODALITIES,
    'batching': staging_fixture.batching(),
    'batch_rows': 4,
    'devices': 4,
    'shuffle': (0, 0),
    **options,
  }
  return planning.plan_epoch(dataset, rows, **options)


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('shuffle', [None, (3, 1)])
def test_every_row_appears_once_in_a_bucket_that_holds_it(seed, shuffle):
  dataset = _dataset(seed)
  rows = np.flatnonzero(np.random.default_rng(seed).random(300) < 0.7)
  batching = staging_fixture.batching()
  plan = _plan(dataset, rows, shuffle=shuffle, batching=batching)
  np.testing.assert_array_equal(np.sort(plan.rows[plan.rows >= 0]), rows)
  promoted = 0
  for step, bucket in zip(plan.rows, plan.bucket, strict=True):
    first = np.array([_first_fit(dataset, row, batching) for row in step[step >= 0]])
    assert (first <= bucket).all()
    promoted += (first < bucket).sum()
  # Less than a step of each bucket but the last may be in a longer one.
  assert promoted < 4 * 4


def _first_fit(dataset, row, batching):
  buckets = batching.buckets
  fits = [
    all(dataset.lengths(name)[row] <= length for name, length in bucket.items())
    for bucket in buckets
  ]
  return fits.index(True) if any(fits) else len(buckets) - 1


@pytest.mark.parametrize(
  ('lengths', 'steps'),
  [
    # One row is left over in the first bucket: it goes to the first that has room.
    ([8] * 5 + [16] * 3 + [32] * 2, {0: 1, 1: 1, 2: 1}),
    ([8] * 5 + [16] * 4 + [32] * 2, {0: 1, 1: 1, 2: 1}),
    # Nowhere is room for two rows: nothing moves.
    ([8] * 6 + [16] * 3 + [32] * 3, {0: 2, 1: 1, 2: 1}),
    # A bucket without rows of its own stays without.
    ([8] * 5 + [32] * 4, {0: 2, 2: 1}),
    # The last steps of both go to the last.
    ([8] * 1 + [16] * 2 + [32] * 1, {2: 1}),
  ],
)
def test_an_incomplete_step_joins_one_that_has_room(lengths, steps):
  dataset = SimpleNamespace(
    schema=staging_fixture.SCHEMA, lengths={'labs': np.array(lengths)}.get
  )
  rows = np.arange(len(lengths))
  batching = staging_fixture.batching(tuple({'labs': length} for length in (8, 16, 32)))
  for shuffle in (None, (0, 0)):
    plan = _plan(
      dataset, rows, modalities=('labs',), batching=batching, batch_rows=2, devices=2,
      shuffle=shuffle,
    )  # fmt: skip
    assert dict(zip(*np.unique(plan.bucket, return_counts=True), strict=True)) == steps
    np.testing.assert_array_equal(np.sort(plan.rows[plan.rows >= 0]), rows)


@pytest.mark.parametrize('recordings_per_row', [0.25, 0.5, 1.0, 4.0])
def test_recordings_never_exceed_the_capacity(recordings_per_row):
  dataset = _dataset(0)
  batching = staging_fixture.batching(recordings_per_row=recordings_per_row)
  plan = _plan(dataset, np.arange(300), batching=batching, batch_rows=8)
  assert plan.capacity == max(3, np.ceil(8 * recordings_per_row))
  kept = np.minimum(dataset.lengths('ecg'), 3)
  packed = np.where(plan.rows >= 0, kept[plan.rows], 0).sum(axis=2)
  assert packed.max() <= plan.capacity
  assert (np.sort(plan.rows[plan.rows >= 0]) == np.arange(300)).all()


@pytest.mark.parametrize(
  ('recordings', 'capacity'),
  # A mean of .6, 2 and 0 a row: .75, 2.5 and nothing beside room for one sample.
  [([0, 0, 1, 1, 1], 6), ([2, 2, 2, 2, 2], 20), ([0, 0, 0, 0, 0], 3)],
)
def test_without_a_given_capacity_it_follows_the_data_set(recordings, capacity):
  dataset = SimpleNamespace(
    schema=staging_fixture.SCHEMA, lengths={'ecg': np.array(recordings)}.get
  )
  batching = staging_fixture.batching(recordings_per_row=0.0)
  plan = _plan(dataset, np.arange(5), modalities=('ecg',), batching=batching, batch_rows=8)
  assert plan.capacity == capacity
  few = _plan(dataset, np.arange(2), modalities=('ecg',), batching=batching, batch_rows=8)
  assert few.capacity == capacity  # whatever the rows: all splits share their shapes
  recorded = _plan(
    dataset,
    np.arange(5),
    modalities=('ecg',),
    batching=batching,
    batch_rows=8,
    require='ecg',
  )
  mean = np.mean([x for x in recordings if x] or [0])
  assert recorded.capacity == max(3, 8 * np.ceil(4 * mean * 7 / 6) / 4)


def test_a_batch_closes_early_only_when_the_next_row_does_not_fit():
  dataset = SimpleNamespace(
    schema=staging_fixture.SCHEMA, lengths={'ecg': np.array([2, 2, 0, 1, 3, 9])}.get
  )
  plan = _plan(
    dataset, np.arange(6), modalities=('ecg',), devices=1, shuffle=None, batch_rows=4
  )
  assert plan.capacity == 4
  np.testing.assert_array_equal(
    plan.rows[:, 0], [[0, 1, 2, -1], [3, 4, -1, -1], [5, -1, -1, -1]]
  )
  assert plan.overflowing == 1


def test_shuffle_depends_on_seed_and_epoch_alone():
  dataset = _dataset(0)
  rows = np.arange(300)
  first = _plan(dataset, rows, shuffle=(7, 0))
  again = _plan(dataset, rows[::-1], shuffle=(7, 0))
  np.testing.assert_array_equal(first.rows, again.rows)
  for other in ((7, 1), (8, 0)):
    assert not np.array_equal(first.rows, _plan(dataset, rows, shuffle=other).rows)


def test_without_shuffle_order_is_by_bucket_then_index():
  plan = _plan(_dataset(0), np.arange(300), shuffle=None, modalities=('labs', 'notes'))
  assert (np.diff(plan.bucket) >= 0).all()
  for bucket in (0, 1):
    rows = plan.rows[plan.bucket == bucket].reshape(-1)
    assert (np.diff(rows[rows >= 0]) > 0).all()


@pytest.mark.parametrize('hosts', [1, 2, 4])
def test_hosts_share_all_rows_in_equal_steps(hosts):
  plan = _plan(_dataset(0), np.arange(300))
  parts = [plan.local_rows(host, hosts) for host in range(hosts)]
  assert {part.shape for part in parts} == {(len(plan), 4 // hosts, 4)}
  np.testing.assert_array_equal(np.concatenate(parts, axis=1), plan.rows)
  seen = np.concatenate([part[part >= 0] for part in parts])
  assert sorted(seen) == list(range(300))


def test_devices_must_divide_among_hosts():
  plan = _plan(_dataset(0), np.arange(300))
  with pytest.raises(ValueError, match='4 devices'):
    plan.local_rows(0, 3)


def test_only_asked_modalities_choose_the_bucket():
  dataset = _dataset(0)
  plan = _plan(dataset, np.arange(300), modalities=('static', 'ecg'))
  assert (plan.bucket == 0).all()
  assert plan.truncated == {}


def test_truncated_samples_are_counted():
  dataset = _dataset(0)
  plan = _plan(dataset, np.arange(300))
  assert plan.truncated == {
    'labs': (dataset.lengths('labs') > 20).sum(),
    'notes': (dataset.lengths('notes') > 16).sum(),
  }
  assert plan.overflowing == (dataset.lengths('ecg') > 3).sum()


@pytest.mark.parametrize('require', ['ecg', 'labs', 'vitals'])
def test_require_keeps_samples_with_that_modality(require):
  dataset = _dataset(0)
  plan = _plan(dataset, np.arange(300), require=require)
  np.testing.assert_array_equal(
    np.sort(plan.rows[plan.rows >= 0]), np.flatnonzero(dataset.lengths(require))
  )


def test_no_rows_make_no_steps():
  plan = _plan(_dataset(0), np.arange(0))
  assert len(plan) == 0 and plan.rows.shape == (0, 4, 4)


@pytest.mark.parametrize(
  ('buckets', 'message'),
  [
    (({'labs': 8}, {'labs': 16, 'notes': 8}), 'padded length of notes'),
    (({'labs': 16, 'notes': 8}, {'labs': 8, 'notes': 8}), 'must ascend'),
  ],
)
def test_unsuitable_buckets_are_refused(buckets, message):
  with pytest.raises(DataError, match=message):
    _plan(_dataset(0), np.arange(300), batching=staging_fixture.batching(buckets))


@pytest.mark.parametrize('named', [(), ({'labs': 8}, {'labs': 1000})])
def test_a_modality_without_a_padded_length_has_that_of_nearly_all_samples(named):
  dataset = _dataset(0)
  lengths = dataset.lengths('notes')
  for bucket in planning.buckets_of(dataset, staging_fixture.batching(named)):
    assert bucket['notes'] % 8 == 0
    assert np.mean(lengths <= bucket['notes']) >= 0.99 > np.mean(lengths < 1)
    assert bucket['notes'] < lengths.max() + 8
  plan = _plan(dataset, np.arange(300), batching=staging_fixture.batching(named))
  assert (np.sort(plan.rows[plan.rows >= 0]) == np.arange(300)).all()
