"""The training command with hooks, for tests that stop it at a known moment.

  python -m tests.support.training_process PAUSE HANG_AT [flags of medm2t_jax.main]

Says on stdout which batch it reads next (`batch 1`, `batch 2`, ...), waits PAUSE seconds
before each, and for ever before batch HANG_AT (0: never).
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.xla_flags import xla_flags

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 240  # no process of a test lives longer


def static_dataset(out: Path, patients: int = 60) -> None:
  """Prepares a small simulated data set that has the static modality alone."""
  from data_pipeline.preparation import build

  build.prepare(
    source='simulated',
    task='cvd',
    out=out,
    raw=out.parent / 'raw',
    patients=patients,
    workers=1,
  )
  path = out / 'dataset.json'
  metadata = json.loads(path.read_text())
  every = metadata['schema']['modalities']
  metadata['schema']['modalities'] = [one for one in every if one['name'] == 'static']
  path.write_text(json.dumps(metadata))


class Training:
  """A running training command; its output goes to files, and to a failing test."""

  def __init__(
    self,
    dataset: Path,
    workdir: Path,
    log: Path,
    *flags: str,
    devices: int = 1,
    pause: float = 0,
    hang_at: int = 0,
  ):
    self._log = log
    self._out = log.with_suffix('.out')
    command = [
      *(sys.executable, '-m', 'tests.support.training_process', str(pause), str(hang_at)),
      *('--config=configs/cvd.py:smoke', f'--workdir={workdir}'),
      f'--config.data.dir={dataset}',
      '--config.evaluation.batch_size=16',
      '--config.evaluation.bootstrap=10',
      *flags,
    ]
    environment = os.environ | {
      'XLA_FLAGS': xla_flags(devices),
      'JAX_PLATFORMS': 'cpu',
    }
    with self._out.open('w') as out, self._log.open('w') as err:
      self._process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=out, stderr=err, start_new_session=True
      )

  def output(self) -> str:
    return f'{self._out.read_text()}\n{self._log.read_text()}'

  def wait_for(self, line: str) -> None:
    """Waits until the process has printed a line."""
    while line not in self._out.read_text().splitlines():
      assert self._process.poll() is None, self.output()
      time.sleep(0.05)

  def terminate(self) -> None:
    self._process.terminate()

  def kill(self) -> None:
    """kill -9, and nothing left to clean up."""
    os.killpg(self._process.pid, signal.SIGKILL)
    self._process.wait()

  def ends(self) -> int:
    """Waits until the process ends by itself; returns its exit code."""
    code = self._process.wait()
    assert code != -signal.SIGALRM, f'it hangs\n{self.output()}'
    return code

  def finish(self, code: int = 0) -> dict[str, Any]:
    """Waits for the end; returns the JSON of the last line on stdout, if there is one."""
    assert self._process.wait() == code, self.output()
    lines = self._out.read_text().splitlines()
    found = [line for line in lines if line.startswith('{')]
    return json.loads(found[-1]) if found else {}

  def __enter__(self) -> Training:
    return self

  def __exit__(self, *exception: object) -> None:
    if self._process.poll() is None:
      self.kill()


def _hook(pause: float, hang_at: int) -> None:
  from medm2t_jax.runs.hosts import distributed
  from medm2t_jax.runs.reader import Reader

  distributed._HEARTBEAT_SECONDS = 10
  read = Reader.read
  numbers = itertools.count(1)

  def paused(self, plan, modalities, start_step=0):
    for batch in read(self, plan, modalities, start_step):
      number = next(numbers)
      print(f'batch {number}', flush=True)
      time.sleep(3600 if number == hang_at else pause)
      yield batch

  Reader.read = paused


if __name__ == '__main__':
  from absl import app

  from medm2t_jax import command_line, main

  signal.alarm(SECONDS)  # ends the process, whatever it waits for
  _hook(float(sys.argv[1]), int(sys.argv[2]))
  app.run(main.main, [sys.argv[0], *sys.argv[3:]], flags_parser=command_line.parse_flags)
