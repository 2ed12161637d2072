"""Trains, evaluates and audits MedM2T.

  python -m medm2t_jax.main --config=configs/cvd.py [--workdir=W] [--mode=train|eval|audit]

The last line on stdout is one JSON object: the task, test metrics and paths, or after an
audit the failed checks. Exit codes: 0, success; 1, an error or a failed check of the audit;
75, SIGTERM arrived during training and everything is saved: run the same command again.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from medm2t_jax import command_line
from medm2t_jax.runs.hosts import start_up

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Experiment, for example configs/cvd.py or configs/cvd.py:small.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder for checkpoints and results; by default runs/<config name>.'
)
_MODE = flags.DEFINE_enum(
    'mode', 'train', ('train', 'eval', 'audit'),
    'train: train all incomplete stages, then evaluate; eval: restore and evaluate; '
    'audit: test the data and the checkpoints for leaks.',
)  # fmt: skip
_COORDINATOR = flags.DEFINE_string(
  'coordinator_address', None, 'With several processes: host:port of the first one.'
)
_PROCESSES = flags.DEFINE_integer('num_processes', None, 'Number of processes.')
_PROCESS = flags.DEFINE_integer('process_id', None, 'Index of this process, from 0.')


@command_line.command
def main(_: list[str]) -> None:
  """Trains, evaluates or audits the experiment, and prints a summary."""
  # Imported here so that --help and wrong flags answer at once.
  from medm2t_jax import audit, experiment
  from medm2t_jax.evaluation import evaluate
  from medm2t_jax.experiment.default_data import open_or_simulate
  from medm2t_jax.inference import adapting
  from medm2t_jax.runs import workdir
  from medm2t_jax.runs.hosts import distributed, preemption
  from medm2t_jax.runs.run import is_complete, make_runs
  from medm2t_jax.training import train

  # Before anything touches a device.
  distributed.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
  start_up.start()
  directory = Path(_WORKDIR.value or f'runs/{_CONFIG.value.name}').resolve()
  with preemption.exit_code(), contextlib.ExitStack() as stack:
    beginning = adapting.begin(experiment.read(_CONFIG.value))
    config = beginning.config
    dataset = distributed.first_then_others(
      lambda: open_or_simulate(config, beginning.schema)
    )
    folds = make_runs(config, dataset, directory, beginning.starts)
    held = workdir.held(directory, [fold.fold for fold in folds])
    distributed.from_first(lambda: stack.enter_context(held))
    distributed.from_first(lambda: workdir.claim(directory, config, dataset.version))
    distributed.require_shared(directory)
    if _MODE.value == 'train':
      with preemption.deferred():
        train.train(folds)
    if _MODE.value == 'audit':
      summary = audit.audit(folds)
    # Without the last stage, for example with --config.stages=labs, nothing can predict.
    elif _MODE.value == 'eval' or (
      config.evaluation.sections
      and all(is_complete(fold, evaluate.STAGE) for fold in folds)
    ):
      metrics = evaluate.evaluate(folds, again=_MODE.value == 'eval')
      summary = _evaluated(metrics, directory / 'eval')
    else:
      summary = {'trained': config.stages}
  if distributed.is_first():
    print(json.dumps({'task': _CONFIG.value.task, **summary, 'workdir': str(directory)}))
  if not summary.get('passed', True):
    sys.exit(1)


def _evaluated(metrics: dict[str, Any], results: Path) -> dict[str, Any]:
  return {
    'test': metrics['headline'],
    'report': str(results / 'report.html'),
    'metrics': str(results / 'metrics.json'),
    'predictions': str(results / 'predictions.parquet'),
  }


if __name__ == '__main__':
  command_line.run(main, config='config')
