"""What a user sees of training.

A bar in every epoch, the remaining time at the start of every stage, a table of all stages
at the end, and the history of every stage on disk: metrics.jsonl always, TensorBoard events
on request.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from data_pipeline.format.atomic import write_text
from data_pipeline.format.schema import DataError
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
    return f'about {duration(seconds)} left to train'


def require_tensorboard() -> None:
  """Raises DataError if TensorBoard is not installed."""
  if util.find_spec('tensorboard') is None:
    raise DataError(
      'config.training.tensorboard=True needs the package tensorboard: '
      "pip install -c constraints.txt -e '.[tensorboard]', or leave it False "
      '(metrics.jsonl is always written)'
    )


class MetricWriter:
  """Writes the records of a stage's epochs to its folder."""

  def __init__(self, directory: Path, *, tensorboard: bool):
    """Opens the stage's directory; `tensorboard` also writes event files."""
    self._directory = directory
    directory.mkdir(parents=True, exist_ok=True)
    self._events = None
    if tensorboard:
      import tensorflow as tf

      self._events = tf.summary.create_file_writer(str(directory))

  def write(self, history: Sequence[Mapping[str, Any]]) -> None:
    """Writes the history up to the epoch that has just ended.

    Args:
      history: one record per epoch. `metrics.jsonl` is rewritten with all of them, so that
        a repeated epoch never appears twice. Numbers of the last record become TensorBoard
        scalars at step `epoch`.
    """
    lines = ''.join(json.dumps(record) + '\n' for record in history)
    write_text(self._directory / 'metrics.jsonl', lines)
    if self._events is not None:
      import tensorflow as tf

      record = history[-1]
      with self._events.as_default(step=record['epoch']):
        for name, value in record.items():
          if name != 'epoch':
            tf.summary.scalar(name, value)
      self._events.flush()


def stage_table(records: Sequence[StageRecord]) -> str:
  """A table for the log: one line per finished stage, with its cost and its result."""
  header = (
    'fold', 'stage', 'parameters', 'epochs', 'best', 'validation loss', 'time', 'notes'
  )  # fmt: skip
  return table(header, [_cells(record) for record in records], text=('stage', 'notes'))


def table(header: Sequence[str], rows: Iterable[Sequence[str]], text: Sequence[str]) -> str:
  """A table for the log; columns named in `text` are aligned left, the others right."""
  lines = [header, *rows]
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

  def line(cells: Sequence[str]) -> str:
    padded = [
      cell.ljust(width) if name in text else cell.rjust(width)
      for name, cell, width in zip(header, cells, widths, strict=True)
    ]
    return '  '.join(padded).rstrip()

  return '\n'.join(map(line, lines))


def duration(seconds: float) -> str:
  """Hours, minutes and seconds, as 1:02:05."""
  return str(datetime.timedelta(seconds=round(seconds)))


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
    duration(record.seconds),
    ' '.join(record.notes),
  )
