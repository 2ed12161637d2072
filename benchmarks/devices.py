"""Compares the losses of one training on 1, 2, 4 and 8 simulated CPU devices.

  python -m benchmarks.devices [--steps=20] [--patients=150]

The small multimodal model of the mortality task, batches of 32 samples, no dropout. All
simulated devices share the cores of this machine, so the times show the cost of the
partition, not the gain from more devices. The last line on stdout is one JSON object:
per number of devices the median step time, and the largest relative difference of a
loss from that of one device.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from medm2t_jax.runs import variables as initial
from medm2t_jax.runs.hosts import devices
from medm2t_jax.training import steps

_DEVICES = (1, 2, 4, 8)
_STAGE = 'multimodal'
_LEARNING_RATE = 5e-5  # the paper's


def main() -> None:
  """Trains on every number of devices; prints step times and loss differences as JSON."""
  parser = argparse.ArgumentParser(description='Losses by number of devices.')
  parser.add_argument('--steps', type=int, default=20)
  parser.add_argument(
    '--patients', type=int, default=150, help='number of simulated patients'
  )
  parser.add_argument('--devices', type=int, help='only train on this number of devices')
  options = parser.parse_args()
  if options.devices:
    print(json.dumps(_train(options)))
    return
  runs = {devices: _run(devices, options) for devices in _DEVICES}
  one = runs[1]['losses']
  result = {
    str(devices): {
      'ms_per_step': run['ms_per_step'],
      'largest_loss_difference': max(
        abs(loss - expected) / expected
        for loss, expected in zip(run['losses'], one, strict=True)
      ),
    }
    for devices, run in runs.items()
  }
  print(json.dumps({'steps': options.steps, 'devices': result}))


def _run(devices: int, options: argparse.Namespace) -> dict[str, Any]:
  """Runs in a separate process, because the number of devices is fixed when JAX starts."""
  arguments = [f'--{name}={value}' for name, value in vars(options).items() if value]
  environment = os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
    'TF_CPP_MIN_LOG_LEVEL': '2',
  }
  done = subprocess.run(
    [sys.executable, '-m', 'benchmarks.devices', *arguments, f'--devices={devices}'],
    env=environment,
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  run = json.loads(done.stdout.splitlines()[-1])
  print(f'{devices} devices: {run["ms_per_step"]} ms per step', file=sys.stderr)
  return run


def _train(options: argparse.Namespace) -> dict[str, Any]:
  import jax
  import optax

  from benchmarks.model_case import without_dropout
  from configs import mortality
  from medm2t_jax import experiment
  from medm2t_jax.experiment.default_data import open_or_simulate
  from medm2t_jax.models.medm2t import MedM2T
  from medm2t_jax.runs.run import Run
  from medm2t_jax.training import losses
  from medm2t_jax.training.optimizer import promoting
  from medm2t_jax.training.starting import initial_state

  assert jax.device_count() == options.devices
  config = experiment.read(mortality.get_config('small,end_to_end'))
  config = config.changed(
    {
      'data.simulated_patients': options.patients,
      # Capacity for all recordings: a full device would close its batch early, so that
      # batches would depend on the number of devices.
      'data.max_recordings': 2,
      'data.recordings_per_row': 2.0,
    }
  )
  fold = Run(config, open_or_simulate(config), 0, Path('unused'))
  fold.model_config = without_dropout(fold.model_config)
  fold.model = MedM2T(fold.model_config, axis_name=devices.DEVICE_AXIS)
  recipe = config.recipe[_STAGE]
  # With the usual epsilon of 1e-8, Adam turns rounding errors of zero gradients into full
  # steps, and these errors depend on the order of sums.
  optimizer = promoting(optax.adam(_LEARNING_RATE, eps=1e-5))
  state, _ = initial_state(fold, _STAGE, optimizer)
  loss = losses.make_loss(recipe, fold.dataset.schema.target)
  step = steps.train_step(fold.model, _STAGE, optimizer, loss)
  modalities = fold.modalities_of(_STAGE)
  found, times = [], []
  epoch = 0
  while len(found) < options.steps:
    plan = fold.plan('train', modalities, recipe.batch_size, shuffle=(0, epoch))
    for batch in fold.reader.read(plan, modalities):
      start = time.perf_counter()
      state, total = step(state, batch, initial.key(fold, _STAGE))
      found.append(float(total.total) / float(total.weight))
      times.append(time.perf_counter() - start)
    epoch += 1
  # The first step compiles.
  milliseconds = round(1000 * statistics.median(times[1:]), 1)
  return {'losses': found[: options.steps], 'ms_per_step': milliseconds}


if __name__ == '__main__':
  main()
