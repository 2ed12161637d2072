"""The bar measures what it says, the table has every stage, the history is on disk."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import tensorflow as tf

from data_pipeline.format.schema import DataError
from medm2t_jax.runs.workdir import StageRecord
from medm2t_jax.training import progress
from medm2t_jax.training.progress import MetricWriter, Progress, TimeLeft, stage_table

HISTORY = [
  {'epoch': 1, 'step': 5, 'validation_loss': 0.5},
  {'epoch': 2, 'step': 10, 'validation_loss': 0.25},
]


def slow_batches(numbers, seconds):
  for number in numbers:
    time.sleep(seconds)
    yield number


def test_samples_and_waiting_are_measured(capsys):
  samples = np.array([16, 16, 16, 5])
  bar = Progress('fold 0, labs 1/3', samples, 1, visible=True)
  seen = []
  for batch in bar.over(slow_batches([1, 2, 3], 0.06), lambda: True):
    seen.append(batch)
    time.sleep(0.02)
    bar.show_loss(0.5)
  measured = bar.measurements()
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
  bar = Progress('labs', np.array([4, 4]), 0, visible=False)
  busy = iter([True, False])
  assert list(bar.over(slow_batches([1, 2], 0.05), lambda: next(busy))) == [1, 2]
  measured = bar.measurements()
  waited = measured['data_wait_share'] * measured['seconds']
  assert 0.05 <= waited <= measured['seconds'] - 0.05, 'the first batch alone counts'


def test_an_invisible_bar_prints_nothing(capsys):
  bar = Progress('labs', np.array([4]), 0, visible=False)
  assert list(bar.over([0], lambda: True)) == [0]
  bar.show_loss(1.0)
  assert bar.measurements()['samples_per_second'] > 0
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


def test_json_lines_hold_every_epoch_once(tmp_path):
  writer = MetricWriter(tmp_path / 'fold0' / 'labs', tensorboard=False)
  for epochs in (1, 2, 2):  # the second epoch is repeated after a resume
    writer.write(HISTORY[:epochs])
  files = list((tmp_path / 'fold0' / 'labs').iterdir())
  assert [path.name for path in files] == ['metrics.jsonl']
  assert [json.loads(line) for line in files[0].read_text().splitlines()] == HISTORY


def test_tensorboard_has_the_same_numbers(tmp_path):
  pytest.importorskip('tensorboard', reason='the extra `tensorboard` is not installed')
  writer = MetricWriter(tmp_path, tensorboard=True)
  for epochs in (1, 2):
    writer.write(HISTORY[:epochs])
  (path,) = tmp_path.glob('events.out.tfevents.*')
  found = [
    (event.step, value.tag, float(tf.make_ndarray(value.tensor)))
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    for event in [tf.compat.v1.Event.FromString(record)]
    for value in event.summary.value
  ]
  assert found == [
    (record['epoch'], name, record[name])
    for record in HISTORY
    for name in ('step', 'validation_loss')
  ]


def test_tensorboard_that_is_not_installed_is_a_clear_error(monkeypatch):
  monkeypatch.setattr(progress.util, 'find_spec', lambda name: None)
  with pytest.raises(DataError, match=r'\.\[tensorboard\]'):
    progress.require_tensorboard()
