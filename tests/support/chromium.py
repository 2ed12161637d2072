"""A real browser for pages, headless."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')


def chromium(folder: Path, *arguments: object) -> str:
  """Runs it headless, without a network, with a profile of its own: its output."""
  command = [
    *(str(CHROMIUM), '--headless', '--no-sandbox', '--disable-gpu'),
    *('--disable-dev-shm-usage', '--proxy-server=127.0.0.1:9'),
    f'--user-data-dir={folder / "profile"}',
    *('--virtual-time-budget=10000', *map(str, arguments)),
  ]  # fmt: skip
  done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
  assert done.returncode == 0, done.stderr
  return done.stdout
