"""Measures what training will take on this machine, and says so before it starts.

Every stage that is left runs a few steps of every shape with empty parameters: a step takes
the same time whatever their values. Its programs compile now in place of later.
"""

from __future__ import annotations

import dataclasses
import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipeline import processors
from data_pipeline.reading import planning
from medm2t_jax.runs import variables as initial
from medm2t_jax.runs.hosts import distributed, preemption
from medm2t_jax.runs.run import Run
from medm2t_jax.training.progress import duration, table
from medm2t_jax.training.stage_training import (
  first_epoch,
  optimizer_of,
  steps_of,
  validation_pass,
)
from medm2t_jax.training.starting import placed_state, recipe_of

_LOGGER = logging.getLogger(__name__)

# Shorter training ends before its forecast is worth the time.
_FEWEST_STEPS = 2000
_LONG_SECONDS = 1800


@dataclasses.dataclass(frozen=True)
class StageForecast:
  """What a stage will take, over all its runs.

  Attributes:
    stage: its name.
    epochs: of one run, at most: an early stop may end it before.
    steps: training steps of all runs.
    step_seconds: a training step, mean over its shapes.
    seconds: all runs one after the other: training and validation.
  """

  stage: str
  epochs: int
  steps: int
  step_seconds: float
  seconds: float


def announce(pending: Mapping[str, Sequence[Run]], side_by_side: int = 1) -> None:
  """Logs a forecast of stages, if their training is long.

  Args:
    pending: stage -> runs that are to train it, at least one.
    side_by_side: number of folds that will train at the same time.

  Raises:
    preemption.Preempted: SIGTERM arrived meanwhile.
  """
  plans = {
    stage: [(first_epoch(run, stage), validation_pass(run, stage)) for run in runs]
    for stage, runs in pending.items()
  }
  epochs = {stage: recipe_of(runs[0], stage).epochs for stage, runs in pending.items()}
  steps = {
    stage: epochs[stage] * sum(len(plan) for plan, _ in of) for stage, of in plans.items()
  }
  if sum(steps.values()) < _FEWEST_STEPS:
    return
  _LOGGER.info('measuring a few steps of every stage, to say what training will take')
  found = []
  for stage, runs in pending.items():
    if preemption.requested():
      raise preemption.Preempted('stopped by SIGTERM before training. Run it again.')
    measured = _Measured(runs[0], stage)
    train = sum(measured.training(plan) for plan, _ in plans[stage])
    validate = sum(
      measured.validation(plan) for _, plan in plans[stage] if plan is not None
    )
    one = StageForecast(
      stage,
      epochs[stage],
      steps[stage],
      train * epochs[stage] / steps[stage],
      epochs[stage] * (train + validate),
    )
    _LOGGER.info('%s: at most %s', stage, duration(one.seconds))
    found.append(one)
  if distributed.is_first():
    print(text(found, side_by_side), file=sys.stderr)


def text(forecasts: Sequence[StageForecast], side_by_side: int = 1) -> str:
  """The forecast as a table with a summary below.

  Args:
    forecasts: of every stage that is left.
    side_by_side: number of folds that will train at the same time.
  """
  rows = [
    (
      each.stage, str(each.epochs), f'{each.steps:,}',
      f'{1000 * each.step_seconds:,.0f} ms', duration(each.seconds),
    )
    for each in forecasts
  ]  # fmt: skip
  header = 'stage', 'epochs', 'steps', 'a step', 'time'
  seconds = sum(each.seconds for each in forecasts)
  lines = [
    'what training will take here, at most (steps of all folds and runs):',
    table(header, rows, text=('stage',)),
    f'{duration(seconds)} in all, {_where()}, {_memory()}',
  ]
  if side_by_side > 1:
    lines[-1] += (
      f'; {side_by_side} folds will train at the same time, each then slower than this'
    )
  if seconds > _LONG_SECONDS:
    lines.append(
      'for a run of minutes add `smoke` to the variants, as in configs/cvd.py:smoke; '
      '`small` is the model for two cores'
    )
  return '\n'.join(lines)


class _Measured:
  """Seconds of the steps of a stage, by bucket."""

  def __init__(self, run: Run, stage: str):
    self._run, self._stage = run, stage
    epoch = first_epoch(run, stage)
    self._train, self._validate = steps_of(run, stage)
    optimizer = optimizer_of(run, stage, len(epoch))
    empty = jax.tree.map(
      lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), dict(initial.shapes(run, stage))
    )
    self._state = placed_state(empty, optimizer, recipe_of(run, stage))
    self._key = initial.key(run, stage)
    self._training = self._by_bucket(epoch, self._train_once)
    of_validation = validation_pass(run, stage)
    self._validation = (
      {} if of_validation is None else self._by_bucket(of_validation, self._validate_once)
    )

  def training(self, plan: planning.Plan) -> float:
    """Seconds of a training epoch."""
    return _seconds(plan, self._training)

  def validation(self, plan: planning.Plan) -> float:
    """Seconds of a pass over validation subjects."""
    return _seconds(plan, self._validation)

  def _by_bucket(self, plan: planning.Plan, once: Callable[[Any], Any]) -> dict[int, float]:
    """Seconds of a step of each bucket: the mean of two, after one that compiles."""
    found = {}
    for bucket in np.unique(plan.bucket):
      first = np.flatnonzero(plan.bucket == bucket)[:2]
      part = dataclasses.replace(plan, bucket=plan.bucket[first], rows=plan.rows[first])
      batches = [*self._read(part)]
      jax.block_until_ready(once(batches[0]))
      began = time.perf_counter()
      for each in (batches[0], batches[-1]):
        jax.block_until_ready(once(each))
      found[int(bucket)] = (time.perf_counter() - began) / 2
    return found

  def _read(self, plan: planning.Plan) -> Iterator[Any]:
    return self._run.reader.read(plan, self._run.modalities_of(self._stage))

  def _train_once(self, batch: Any) -> Any:
    self._state, loss = self._train(self._state, batch, self._key)
    return self._state, loss

  def _validate_once(self, batch: Any) -> Any:
    return self._validate(self._state.variables, batch)


def _seconds(plan: planning.Plan, by_bucket: Mapping[int, float]) -> float:
  """Seconds of all steps of a plan; those of a shape not measured count as the longest."""
  longest = max(by_bucket.values())
  return sum(by_bucket.get(int(bucket), longest) for bucket in plan.bucket)


def _where() -> str:
  """The devices of the run, and their number."""
  device, count = jax.devices()[0], jax.device_count()
  if device.platform == 'cpu':
    return f'on {processors.available()} cores'
  return f'on {count} x {device.device_kind}'


def _memory() -> str:
  """Largest memory so far: of a device if it reports it, else of the process."""
  used = (jax.local_devices()[0].memory_stats() or {}).get('peak_bytes_in_use')
  if used is not None:
    return f'{used / 1e9:.1f} GB of device memory so far'
  scale = 1 if sys.platform == 'darwin' else 1024  # getrusage counts KiB on Linux
  most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
  return f'{most / 1e9:.1f} GB of memory so far'
