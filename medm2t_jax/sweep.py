"""Searches config values for the best validation metric.

  python -m medm2t_jax.sweep --sweep=configs/sweeps/mortality.py [--directory=D]

Needs the extra `sweeps`. An interrupted sweep continues when the same command is run again.
The last line on stdout is one JSON object: the best trial, and its configuration for
configs/replay.py. Exit codes are those of `medm2t_jax.main`.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from importlib import util
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from data_pipeline.format.schema import DataError
from medm2t_jax import command_line
from medm2t_jax.runs.hosts import start_up

_SWEEP = config_flags.DEFINE_config_file(
  'sweep', None, 'Sweep, for example configs/sweeps/mortality.py:small.'
)
_DIRECTORY = flags.DEFINE_string(
  'directory', None, 'Folder for the trials; by default sweeps/<sweep name>.'
)


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
  try:
    with preemption.deferred():
      best = sweep_study.run(experiment.read_sweep(sweep), directory)
  except DataError as error:
    sys.exit(f'error: {error}')
  except preemption.Preempted as stop:
    print(f'preempted: {stop}', file=sys.stderr)
    sys.exit(preemption.EXIT_CODE)
  print(json.dumps({'sweep': sweep.name, **best}))


if __name__ == '__main__':
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  flags.mark_flag_as_required('sweep')
  app.run(main, flags_parser=functools.partial(command_line.parse_flags, config='sweep'))
