"""SIGTERM: the machine is about to be taken away.

Training finishes its step, saves a checkpoint and ends; run again, it continues.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

# "Temporary failure, try again" of sysexits.h.
EXIT_CODE = os.EX_TEMPFAIL

_calls = itertools.count()
_received = False


class Preempted(Exception):
  """Training was asked to stop, and has saved where it stands."""


@contextlib.contextmanager
def deferred() -> Iterator[None]:
  """Inside, SIGTERM no longer ends the process: `requested` turns true instead.

  Under `jax.distributed`, JAX's preemption service has taken the signal already.

  Raises:
    Preempted: at the end, where a signal came and nobody asked any more.
  """
  global _received
  if jax.distributed.is_initialized():
    yield
    return
  _received = False
  previous = signal.signal(signal.SIGTERM, _receive)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, previous)
    received, _received = _received, False
  if received:
    raise Preempted('stopped by SIGTERM after training. Run the same command to go on.')


@contextlib.contextmanager
def exit_code() -> Iterator[None]:
  """Inside, `Preempted` ends the process with `EXIT_CODE` and a line on stderr."""
  try:
    yield
  except Preempted as stop:
    if jax.process_index() == 0:
      print(f'preempted: {stop}', file=sys.stderr)
    sys.exit(EXIT_CODE)


def _receive(number: int, frame: FrameType | None) -> None:
  global _received
  del number, frame
  _received = True


def requested() -> bool:
  """Whether to save and stop now; the same answer in all processes.

  Every process must call this at the same points of the program: the number of calls
  is the clock by which they agree on the step at which all of them stop.
  """
  if not jax.distributed.is_initialized():
    return _received
  return multihost_utils.reached_preemption_sync_point(next(_calls))
