"""Keeps compiled programs, in one folder per jaxlib and kind of processor.

A program of another jaxlib, or for another processor's instructions, may crash the process
that loads it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
from pathlib import Path

import jax
from jax._src import compilation_cache as jax_cache
from jax._src.lru_cache import LRUCache

from data_pipeline.format import atomic

_BASE = Path('.cache/jax')


def use() -> Path:
  """Keeps all programs that this process compiles, and reuses kept ones.

  The folder of this jaxlib and processor is in `$JAX_COMPILATION_CACHE_DIR`, by default
  `.cache/jax`, and is returned.
  """
  base = Path(os.environ.get('JAX_COMPILATION_CACHE_DIR') or _BASE)
  folder = base.resolve() / kind()
  jax_cache.LRUCache = WholeFiles  # pyright: ignore[reportPrivateImportUsage]
  jax.config.update('jax_compilation_cache_dir', str(folder))
  # All programs: even one that compiles in 0.1 s loads in 0.01 s.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
  return folder


class WholeFiles(LRUCache):
  """JAX's folder of programs, in which each file is whole or not there.

  JAX writes a program into its place. Another process may read it before its end, and what
  is left of a killed process is never replaced: whoever needs that program is warned, and
  compiles it, at every start.
  """

  def put(self, key: str, value: bytes) -> None:
    """Keeps a program, unless there is one of this key.

    Args:
      key: hash of the program and of what it was compiled for.
      value: the compressed program.
    """
    path = Path(self.path) / f'{key}-cache'
    if self.eviction_enabled:  # JAX's lock excludes readers, and it counts the sizes
      super().put(key, value)
    elif not path.exists():
      with atomic.replacing(path) as partial:
        partial.write_bytes(value)


def kind() -> str:
  """Version of jaxlib and kind of processor, as the name of a folder."""
  digest = hashlib.sha256('\n'.join(_processor()).encode()).hexdigest()[:12]
  return f'jaxlib-{importlib.metadata.version("jaxlib")}-{platform.machine()}-{digest}'


def _processor() -> list[str]:
  """Properties that distinguish processors: on Linux the model and its instruction sets."""
  path = Path('/proc/cpuinfo')
  if not path.exists():
    return [platform.processor()]
  lines = path.read_text().splitlines()
  told = re.compile(r'(vendor_id|cpu family|model|model name|flags|Features|CPU part)\s*:')
  return sorted({line for line in lines if told.match(line)})
