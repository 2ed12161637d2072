"""What all commands share: a mistake, in the flags or later, is one line."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags

from data_pipeline.format.items import ShownError

_NAME_ALONE = re.compile(r"'\w+'")


Main = Callable[[list[str]], None]


def command(main: Main) -> Main:
  """The `main` of a command, which a `ShownError` ends with one line and code 1."""

  @functools.wraps(main)
  def shown(argv: list[str]) -> None:
    try:
      main(argv)
    except ShownError as error:
      sys.exit(f'error: {error}')

  return shown


def run(main: Main, config: str | None = None) -> None:
  """Runs a command with the arguments of this process.

  Args:
    main: of the command.
    config: the flag that takes the config file, required; None of a command without one.
  """
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  if config is not None:
    flags.mark_flag_as_required(config)
  app.run(main, flags_parser=functools.partial(parse_flags, config=config))


def parse_flags(argv: list[str], config: str | None = 'config') -> list[str]:
  """Parses flags; what is wrong with them is said in one line.

  A config file is Python that runs here, and ml_collections reports its failures and
  unknown fields as the exceptions below.

  `configs/NAME.py` is an experiment of the package where the working folder has no such
  file: commands run from any folder.

  Args:
    argv: of the command line.
    config: the flag that takes the config file; None of a command without one.
  """
  try:
    rest = flags.FLAGS(argv if config is None else _with_shipped(argv, config))
    if config is not None:
      # A file that cannot be read is reported at the first use of a field: here.
      getattr(flags.FLAGS[config].value, 'name', None)
    return rest
  except (flags.Error, ValueError, KeyError, AttributeError, TypeError, OSError) as error:
    while error.args and isinstance(error.args[0], Exception):
      error = error.args[0]
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if _NAME_ALONE.fullmatch(lines[0]):
      # Of ml_collections: an option, and perhaps the nearest one.
      lines[0] = f'--{config}: no option {lines[0]}.'
    # A failure inside a config file comes with its traceback: its last line says why.
    causes = [line.partition('Error: ')[2] for line in lines if 'Error: ' in line]
    sys.exit(f'error: {causes[-1] if causes else " ".join(lines)} (see --help)')


def _with_shipped(argv: list[str], config: str) -> list[str]:
  """The command line with the path of an experiment that comes with the package."""
  result, value_follows = [], False
  for argument in argv:
    flag, equals, value = argument.partition('=')
    is_flag = flag.lstrip('-') == config and flag.startswith('-')
    if is_flag and equals:
      argument = f'{flag}={_shipped(value)}'
    elif value_follows:
      argument = _shipped(argument)
    value_follows = is_flag and not equals
    result.append(argument)
  return result


def _shipped(value: str) -> str:
  """`configs/NAME.py:VARIANT` where it is installed; any other value as it is."""
  path, colon, variant = value.partition(':')
  package = importlib.util.find_spec('configs')
  if Path(path).parent != Path('configs') or Path(path).exists() or package is None:
    return value
  for folder in package.submodule_search_locations or ():
    shipped = Path(folder) / Path(path).name
    if shipped.is_file():
      return f'{shipped}{colon}{variant}'
  return value
