"""Runs that train at the same time, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

import jax
import numpy as np
import pytest

from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.schema import DataError
from medm2t_jax.experiment import read
from medm2t_jax.runs.hosts import preemption
from medm2t_jax.runs.restoring import restore_best
from medm2t_jax.runs.run import make_runs
from medm2t_jax.training import side_by_side, train
from tests.support import static_data

SECONDS = 120  # nobody waits longer


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return static_data.build(tmp_path_factory.mktemp('data'))


def make(data, home, **changes):
  config = static_data.config(data, learning_rate=0.02)
  config.update(folds='0,1', **changes)
  return make_runs(read(config), open_dataset(data), home)


def test_runs_end_as_one_after_the_other(data, tmp_path):
  found, expected = [], []
  for processes, restored in ((1, expected), (2, found)):
    home = tmp_path / str(processes)
    folds = make(data, home, refit=True, training={'processes': processes})
    train.train(folds)
    runs = [run for fold in folds for run in fold.runs]
    restored += [restore_best(run, 'static')[0] for run in runs]
  assert len(found) == 4
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def wait_until(holds):
  end = time.monotonic() + SECONDS
  while not holds():
    assert time.monotonic() < end
    time.sleep(0.05)


def says(fold, what):
  return fold.workdir / f'fold{fold.fold}-{what}'


def stops_when_asked(fold):
  says(fold, 'began').touch()
  wait_until(preemption.requested)
  says(fold, 'saved').touch()
  raise preemption.Preempted(fold.name)


def fails_in_fold_1(fold):
  if fold.fold == 0:
    stops_when_asked(fold)
  wait_until((fold.workdir / 'fold0-began').exists)
  raise DataError('records.tfrecord: damaged')


def is_killed(fold):
  os.kill(os.getpid(), signal.SIGKILL)


def test_a_signal_stops_all_and_all_save(data, tmp_path):
  folds = make(data, tmp_path)

  def send():
    wait_until(lambda: all(says(fold, 'began').exists() for fold in folds))
    os.kill(os.getpid(), signal.SIGTERM)

  sender = threading.Thread(target=send)
  sender.start()
  with pytest.raises(preemption.Preempted, match='have saved'), preemption.deferred():
    side_by_side.run(folds, stops_when_asked, 2)
  sender.join()
  assert all(says(fold, 'saved').exists() for fold in folds)
  assert not multiprocessing.active_children()


def test_what_one_raises_stops_the_others(data, tmp_path):
  folds = make(data, tmp_path)
  with pytest.raises(DataError, match=r'records\.tfrecord: damaged'):
    side_by_side.run(folds, fails_in_fold_1, 2)
  assert says(folds[0], 'saved').exists()
  assert not multiprocessing.active_children()


def test_a_process_that_is_killed_is_told(data, tmp_path):
  fold = make(data, tmp_path)[1]
  with pytest.raises(
    DataError, match=r'fold 1: .* exit code -9.*config\.training\.processes'
  ):
    side_by_side.run([fold], is_killed, 2)
