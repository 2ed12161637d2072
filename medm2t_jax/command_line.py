"""The flags of a command: a mistake in them is one line."""

from __future__ import annotations

import sys

from absl import flags


def parse_flags(argv: list[str], config: str | None = 'config') -> list[str]:
  """Parses flags; what is wrong with them is said in one line.

  A config file is Python that runs here, and ml_collections reports its failures and
  unknown fields as the exceptions below.

  Args:
    argv: of the command line.
    config: the flag that takes the config file; None of a command without one.
  """
  try:
    rest = flags.FLAGS(argv)
    if config is not None:
      # A file that cannot be read is reported at the first use of a field: here.
      getattr(flags.FLAGS[config].value, 'name', None)
    return rest
  except (flags.Error, ValueError, KeyError, AttributeError, TypeError, OSError) as error:
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # A failure inside a config file comes with its traceback: its last line says why.
    causes = [line.partition('Error: ')[2] for line in lines if 'Error: ' in line]
    sys.exit(f'error: {causes[-1] if causes else " ".join(lines)} (see --help)')
