"""Common setup of every command and each of its processes."""

from __future__ import annotations

import logging

from absl import logging as absl_logging


def start() -> None:
  """Sets up a command after its flags are read, before it uses a device.

  Several processes must already be connected (`distributed.initialize`).
  """
  import tensorflow as tf

  tf.config.set_visible_devices([], 'GPU')  # only JAX may use accelerators
  start_without_data_sets()


def start_without_data_sets() -> None:
  """Sets up a command that reads no data set, without importing TensorFlow."""
  from medm2t_jax.runs.hosts import compilation_cache

  log_to_stderr()
  compilation_cache.use()


def log_to_stderr() -> None:
  """Logs our own messages as plain lines, and only warnings of libraries.

  Processes other than the first only log errors.
  """
  from medm2t_jax.runs.hosts import (
    distributed,  # imports JAX, so only after the flags are read
  )

  absl_logging.set_verbosity(absl_logging.WARNING)
  handler = logging.StreamHandler()
  handler.setFormatter(logging.Formatter('%(asctime)s %(message)s', '%H:%M:%S'))
  logger = logging.getLogger('medm2t_jax')
  logger.addHandler(handler)
  logger.setLevel(logging.INFO if distributed.is_first() else logging.ERROR)
  logger.propagate = False
