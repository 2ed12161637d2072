"""The main command in this process: in one of its own it imports for seconds."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from typing import NamedTuple

import pytest
from absl.testing import flagsaver

from medm2t_jax import command_line, main


class Ended(NamedTuple):
  """How the command has ended.

  Attributes:
    code: 0, or what it exits with: a number, or the message of an error.
    lines: on stdout.
  """

  code: int | str | None
  lines: list[str]


@flagsaver.flagsaver
def run(*arguments: str) -> Ended:
  """Runs `python -m medm2t_jax.main` with these arguments."""
  logger = logging.getLogger('medm2t_jax')
  handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
  code, out = 0, io.StringIO()
  with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
    # Of the loader of config files, in ml_collections.
    warnings.filterwarnings('ignore', 'the load_module')
    # A config flag looks for the values of its fields there.
    patch.setattr(sys, 'argv', ['medm2t_jax.main', *arguments])
    try:
      with contextlib.redirect_stdout(out):
        command_line.parse_flags(sys.argv)
        main.main([])
    except SystemExit as ended:
      code = ended.code
    finally:
      logger.handlers[:], logger.propagate = handlers, propagate
      logger.setLevel(level)
  return Ended(code, out.getvalue().splitlines())
