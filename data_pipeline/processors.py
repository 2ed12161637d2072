"""Counts the processors that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path('/sys/fs/cgroup')


def available(cgroup: Path = _CGROUP) -> int:
  """Number of processors by affinity and by the container's limit, at least one.

  The machine may have more. A limit of one and a half processors counts as two.

  Args:
    cgroup: folder in which Linux reports the limits of this process's container.
  """
  if hasattr(os, 'sched_getaffinity'):
    count = len(os.sched_getaffinity(0))
  else:  # not on Linux
    count = os.cpu_count() or 1
  limit = _limit(cgroup)
  return count if limit is None else max(1, min(count, math.ceil(limit)))


def _limit(cgroup: Path) -> float | None:
  current = cgroup / 'cpu.max'  # cgroup v2: 'max 100000' or '150000 100000'
  if current.exists():
    quota, period = current.read_text().split()
    return None if quota == 'max' else int(quota) / int(period)
  quota, period = (cgroup / 'cpu' / f'cpu.cfs_{name}_us' for name in ('quota', 'period'))
  if not (quota.exists() and period.exists()):
    return None
  microseconds = int(quota.read_text())  # cgroup v1: -1 without a limit
  return None if microseconds < 0 else microseconds / int(period.read_text())
