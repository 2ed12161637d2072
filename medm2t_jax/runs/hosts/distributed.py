"""Several processes (hosts): how they start and coordinate.

All processes run the same program on a shared workdir. Work that must happen once (claiming
the workdir, fitting, `done.json`, the report) happens in the first process; its result or
error is sent to every process, so that none waits for one that has stopped.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping
from importlib import util
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from flax import serialization
from jax.experimental import multihost_utils

from data_pipeline.format.schema import DataError

T = TypeVar('T')

# After a process has failed, the others are ended after this time.
_SHUTDOWN_SECONDS = 60
# A dead process is noticed after this time.
_HEARTBEAT_SECONDS = 100
# A shared file system may take this long to show a new file on another host.
_SHARED_SECONDS = 10


def initialize(
  coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> None:
  """Connects to the other processes, before any device is used.

  Without arguments the environment decides: a SLURM step of several tasks, or a TPU virtual
  machine; anywhere else this process is the only one.

  Args:
    coordinator_address: host:port of the first process, the same in all processes.
    num_processes: number of processes.
    process_id: 0, 1, ... The first process writes all logs and results.

  Raises:
    DataError: some arguments are missing, or contradict each other.
  """
  given = (coordinator_address, num_processes, process_id)
  if all(value is None for value in given):
    if in_slurm_step(os.environ) or on_tpu_vm():
      jax.distributed.initialize(
        shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
      )
    return
  if coordinator_address is None or num_processes is None or process_id is None:
    raise DataError(
      '--coordinator_address, --num_processes and --process_id belong together: give '
      'all three, or none under SLURM and on a TPU pod.'
    )
  if not 0 <= process_id < num_processes:
    raise DataError(
      f'--process_id={process_id}: with --num_processes={num_processes} it must be one of '
      f'0 to {num_processes - 1}.'
    )
  jax.distributed.initialize(
    coordinator_address,
    num_processes,
    process_id,
    cluster_detection_method='deactivate',
    shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
  )


def in_slurm_step(environment: Mapping[str, str]) -> bool:
  """Whether `srun` started this process as one of several tasks."""
  names = ('SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_PROCID', 'SLURM_LOCALID')
  tasks = int(environment.get('SLURM_NTASKS', '1'))
  return tasks > 1 and all(name in environment for name in names)


def on_tpu_vm() -> bool:
  """Whether this machine has TPU chips and the software for them."""
  chips = [*Path('/dev').glob('accel*'), *Path('/dev').glob('vfio/[0-9]*')]
  return util.find_spec('libtpu') is not None and bool(chips)


def is_first() -> bool:
  """Whether this process is the one that writes."""
  return jax.process_index() == 0


def from_first(function: Callable[[], T]) -> T:
  """Calls `function` only in the first process, and returns its result in all.

  Args:
    function: returns arrays, numbers, text and None in dicts and lists.

  Raises:
    DataError: raised in all processes if `function` raises it in the first.
  """
  if jax.process_count() == 1:
    return function()
  answer: dict[str, Any] = {}
  if is_first():
    try:
      answer['result'] = function()
    except DataError as error:
      answer['error'] = str(error)
  message = _broadcast(serialization.msgpack_serialize(answer))
  answer = dict(serialization.msgpack_restore(message))
  if 'error' in answer:
    raise DataError(answer['error'])
  return answer['result']


def _broadcast(message: bytes) -> bytes:
  """The first process's message in all processes."""
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(message))))
  text = message if is_first() else bytes(size)
  array = np.frombuffer(text, np.uint8)
  return np.asarray(multihost_utils.broadcast_one_to_all(array)).tobytes()


def first_then_others(function: Callable[[], T]) -> T:
  """Calls `function` in the first process, and then in the others, which find its files.

  Raises:
    DataError: raised in all processes if `function` raises it in the first.
  """
  kept: list[T] = []
  from_first(lambda: kept.append(function()))
  return kept[0] if kept else function()


def require_shared(folder: Path) -> None:
  """Makes sure that all processes see the same folder.

  Args:
    folder: it exists where the first process is.

  Raises:
    DataError: in all processes, if one does not see a file that the first one writes.
  """
  if jax.process_count() == 1:
    return

  def marked() -> str:
    mark = folder / f'shared-{uuid.uuid4().hex}'
    mark.touch()
    return mark.name

  name = from_first(marked)
  until = time.monotonic() + _SHARED_SECONDS
  while not (found := (folder / name).exists()) and time.monotonic() < until:
    time.sleep(0.2)
  seen = gather(np.array([found]))
  from_first(lambda: (folder / name).unlink())
  if not seen.all():
    without = ', '.join(map(str, np.flatnonzero(~seen)))
    raise DataError(
      f'--workdir={folder}: processes {without} do not see what process 0 writes there. '
      'It must be one folder that all hosts share.'
    )


def gather(array: np.ndarray | jax.Array) -> np.ndarray:
  """Concatenates the processes' arrays, of equal shapes, along the first axis."""
  return multihost_utils.process_allgather(array, tiled=True)
