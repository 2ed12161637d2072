"""Handles SIGTERM, the sign that the machine will be taken away.

Training finishes its step, saves a checkpoint and ends; the same command continues it.
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
  """Training was asked to stop, and has saved its progress."""


@contextlib.contextmanager
def deferred() -> Iterator[None]:
  """Inside this context, SIGTERM does not end the process; `requested` turns True instead.

  Under `jax.distributed`, JAX's preemption service already handles the signal.

  Raises:
    Preempted: at the end, if a signal came after the last call of `requested`.
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
    raise Preempted(
      'stopped by SIGTERM after training. Run the same command again to continue.'
    )


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

  All processes must call this at the same points of the program: they agree on the step at
  which to stop by the number of calls.
  """
  if not jax.distributed.is_initialized():
    return _received
  return multihost_utils.reached_preemption_sync_point(next(_calls))
