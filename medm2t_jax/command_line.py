"""What a person sees of the command: one line a message, one line a mistake."""

from __future__ import annotations

import logging
import sys

from absl import flags
from absl import logging as absl_logging


def start() -> None:
  """What every command does once its flags are read, before it touches a device.

  Several processes have found each other before (`distributed.initialize`).
  """
  import tensorflow as tf

  from medm2t_jax import compilation_cache

  log_to_stderr()
  tf.config.set_visible_devices([], 'GPU')  # accelerators belong to JAX alone
  compilation_cache.use()


def log_to_stderr() -> None:
  """Our own messages, one plain line each; of the libraries only warnings.

  Processes other than the first, which do the same, are silent but for errors.
  """
  from medm2t_jax import distributed  # imports JAX: only after the flags are read

  absl_logging.set_verbosity(absl_logging.WARNING)
  handler = logging.StreamHandler()
  handler.setFormatter(logging.Formatter('%(asctime)s %(message)s', '%H:%M:%S'))
  logger = logging.getLogger('medm2t_jax')
  logger.addHandler(handler)
  logger.setLevel(logging.INFO if distributed.is_first() else logging.ERROR)
  logger.propagate = False


def parse_flags(argv: list[str], config: str = 'config') -> list[str]:
  """Parses flags; what is wrong with them is said in one line.

  A config file is Python that runs here, and ml_collections reports its failures and
  unknown fields as the exceptions below.

  Args:
    argv: of the command line.
    config: the flag that takes the config file.
  """
  try:
    rest = flags.FLAGS(argv)
    # A file that cannot be read is reported at the first use of a field: here.
    getattr(flags.FLAGS[config].value, 'name', None)
    return rest
  except (flags.Error, ValueError, KeyError, AttributeError, TypeError, OSError) as error:
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # A failure inside a config file comes with its traceback: its last line says why.
    causes = [line.partition('Error: ')[2] for line in lines if 'Error: ' in line]
    sys.exit(f'error: {causes[-1] if causes else " ".join(lines)} (see --help)')
