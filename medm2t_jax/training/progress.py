"""What a user sees of training.

A bar in every epoch, the remaining time at the start of every stage, and a table of all
stages at the end.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from medm2t_jax.runs.workdir import StageRecord, run_name

T = TypeVar('T')


class Progress:
  """Iterates over the batches of an epoch and measures throughput and waiting.

  The bar shows samples per second, the remaining time, the loss, and the share of time that
  training waited for data.
  """

  def __init__(
    self,
    description: str,
    samples: Int[np.ndarray, ' steps'],
    start_step: int,
    *,
    visible: bool,
  ):
    """Starts the bar.

    Args:
      description: shown before the bar.
      samples: number of samples of every step of the epoch.
      start_step: first step, above 0 in a resumed epoch.
      visible: whether the bar is drawn.
    """
    self._samples = samples
    self._step = start_step
    self._waited = 0.0
    self._start = time.perf_counter()
    self._start_step = start_step
    self._bar = tqdm(
      desc=description,
      initial=int(samples[:start_step].sum()),
      total=int(samples.sum()),
      unit=' samples',
      leave=False,
      disable=not visible,
    )

  def over(self, batches: Iterable[T], idle: Callable[[], bool]) -> Iterator[T]:
    """Yields the batches and measures how long training waits for them.

    Steps are queued, so the host may wait for a batch while the devices still compute. Only
    if `idle` reports that the devices have nothing left to do when a batch arrives, the
    time until then counts as waiting: an upper bound.
    """
    with self._bar:
      before = time.perf_counter()
      for batch in batches:
        if idle():
          self._waited += time.perf_counter() - before
        yield batch
        self._bar.update(int(self._samples[self._step]))
        self._step += 1
        before = time.perf_counter()

  def show_loss(self, loss: float) -> None:
    """Shows the loss and the share of time spent waiting for data."""
    share = self._waited / (time.perf_counter() - self._start)
    self._bar.set_postfix_str(f'loss {loss:.4f}, {share:.0%} waiting for data')

  def measurements(self) -> dict[str, float]:
    """Samples per second, share of time waiting for data, and seconds since the start."""
    seconds = time.perf_counter() - self._start
    samples = int(self._samples[self._start_step : self._step].sum())
    return {
      'samples_per_second': samples / seconds,
      'data_wait_share': self._waited / seconds,
      'seconds': seconds,
    }


class TimeLeft:
  """Estimates the remaining training time from the stages that are done."""

  def __init__(self, stages: int):
    """Starts the clock; `stages` counts those of all folds and runs."""
    self._left = stages
    self._over = 0
    self._start = time.perf_counter()

  def stage_is_over(self) -> None:
    """Counts one more stage as done."""
    self._left -= 1
    self._over += 1

  def __str__(self) -> str:
    if not self._over:
      return 'time left: known after the first stage'
    seconds = (time.perf_counter() - self._start) / self._over * self._left
    return f'about {_duration(seconds)} left to train'


def stage_table(records: Sequence[StageRecord]) -> str:
  """A table for the log: one line per finished stage, with its cost and its result."""
  header = (
    'fold', 'stage', 'parameters', 'epochs', 'best', 'validation loss', 'time', 'notes'
  )  # fmt: skip
  lines = [header, *(_cells(record) for record in records)]
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  text = ('stage', 'notes')

  def row(cells: Sequence[str]) -> str:
    padded = [
      cell.ljust(width) if name in text else cell.rjust(width)
      for name, cell, width in zip(header, cells, widths, strict=True)
    ]
    return '  '.join(padded).rstrip()

  return '\n'.join(map(row, lines))


def _cells(record: StageRecord) -> tuple[str, ...]:
  first = (run_name(record.fold, record.refit).removeprefix('fold '), record.stage)
  if record.skipped:
    return (*first, '', '', '', '', '', f'skipped: {record.skipped}')
  return (
    *first,
    f'{record.parameters:,}',
    str(record.epochs),
    str(record.best_epoch),
    '' if record.validation_loss is None else f'{record.validation_loss:.4f}',
    _duration(record.seconds),
    ' '.join(record.notes),
  )


def _duration(seconds: float) -> str:
  return str(datetime.timedelta(seconds=round(seconds)))
