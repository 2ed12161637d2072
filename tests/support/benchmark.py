"""Benchmarks as people run them: in a process of their own, JSON objects on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.xla_flags import xla_flags

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300


def report(*arguments: str) -> dict[str, Any]:
  """The last line of `python ARGUMENTS`, as `lines`."""
  return json.loads(lines(*arguments)[-1])


def lines(*arguments: str) -> list[str]:
  """Stdout of `python ARGUMENTS` in the root, on one simulated device."""
  result = subprocess.run(
    [sys.executable, *arguments],
    cwd=ROOT,
    env=os.environ | {'XLA_FLAGS': xla_flags(1)},
    capture_output=True,
    text=True,
    timeout=SECONDS,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  return result.stdout.splitlines()
