"""Two real processes on this machine: they train, stop, die, and one goes on alone."""

from __future__ import annotations

import contextlib
import json
import socket

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_pipeline.format.schema import DataError
from medm2t_jax.runs.hosts import distributed, preemption
from tests.support import training_process

# Plain gradient descent: Adam would blow up rounding errors where a gradient is zero but
# for them, as before BatchNorm.
FLAGS = (
  '--config.stages=multimodal',
  '--config.recipe.multimodal.starts_from=()',
  '--config.recipe.multimodal.optimizer=sgd',
  '--config.recipe.multimodal.learning_rate=0.05',
  '--config.recipe.multimodal.batch_size=16',
  '--config.recipe.multimodal.epochs=3',
  '--config.training.save_every_steps=2',
  '--config.refit=True',
  '--config.model.ensemble=2',
)


# For what does not depend on the model: it compiles in half the time.
PLAIN = ('--config.model.trunk=decoder', '--config.blend=()')


@contextlib.contextmanager
def two_processes(dataset, directory, *flags, **options):
  """Two processes with two devices each, in one workdir, or each in its own."""
  directories = directory if isinstance(directory, tuple) else (directory, directory)
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  with contextlib.ExitStack() as stack:
    yield [
      stack.enter_context(
        training_process.Training(
          dataset,
          folder,
          folder.parent / f'{folder.name}-process{index}.log',
          *FLAGS,
          *flags,
          f'--coordinator_address=127.0.0.1:{port}',
          '--num_processes=2',
          f'--process_id={index}',
          devices=2,
          **options,
        )
      )
      for index, folder in enumerate(directories)
    ]


def results(directory):
  history = json.loads((directory / 'fold0/multimodal/done.json').read_text())['history']
  losses = [[epoch['train_loss'], epoch['validation_loss']] for epoch in history]
  return losses, pq.read_table(directory / 'eval/predictions.parquet').to_pandas()


def test_processes_change_nothing_and_one_goes_on_where_two_have_died(
  static_directory, tmp_path
):
  with two_processes(static_directory, tmp_path / 'two') as (first, second):
    assert 'test' in first.finish()
    assert second.finish() == {}, 'only the first process reports'
    assert 'epoch 3 of 3' in first.output() and 'epoch' not in second.output()

  mixed = tmp_path / 'mixed'
  with two_processes(static_directory, mixed, pause=1) as processes:
    processes[0].wait_for('batch 3')
    processes[1].terminate()  # the other one learns of it
    for process in processes:
      process.finish(preemption.EXIT_CODE)
    assert 'stopped by SIGTERM; saved at epoch' in processes[0].output()
  with two_processes(static_directory, mixed, pause=1) as processes:
    for process in processes:
      process.wait_for('batch 5')
    processes[0].kill()
    assert 'resumed at epoch' in processes[0].output()
    assert processes[1].ends() not in (0, preemption.EXIT_CODE)
  log = tmp_path / 'one.log'
  with training_process.Training(static_directory, mixed, log, *FLAGS, devices=4) as one:
    one.finish()
    assert 'resumed at epoch' in one.output()

  expected_losses, expected = results(tmp_path / 'two')
  losses, predictions = results(mixed)
  np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
  assert predictions.sample_id.is_unique
  shares = [f'p{index}' for index in range(4)]
  others = predictions.columns.difference(shares)
  assert predictions[others].equals(expected[others])
  np.testing.assert_allclose(predictions[shares], expected[shares], atol=1e-5)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('localhost:1', None, None), 'belong together'),
    ((None, 2, 0), 'belong together'),
    (('localhost:1', 2, 2), '--process_id=2'),
    (('localhost:1', 2, -1), '--process_id=-1'),
  ],
)
def test_contradicting_arguments_are_one_clear_error(arguments, message):
  with pytest.raises(DataError, match=message):
    distributed.initialize(*arguments)


def test_slurm_is_recognised_inside_a_step_of_several_tasks():
  step = {
    'SLURM_JOB_ID': '7',
    'SLURM_STEP_NODELIST': 'n[1-2]',
    'SLURM_NTASKS': '2',
    'SLURM_PROCID': '0',
    'SLURM_LOCALID': '0',
  }
  assert distributed.in_slurm_step(step)
  assert not distributed.in_slurm_step(step | {'SLURM_NTASKS': '1'})
  batch_script = {key: step[key] for key in ('SLURM_JOB_ID', 'SLURM_NTASKS')}
  assert not distributed.in_slurm_step(batch_script)
  assert not distributed.in_slurm_step({})


def test_a_workdir_that_the_hosts_do_not_share_is_refused(static_directory, tmp_path):
  folders = tmp_path / 'first', tmp_path / 'second'
  for folder in folders:
    (folder / 'shared-before').mkdir(parents=True)  # what is there already says nothing
  with two_processes(static_directory, folders, *PLAIN) as processes:
    for process in processes:
      process.finish(1)
      assert 'processes 1 do not see what process 0 writes' in process.output()
  assert not (folders[0] / 'fold0').exists()


def test_when_the_second_process_dies_the_first_one_ends_with_an_error(
  static_directory, tmp_path
):
  with two_processes(static_directory, tmp_path / 'run', *PLAIN, pause=0.5) as processes:
    for process in processes:
      process.wait_for('batch 4')
    processes[1].kill()
    assert processes[0].ends() not in (0, preemption.EXIT_CODE)
