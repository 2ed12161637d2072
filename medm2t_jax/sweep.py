"""Searches config values for the best validation metric.

  python -m medm2t_jax.sweep --sweep=configs/sweeps/mortality.py [--directory=D]

Needs the extra `sweeps`. An interrupted sweep continues when the same command is run again.
The last line on stdout is one JSON object: the best trial, and its configuration for
configs/replay.py. Exit codes are those of `medm2t_jax.main`.
"""

from __future__ import annotations

import json
import sys
from importlib import util
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from medm2t_jax import command_line
from medm2t_jax.runs.hosts import start_up

_SWEEP = config_flags.DEFINE_config_file(
  'sweep', None, 'Sweep, for example configs/sweeps/mortality.py:small.'
)
_DIRECTORY = flags.DEFINE_string(
  'directory', None, 'Folder for the trials; by default sweeps/<sweep name>.'
)


@command_line.command
def main(_: list[str]) -> None:
  """Runs or continues the sweep, and prints the best trial."""
  if util.find_spec('optuna') is None:
    sys.exit(
      "error: sweeps need the package optuna: pip install -c constraints.txt -e '.[sweeps]'"
    )
  # Imported here so that --help and wrong flags answer at once.
  from medm2t_jax import experiment
  from medm2t_jax.runs.hosts import preemption
  from medm2t_jax.studies import sweep_study

  start_up.start()
  sweep = _SWEEP.value
  directory = Path(_DIRECTORY.value or f'sweeps/{sweep.name}').resolve()
  with preemption.exit_code(), preemption.deferred():
    best = sweep_study.run(experiment.read_sweep(sweep), directory)
  print(json.dumps({'sweep': sweep.name, **best}))


if __name__ == '__main__':
  command_line.run(main, config='sweep')
