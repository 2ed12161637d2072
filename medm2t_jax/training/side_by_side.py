"""Trains folds side by side, each in its own process.

A step of a small model keeps only one CPU core busy.
"""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from data_pipeline import child_process
from data_pipeline.format.dataset import Dataset
from data_pipeline.format.schema import DataError
from medm2t_jax.experiment import Experiment
from medm2t_jax.runs.hosts import preemption, start_up
from medm2t_jax.runs.run import Run
from medm2t_jax.runs.start import Start
from medm2t_jax.training.stage_training import TrainingError

Train = Callable[[Run], None]

_POLL_SECONDS = 0.2


def run(folds: Sequence[Run], train: Train, processes: int) -> None:
  """Trains folds, `processes` at a time.

  Args:
    folds: to train, first runs.
    train: trains one fold; a function of a module, so that another process can import it.
    processes: largest number of processes at a time.

  Raises:
    DataError, TrainingError: raised by `train`, or a process died. The others are stopped,
      and save.
    preemption.Preempted: SIGTERM arrived and every fold has saved.
  """
  waiting, running = list(folds), list[_Process]()
  try:
    while waiting or running:
      while waiting and len(running) < processes:
        running.append(_Process(waiting.pop(0), train))
      wait([each.process.sentinel for each in running], _POLL_SECONDS)
      if preemption.requested():
        raise preemption.Preempted(
          'stopped by SIGTERM; all running folds have saved. Run the same command again '
          'to continue.'
        )
      for each in [each for each in running if not each.process.is_alive()]:
        running.remove(each)
        each.check()
  finally:
    for each in running:
      each.process.terminate()  # on SIGTERM it saves
    for each in running:
      each.process.join()


class _Process:
  """One fold's training in another process."""

  def __init__(self, fold: Run, train: Train):
    context = child_process.context(train.__module__, __name__)
    self._name = fold.name
    self._answer, answer = context.Pipe(duplex=False)
    self.process: BaseProcess = context.Process(
      target=_work, args=(_Description.of(fold), train, answer), name=fold.name
    )
    self.process.start()
    answer.close()

  def check(self) -> None:
    """Raises the exception of the process, which has ended."""
    with self._answer:
      try:
        error = self._answer.recv()
      except EOFError:
        error = DataError(
          f'{self._name}: its process ended with exit code {self.process.exitcode}. The '
          'log above has the reason; -9 means that memory ran out. Run the same command '
          'again, with fewer config.training.processes if memory ran out.'
        )
    if error is not None:
      raise error


@dataclasses.dataclass(frozen=True)
class _Description:
  """What another process needs to recreate a fold."""

  config: Experiment
  dataset: Dataset
  fold: int
  workdir: Path
  taken: Mapping[str, Path]
  start: Start | None

  @classmethod
  def of(cls, fold: Run) -> _Description:
    return cls(fold.config, fold.dataset, fold.fold, fold.workdir, fold.taken, fold.start)

  def make(self) -> Run:
    return Run(
      self.config,
      self.dataset,
      self.fold,
      self.workdir,
      taken=self.taken,
      start=self.start,
    )


def _work(description: _Description, train: Train, answer: Connection) -> None:
  child_process.end_with_parent()
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent receives it and stops all
  start_up.start()
  failure: Exception | None = None
  try:
    with preemption.deferred():
      train(description.make())
  except (DataError, TrainingError, preemption.Preempted) as error:
    failure = error
  answer.send(failure)
