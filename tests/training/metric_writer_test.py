"""The history of a stage on disk."""

from __future__ import annotations

import json

import pytest
import tensorflow as tf

from data_pipeline.format.schema import DataError
from medm2t_jax.training import metric_writer
from medm2t_jax.training.metric_writer import MetricWriter

HISTORY = [
  {'epoch': 1, 'step': 5, 'validation_loss': 0.5},
  {'epoch': 2, 'step': 10, 'validation_loss': 0.25},
]


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
  monkeypatch.setattr(metric_writer.util, 'find_spec', lambda name: None)
  with pytest.raises(DataError, match=r'\.\[tensorboard\]'):
    metric_writer.require_tensorboard()
