"""Locks folders, so that each has only one writer at a time."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.format.schema import DataError

# Errors of file systems without locks, such as some network file systems.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def exclusive(path: Path, what: str, otherwise: str) -> Iterator[None]:
  """Holds the lock file `path`, which names its holder; creates it if needed.

  The operating system releases the lock when the process ends, however it ends, so a killed
  process leaves nothing to clean up. If the file system has no locks, a warning on stderr
  says so.

  Args:
    path: of the lock; its folder exists.
    what: what the other process does, for the message, for example 'prepares a data set
      here'.
    otherwise: an alternative to waiting, for example 'give another --out'.

  Raises:
    DataError: another process holds the lock.
  """
  descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      holder = os.pread(descriptor, 1000, 0).decode(errors='replace').strip()
      raise DataError(
        f'{path}: another process {what}{f" ({holder})" if holder else ""}. Wait until it '
        f'has ended, or {otherwise}.'
      ) from None
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        raise
      print(
        f'{path}: this file system has no locks: make sure that no other process writes '
        'here.',
        file=sys.stderr,
      )
    now = datetime.datetime.now().astimezone().isoformat(' ', 'seconds')
    holder = f'process {os.getpid()} on {socket.gethostname()} since {now}\n'
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, holder.encode(), 0)
    yield
  finally:
    os.close(descriptor)
