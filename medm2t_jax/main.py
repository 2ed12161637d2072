"""Trains and evaluates MedM2T.

  python -m medm2t_jax.main --config=configs/cvd.py [--workdir=W] [--mode=train|eval]

The last line on stdout is one JSON object: task, test metrics and paths.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from data_pipeline.schema import DataError

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Experiment, for example configs/cvd.py or configs/cvd.py:small.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where checkpoints and results go; by default runs/<config name>.'
)
_MODE = flags.DEFINE_enum(
    'mode', 'train', ('train', 'eval'),
    'train: train what is not complete yet, then evaluate. eval: restore and evaluate.',
)  # fmt: skip


def main(_: list[str]) -> None:
  # Imported here so that --help and wrong flags answer at once.
  import tensorflow as tf

  from medm2t_jax import evaluate, train, workdir
  from medm2t_jax.default_data import open_or_simulate
  from medm2t_jax.fold import make_folds

  _log_to_stderr()
  tf.config.set_visible_devices([], 'GPU')  # accelerators belong to JAX alone
  config = _CONFIG.value
  directory = Path(_WORKDIR.value or f'runs/{config.name}').resolve()
  try:
    dataset = open_or_simulate(config)
    folds = make_folds(config, dataset, directory)
    workdir.claim(directory, config, dataset.version)
    if _MODE.value == 'train':
      train.train(folds)
    metrics = evaluate.evaluate(folds)
  except (DataError, train.TrainingError) as error:
    sys.exit(f'error: {error}')
  results = directory / 'eval'
  print(
    json.dumps(
      {
        'task': config.task,
        'test': metrics['headline'],
        'report': str(results / 'report.html'),
        'metrics': str(results / 'metrics.json'),
        'predictions': str(results / 'predictions.parquet'),
        'workdir': str(directory),
      }
    )
  )


def _log_to_stderr() -> None:
  """Our own messages, one plain line each; of the libraries only warnings."""
  absl_logging.set_verbosity(absl_logging.WARNING)
  handler = logging.StreamHandler()
  handler.setFormatter(logging.Formatter('%(asctime)s %(message)s', '%H:%M:%S'))
  logger = logging.getLogger('medm2t_jax')
  logger.addHandler(handler)
  logger.setLevel(logging.INFO)
  logger.propagate = False


def _parse_flags(argv: list[str]) -> list[str]:
  """Parses flags; what is wrong with them is said in one line.

  A config file is Python that runs here, and ml_collections reports its failures and
  unknown fields as the exceptions below.
  """
  try:
    rest = flags.FLAGS(argv)
    # A file that cannot be read is reported at the first use of a field: here.
    getattr(_CONFIG.value, 'name', None)
    return rest
  except (flags.Error, ValueError, KeyError, AttributeError, TypeError, OSError) as error:
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # A failure inside a config file comes with its traceback: its last line says why.
    causes = [line.partition('Error: ')[2] for line in lines if 'Error: ' in line]
    sys.exit(f'error: {causes[-1] if causes else " ".join(lines)} (see --help)')


if __name__ == '__main__':
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  flags.mark_flag_as_required('config')
  app.run(main, flags_parser=_parse_flags)
