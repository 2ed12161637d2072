"""The main command in a process of its own, which tests may stop at a known moment."""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from data_pipeline import child_process
from tests.support.xla_flags import xla_flags

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 240  # no process of a test lives longer


def static_dataset(out: Path) -> None:
  """Prepares a small simulated data set that has the static modality alone."""
  from data_pipeline.preparation import build

  build.prepare(
    source='simulated',
    task='cvd',
    out=out,
    raw=out.parent / 'raw',
    patients=60,
    workers=1,
  )
  path = out / 'dataset.json'
  metadata = json.loads(path.read_text())
  every = metadata['schema']['modalities']
  metadata['schema']['modalities'] = [one for one in every if one['name'] == 'static']
  path.write_text(json.dumps(metadata))


class Command:
  """A running main command; its output goes to files, and to a failing test."""

  def __init__(
    self,
    log: Path,
    *flags: str,
    devices: int = 1,
    before: Callable[[], None] | None = None,
  ):
    self._log = log
    self._out = log.with_suffix('.out')
    for path in (self._out, self._log):
      path.write_text('')
    # Their server has imported what the command imports, which takes most of its start.
    context = child_process.context(__name__, *_IMPORTED)
    self._process = context.Process(
      target=_run, args=(flags, devices, before, self._out, self._log)
    )
    self._process.start()

  def lines(self) -> list[str]:
    """On stdout."""
    return self._out.read_text().splitlines()

  def output(self) -> str:
    return f'{self._out.read_text()}\n{self._log.read_text()}'

  def wait_for(self, line: str) -> None:
    """Waits until the process has printed a line."""
    while line not in self.lines():
      assert self._process.is_alive(), self.output()
      time.sleep(0.05)

  def terminate(self) -> None:
    self._process.terminate()

  def kill(self) -> None:
    """kill -9, and nothing left to clean up."""
    self._process.kill()
    self._process.join()

  def ends(self) -> int:
    """Waits until the process ends by itself; returns its exit code."""
    self._process.join()
    code = self._process.exitcode
    assert code is not None and code != -signal.SIGALRM, f'it hangs\n{self.output()}'
    return code

  def finish(self, code: int = 0) -> dict[str, Any]:
    """Waits for the end; returns the JSON of the last line on stdout, if there is one."""
    assert self.ends() == code, self.output()
    found = [line for line in self.lines() if line.startswith('{')]
    return json.loads(found[-1]) if found else {}

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *exception: object) -> None:
    if self._process.is_alive():
      self.kill()


class Training(Command):
  """Training on a small data set of `configs/cvd.py`.

  It says on stdout which batch it reads next (`batch 1`, `batch 2`, ...), waits `pause`
  seconds before each, and for ever before batch `hang_at` (0: never).
  """

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
    super().__init__(
      log,
      *('--config=configs/cvd.py:smoke', f'--workdir={workdir}'),
      f'--config.data.dir={dataset}',
      '--config.evaluation.batch_size=16',
      '--config.evaluation.bootstrap=10',
      *flags,
      devices=devices,
      before=functools.partial(_hook, pause, hang_at),
    )


# By `main` where it runs.
_IMPORTED = (
  'medm2t_jax.audit',
  'medm2t_jax.evaluation.evaluate',
  'medm2t_jax.inference.adapting',
  'medm2t_jax.training.train',
)


def _run(
  flags: tuple[str, ...],
  devices: int,
  before: Callable[[], None] | None,
  out: Path,
  log: Path,
) -> None:
  """The process: as `python -m medm2t_jax.main` in the root, with devices of its own."""
  signal.alarm(SECONDS)  # ends the process, whatever it waits for
  for path, stream in ((out, sys.stdout), (log, sys.stderr)):
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, stream.fileno())
    os.close(file)
  os.chdir(ROOT)
  # Nothing has touched a device yet.
  os.environ.update(XLA_FLAGS=xla_flags(devices), JAX_PLATFORMS='cpu')

  from absl import app

  from medm2t_jax import command_line, main

  if before is not None:
    before()
  sys.argv = ['main', *flags]  # where overrides of the config are looked for, too
  try:
    app.run(main.main, flags_parser=command_line.parse_flags)
  finally:
    atexit._run_exitfuncs()  # an interpreter does at its end, `multiprocessing` does not


def _hook(pause: float, hang_at: int) -> None:
  from medm2t_jax.runs.hosts import distributed
  from medm2t_jax.runs.reader import Reader

  distributed._HEARTBEAT_SECONDS = 10
  distributed._SHARED_SECONDS = 1  # one machine has one file system
  read = Reader.read
  numbers = itertools.count(1)

  def paused(self, plan, modalities, start_step=0):
    for batch in read(self, plan, modalities, start_step):
      number = next(numbers)
      print(f'batch {number}', flush=True)
      time.sleep(3600 if number == hang_at else pause)
      yield batch

  Reader.read = paused
