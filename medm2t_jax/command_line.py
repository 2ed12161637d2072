"""What all commands share: any error, in the flags or later, is reported in one line."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags

from data_pipeline.format.items import ShownError
from data_pipeline.format.options import require_local_paths

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
  """Parses flags; exits with a one-line message if they are wrong.

  A config file is Python that runs here, and ml_collections reports its failures and
  unknown fields as the exceptions caught below.

  If the working folder has no file `configs/NAME.py`, the experiment of that name in the
  package is used: commands run from any folder.

  Args:
    argv: the command line.
    config: the flag that takes the config file; None if the command has none.

  Returns:
    The arguments that are not flags.
  """
  try:
    rest = flags.FLAGS(argv if config is None else _with_shipped(argv, config))
    if config is not None:
      # ml_collections reports an unreadable file only when a field is first used: here.
      getattr(flags.FLAGS[config].value, 'name', None)
    compiled = 'JAX_COMPILATION_CACHE_DIR'
    require_local_paths(
      {f'--{name}': value for name, value in _ours().items()}
      | {f'${compiled}': os.environ.get(compiled)}
    )
    return rest
  except ShownError as error:
    sys.exit(f'error: {error}')
  except (flags.Error, ValueError, KeyError, AttributeError, TypeError, OSError) as error:
    while error.args and isinstance(error.args[0], Exception):
      error = error.args[0]
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if _NAME_ALONE.fullmatch(lines[0]):
      # ml_collections names the unknown option, and sometimes the nearest known one.
      lines[0] = f'--{config}: no option {lines[0]}.'
    # A failure inside a config file includes its traceback, whose last line is the cause.
    causes = [line.partition('Error: ')[2] for line in lines if 'Error: ' in line]
    sys.exit(f'error: {causes[-1] if causes else " ".join(lines)} (see --help)')


def _ours() -> dict[str, Any]:
  """The flags of our commands and their values."""
  return {
    flag.name: flag.value
    for module, found in flags.FLAGS.flags_by_module_dict().items()
    if module == sys.argv[0] or module.startswith('medm2t_jax.')
    for flag in found
  }


def _with_shipped(argv: list[str], config: str) -> list[str]:
  """The command line, with paths of shipped experiments made absolute."""
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
  """The installed file for `configs/NAME.py:VARIANT`; any other value unchanged."""
  path, colon, variant = value.partition(':')
  package = importlib.util.find_spec('configs')
  if Path(path).parent != Path('configs') or Path(path).exists() or package is None:
    return value
  for folder in package.submodule_search_locations or ():
    shipped = Path(folder) / Path(path).name
    if shipped.is_file():
      return f'{shipped}{colon}{variant}'
  return value
