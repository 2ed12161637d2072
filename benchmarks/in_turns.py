"""Times several pieces of work in turns in one process, under the same conditions.

XLA on a CPU allocates one large temporary buffer per call, which the C library maps again
each time, page by page. `--allocator=keep` (default; glibc only) restarts the process with
GLIBC_TUNABLES that keep freed memory, for every framework; `--allocator=default` does not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

Work = Callable[[], Any]

_CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}
_KEEP_MEMORY = (
  'glibc.malloc.mmap_threshold=8000000000:glibc.malloc.trim_threshold=16000000000'
)
# Pause, because threads of one framework spin for a while after their work is done.
_REST_SECONDS = 0.03


def add_flags(parser: argparse.ArgumentParser, *, repetitions: int, seconds: float) -> None:
  """Adds the flags that `start` and `in_turns` read; numbers are their defaults."""
  parser.add_argument('--repetitions', type=int, default=repetitions)
  parser.add_argument('--seconds', type=float, default=seconds, help='at most, per turns')
  parser.add_argument('--clock', choices=_CLOCKS, default='wall')
  parser.add_argument('--allocator', choices=('keep', 'default'), default='keep')


def keep_memory(options: argparse.Namespace, module: str, arguments: list[str]) -> None:
  """Restarts this process with an allocator that keeps memory, if requested.

  Args:
    options: with the flags of `add_flags`.
    module: the module to run.
    arguments: its command line.
  """
  if options.allocator == 'keep' and os.environ.get('GLIBC_TUNABLES') != _KEEP_MEMORY:
    # The C library reads the tunables before main starts, so a new process is needed.
    environment = os.environ | {'GLIBC_TUNABLES': _KEEP_MEMORY}
    os.execve(sys.executable, [sys.executable, '-m', module, *arguments], environment)


def in_turns(work: Mapping[str, Work], options: argparse.Namespace) -> dict[str, float]:
  """Median seconds of each piece of work; each repetition runs all of them once."""
  clock = _CLOCKS[options.clock]
  for run in work.values():
    run()  # compiles, allocates the optimizer's state
  times: dict[str, list[float]] = {name: [] for name in work}
  end = time.perf_counter() + options.seconds
  for repetition in range(options.repetitions):
    # At least three, so that the median makes sense.
    if repetition >= 3 and time.perf_counter() > end:
      break
    for name, run in work.items():
      time.sleep(_REST_SECONDS)
      start = clock()
      run()
      times[name].append(clock() - start)
  return {name: statistics.median(found) for name, found in times.items()}


def rounded(row: Mapping[str, float]) -> dict[str, float]:
  """Numbers to four digits."""
  return {name: float(f'{value:.4g}') for name, value in row.items()}


def say(name: str, row: Mapping[str, Any]) -> None:
  """Prints one line on stderr while the measurement continues."""
  show = lambda value: f'{value:g}' if isinstance(value, float) else str(value)
  shown = '  '.join(f'{key} {show(value)}' for key, value in row.items())
  print(f'{name}: {shown}', file=sys.stderr, flush=True)
