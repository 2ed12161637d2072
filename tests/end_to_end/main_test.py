"""The command line: what a person sees when something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
  return subprocess.run(
    [sys.executable, '-m', 'medm2t_jax.main', *arguments],
    cwd=ROOT,
    env=os.environ | variables,
    capture_output=True,
    text=True,
    check=False,
    timeout=120,
  )


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('--config=configs/cvd.py', '--config.modle.size=small'), 'Did you mean "model"'),
    (('--config=configs/cvd.py', '--config.data.bukets=1'), 'bukets'),
    (('--config=configs/cvd.py', '--config.seed=x'), 'config.seed'),
    (('--config=configs/cvd.py:tiny',), "unknown variant 'tiny'"),
    (('--config=configs/nothing.py',), 'configs/nothing.py'),
    ((), '--config'),
    (('--config=configs/cvd.py', '--mode=predict'), 'mode'),
    (('--config=configs/cvd.py', '--config.data.dir=/nowhere'), 'data_pipeline.prepare'),
  ],
)
def test_wrong_input_is_one_clear_line(arguments, message):
  done = run(*arguments)
  assert done.returncode != 0
  assert 'Traceback' not in done.stderr
  lines = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
  assert len(lines) == 1 and message in lines[0]
  assert not done.stdout


def test_help_names_the_flags_at_once():
  done = run('--help', PYTHONPROFILEIMPORTTIME='1')
  assert all(flag in done.stdout for flag in ('--config', '--workdir', '--mode'))
  # Their imports take seconds.
  assert 'absl' in done.stderr
  assert 'tensorflow' not in done.stderr and 'jax._src' not in done.stderr
