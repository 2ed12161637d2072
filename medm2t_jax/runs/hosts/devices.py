"""Devices and processes: the only module in which there are several devices (`jax.pmap`).

The state is replicated (`in_axes=None`, `out_axes=None`), batches have a leading axis of
this process's devices. A step runs on the devices of all processes; its inputs and outputs
are local to the process. The only parallel primitive is a psum.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DEVICE_AXIS = 'device'

# Half of the mappings that Linux allows; one stage needs a few thousand.
_MOST_MAPPINGS = 30_000

# `jax.pmap` of a step over `DEVICE_AXIS`.
on_devices = functools.partial(jax.pmap, axis_name=DEVICE_AXIS)


def replicated() -> NamedSharding:
  """The sharding of the state in steps: a copy on every device of this process."""
  return NamedSharding(Mesh(np.array(jax.local_devices()), (DEVICE_AXIS,)), PartitionSpec())


def replicated_everywhere() -> NamedSharding:
  """The sharding of checkpoints: a copy on every device of every process."""
  return NamedSharding(_all_devices(), PartitionSpec())


def _all_devices() -> Mesh:
  return Mesh(np.array(jax.devices()), (DEVICE_AXIS,))


def to_global(tree: Any) -> Any:
  """This process's copies as arrays of all processes; no data is moved."""
  return multihost_utils.host_local_array_to_global_array(
    tree, _all_devices(), PartitionSpec()
  )


def to_local(tree: Any) -> Any:
  """Arrays replicated on all processes as arrays of this process; no data is moved."""
  return multihost_utils.global_array_to_host_local_array(
    tree, _all_devices(), PartitionSpec()
  )


def sum_over_devices(tree: Any) -> Any:
  """Sum of every leaf over the devices of all processes, inside a step."""
  if jax.lax.axis_size(DEVICE_AXIS) == 1:
    return tree  # XLA would copy every gradient
  return jax.lax.psum(tree, DEVICE_AXIS)


def release_programs() -> None:
  """Frees the compiled programs if there are many; they are compiled again when needed.

  On CPUs they stay in memory as thousands of mappings, of which Linux allows 65,530 per
  process: many folds and ablations would exceed the limit.
  """
  maps = Path('/proc/self/maps')
  if maps.exists() and maps.read_bytes().count(b'\n') > _MOST_MAPPINGS:
    jax.clear_caches()
