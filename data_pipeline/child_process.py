"""Starts and ends child processes."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from multiprocessing.context import ForkServerContext, SpawnContext


def context(*preload: str) -> ForkServerContext | SpawnContext:
  """The context in which to start processes, none of which is a fork of this process.

  A fork would inherit the threads of DuckDB, pyarrow, JAX and TensorFlow. On Linux,
  processes are forked from a server that has only imported modules: its only threads are
  those of OpenBLAS and of pyarrow's allocator, which tolerate forks. On other systems each
  process is a fresh interpreter.

  Args:
    *preload: modules that the server imports, if it is not running yet.
  """
  if sys.platform != 'linux':
    return multiprocessing.get_context('spawn')
  chosen = multiprocessing.get_context('forkserver')
  chosen.set_forkserver_preload(list(preload))
  return chosen


def end_with_parent() -> None:
  """Ends this process when its parent dies.

  Otherwise the job queue would keep the worker of a killed parent alive, and writing.
  """
  parent = multiprocessing.parent_process()
  assert parent is not None

  def wait() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()
