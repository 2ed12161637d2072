"""Processes that another one started."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
  """Ends this process when its parent dies.

  The queue of jobs would keep the worker of a killed parent alive, and writing.
  """
  parent = multiprocessing.parent_process()
  assert parent is not None

  def wait() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()
