"""The command line: what a person sees when something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import main_command

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
    (('--config=configs/cvd.py', '--mode=predict'), 'mode'),
    (('--config=configs/cvd.py', '--config.data.dir=/nowhere'), 'data_pipeline.prepare'),
    (('--config=configs/cvd.py', '--config.data.dir=gs://b/cvd'), 'mount the bucket'),
    (('--config=configs/cvd.py', '--workdir=s3://b/runs'), 'mount the bucket'),
  ],
)
def test_wrong_input_is_one_clear_line(arguments, message):
  ended = main_command.run(*arguments)
  assert isinstance(ended.code, str) and ended.code.startswith('error: ')
  assert message in ended.code and '\n' not in ended.code
  assert not ended.lines


def test_compiled_programs_cannot_be_kept_at_a_url(monkeypatch):
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', 'gs://b/jax')
  ended = main_command.run('--config=configs/cvd.py')
  assert ended.code.startswith('error: $JAX_COMPILATION_CACHE_DIR')
  assert 'mount the bucket' in ended.code and not ended.lines


def test_it_is_the_only_line_of_the_process():
  done = run()
  assert done.returncode == 1 and not done.stdout
  (line,) = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
  assert '--config' in line and 'Traceback' not in done.stderr


def test_help_names_the_flags_at_once():
  done = run('--help', PYTHONPROFILEIMPORTTIME='1')
  assert all(flag in done.stdout for flag in ('--config', '--workdir', '--mode'))
  # Their imports take seconds.
  assert 'absl' in done.stderr
  assert 'tensorflow' not in done.stderr and 'jax._src' not in done.stderr
