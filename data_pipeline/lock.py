"""One preparation a folder at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.schema import DataError

# What file systems without locks answer, some network ones among them.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
  """Holds the lock file `path`, which is made if need be.

  The operating system lets go of it when the process ends, however it ends, so a
  killed preparation leaves nothing to clean up. Where the file system has no locks, a
  line on stderr says so.

  Raises:
    DataError: another process holds it.
  """
  descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise DataError(
        f'{path}: another preparation is writing to this folder. Wait until it has '
        'ended, or name another --out.'
      ) from None
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        raise
      print(
        f'{path}: this file system has no locks: see to it that no second preparation '
        'writes here.',
        file=sys.stderr,
      )
    yield
  finally:
    os.close(descriptor)
