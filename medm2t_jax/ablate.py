"""Trains and compares variants of an experiment: what is each part of the model worth?

  python -m medm2t_jax.ablate --config=configs/mortality.py [--workdir=W]
      [--ablations=without_ecg,windows_1] [--seeds=0,1,2]

An interrupted study continues when the same command is run again. The last line on stdout
is one JSON object: the number of ablations and the path of the table. Exit codes are those
of `medm2t_jax.main`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from medm2t_jax import command_line
from medm2t_jax.runs.hosts import start_up

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Experiment, for example configs/cvd.py or configs/cvd.py:small.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Workdir of the full model; by default runs/<config name>.'
)
_ABLATIONS = flags.DEFINE_list(
  'ablations', [], 'Names of the ablations; by default all that apply to the data set.'
)
_SEEDS = flags.DEFINE_list(
  'seeds', [], "Training seeds to average over; by default the config's seed."
)


@command_line.command
def main(_: list[str]) -> None:
  """Trains and compares all ablations, and prints where the table is."""
  if not all(seed.isdecimal() for seed in _SEEDS.value):
    sys.exit(
      f'error: --seeds={",".join(_SEEDS.value)}: give whole numbers, for example 0,1,2'
    )
  # Imported here so that --help and wrong flags answer at once.
  from medm2t_jax import experiment
  from medm2t_jax.runs.hosts import preemption
  from medm2t_jax.studies import ablation_study

  start_up.start()
  config = _CONFIG.value
  directory = Path(_WORKDIR.value or f'runs/{config.name}').resolve()
  seeds = [int(seed) for seed in _SEEDS.value]
  with preemption.exit_code(), preemption.deferred():
    summary = ablation_study.run(
      experiment.read(config), directory, _ABLATIONS.value, seeds
    )
  result = {
    'task': config.task,
    'ablations': len(summary['ablations']),
    'left_out': len(summary['left_out']),
    'report': str(directory / 'ablations/ablations.html'),
    'workdir': str(directory),
  }
  print(json.dumps(result))


if __name__ == '__main__':
  command_line.run(main, config='config')
