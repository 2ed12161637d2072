"""The bar measures what it says, the table has every stage."""

from __future__ import annotations

import time

import numpy as np

from medm2t_jax.runs.workdir import StageRecord
from medm2t_jax.training.progress import Progress, TimeLeft, stage_table


def slow_batches(numbers, seconds):
  for number in numbers:
    time.sleep(seconds)
    yield number


def test_samples_and_waiting_are_measured(capsys):
  samples = np.array([16, 16, 16, 5])
  progress = Progress('fold 0, labs 1/3', samples, 1, visible=True)
  seen = []
  for batch in progress.over(slow_batches([1, 2, 3], 0.06), lambda: True):
    seen.append(batch)
    time.sleep(0.02)
    progress.show_loss(0.5)
  measured = progress.measurements()
  assert seen == [1, 2, 3]
  # 3 * 0.06 s of waiting in 3 * 0.08 s; a busy machine only makes both longer.
  assert measured['data_wait_share'] * measured['seconds'] >= 3 * 0.06
  assert measured['data_wait_share'] < 1 - 3 * 0.02 / measured['seconds']
  # A resumed epoch counts only the samples of its own steps.
  np.testing.assert_allclose(measured['samples_per_second'] * measured['seconds'], 37)
  shown = capsys.readouterr().err
  assert '/53 [' in shown and ' samples/s' in shown
  assert 'loss 0.5000' in shown and '% waiting for data' in shown


def test_the_host_alone_waits_while_devices_compute():
  progress = Progress('labs', np.array([4, 4]), 0, visible=False)
  busy = iter([True, False])
  assert list(progress.over(slow_batches([1, 2], 0.05), lambda: next(busy))) == [1, 2]
  measured = progress.measurements()
  waited = measured['data_wait_share'] * measured['seconds']
  assert 0.05 <= waited <= measured['seconds'] - 0.05, 'the first batch alone counts'


def test_an_invisible_bar_prints_nothing(capsys):
  progress = Progress('labs', np.array([4]), 0, visible=False)
  assert list(progress.over([0], lambda: True)) == [0]
  progress.show_loss(1.0)
  assert progress.measurements()['samples_per_second'] > 0
  assert not capsys.readouterr().err


def test_the_time_left_is_that_of_the_stages_that_are_left(monkeypatch):
  now = iter([100.0, 130.0, 160.0])
  monkeypatch.setattr(time, 'perf_counter', lambda: next(now))
  left = TimeLeft(4)
  assert 'known after the first stage' in str(left)
  left.stage_is_over()
  assert str(left) == 'about 0:01:30 left to train', '3 stages of 30 s'
  left.stage_is_over()
  left.stage_is_over()
  assert str(left) == 'about 0:00:20 left to train', '1 stage, 60 s for 3'


def test_the_table_has_every_stage_and_why_one_was_skipped():
  table = stage_table(
    [
      StageRecord(
        0, 'labs', best_epoch=3, epochs=8, validation_loss=0.41234,
        parameters=1_234_567, seconds=3725.4, notes=('Step 8 was damaged.',),
      ),
      StageRecord(1, 'ecg_signal', skipped='no training sample has this modality'),
    ]
  )  # fmt: skip
  header, labs, ecg = table.splitlines()
  assert labs.split() == [
    '0', 'labs', '1,234,567', '8', '3', '0.4123', '1:02:05', 'Step', '8', 'was', 'damaged.'
  ]  # fmt: skip
  assert ecg.split(maxsplit=2) == [
    '1',
    'ecg_signal',
    'skipped: no training sample has this modality',
  ]
  assert header.index('notes') == labs.index('Step') == ecg.index('skipped')
