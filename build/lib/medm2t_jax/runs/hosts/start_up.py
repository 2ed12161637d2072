"""What every command and every process of one does first."""

from __future__ import annotations

import logging

from absl import logging as absl_logging


def start() -> None:
  """What every command does once its flags are read, before it touches a device.

  Several processes have found each other before (`distributed.initialize`).
  """
  import tensorflow as tf

  tf.config.set_visible_devices([], 'GPU')  # accelerators belong to JAX alone
  start_without_data_sets()


def start_without_data_sets() -> None:
  """The same of a command that reads no data set: TensorFlow is not imported."""
  from medm2t_jax.runs.hosts import compilation_cache

  log_to_stderr()
  compilation_cache.use()


def log_to_stderr() -> None:
  """Our own messages, one plain line each; of the libraries only warnings.

  Processes other than the first, which do the same, are silent but for errors.
  """
  from medm2t_jax.runs.hosts import (
    distributed,  # imports JAX: only after the flags are read
  )

  absl_logging.set_verbosity(absl_logging.WARNING)
  handler = logging.StreamHandler()
  handler.setFormatter(logging.Formatter('%(asctime)s %(message)s', '%H:%M:%S'))
  logger = logging.getLogger('medm2t_jax')
  logger.addHandler(handler)
  logger.setLevel(logging.INFO if distributed.is_first() else logging.ERROR)
  logger.propagate = False
