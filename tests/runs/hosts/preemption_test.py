"""A process that is told to stop, or killed, loses nothing that shows in the results."""

from __future__ import annotations

import json
import signal

import jax
import numpy as np
import pytest

from configs import cvd
from data_pipeline.format.dataset import open_dataset
from medm2t_jax.experiment import read
from medm2t_jax.runs import workdir
from medm2t_jax.runs.hosts import preemption
from medm2t_jax.runs.restoring import restore_best
from medm2t_jax.runs.run import Run
from tests.support import training_process

TIMES = ('seconds', 'samples_per_second', 'data_wait_share')
FLAGS = (
  '--config.stages=static',
  '--config.recipe.static.epochs=3',
  '--config.recipe.static.batch_size=8',
  '--config.training.save_every_steps=2',
  '--config.model.trunk=decoder',
)


def without_times(record):
  return {key: value for key, value in record.items() if key not in TIMES}


def results(directory, dataset):
  """All that a run leaves which does not depend on the clock."""
  record = json.loads((directory / 'fold0/static/done.json').read_text())
  lines = (directory / 'fold0/static/metrics.jsonl').read_text().splitlines()
  record['history'] = [without_times(epoch) for epoch in record['history']]
  history = [without_times(json.loads(line)) for line in lines]
  config = read(cvd.get_config('smoke')).changed({'model.trunk': 'decoder'})
  fold = Run(config, open_dataset(dataset), 0, directory)
  variables, lineage = restore_best(fold, 'static')
  return without_times(record), history, jax.device_get(variables), lineage


def test_a_signal_is_never_lost():
  with pytest.raises(preemption.Preempted), preemption.deferred():
    assert not preemption.requested()
    signal.raise_signal(signal.SIGTERM)
    assert preemption.requested()
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
  assert not preemption.requested()
  with preemption.deferred():
    assert not preemption.requested()


def test_stopped_and_killed_runs_end_as_an_uninterrupted_one(static_directory, tmp_path):
  def training(name, **options):
    directory, log = tmp_path / name, tmp_path / f'{name}.log'
    return training_process.Training(static_directory, directory, log, *FLAGS, **options)

  with training('straight') as straight:
    # Batch 1 shows the shapes; an epoch has 5 batches to train on and some to validate.
    with training('stopped', pause=0.3) as stopped:
      stopped.wait_for('batch 4')
      stopped.terminate()
      stopped.finish(preemption.EXIT_CODE)
    assert 'preempted: fold 0, static: stopped by SIGTERM' in stopped.output()
    assert workdir.read_record(tmp_path / 'stopped', 0, 'static') is None
    straight.finish()
  with training('stopped', hang_at=8) as killed:
    killed.wait_for('batch 8')
    assert 'resumed at epoch 1, step ' in killed.output()
    killed.kill()
  # What a process leaves that is killed in the middle of a save.
  checkpoints = workdir.checkpoint_directory(tmp_path / 'stopped', 0, 'static')
  partial = checkpoints / '999.orbax-checkpoint-tmp'
  (partial / 'params').mkdir(parents=True)
  # What the disk may lose of the last one.
  *_, before, latest = sorted(
    int(path.name) for path in checkpoints.iterdir() if path.name.isdecimal()
  )
  for file in (checkpoints / str(latest) / 'params' / 'd').iterdir():
    file.write_bytes(b'')
  with training('stopped') as resumed:
    resumed.finish()
  assert not partial.exists()
  expected, found = (
    results(tmp_path / name, static_directory) for name in ('straight', 'stopped')
  )
  (note,) = found[0].pop('notes')
  assert expected[0].pop('notes') == []
  assert f'{latest}/params' in note and f'continued from step {before}' in note
  assert note in resumed.output()
  jax.tree.map(np.testing.assert_array_equal, found, expected)
