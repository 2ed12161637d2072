"""Compiled programs are kept where no other jaxlib and no other processor finds them."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from medm2t_jax.runs.hosts import compilation_cache


@pytest.fixture
def keeps(tmp_path, monkeypatch):
  """A function that compiles and returns the folder and the programs kept in it."""
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path))

  def compiled():
    jax_cache.reset_cache()
    jax.clear_caches()
    folder = compilation_cache.use()
    jax.jit(lambda x: jnp.sin(x) + 41)(1.0)
    assert folder.parent == tmp_path
    return folder.name, len(list(folder.glob('*-cache')))

  yield compiled
  monkeypatch.undo()
  jax_cache.reset_cache()
  compilation_cache.use()


def test_each_jaxlib_and_processor_has_a_folder_of_its_own(keeps, monkeypatch):
  own, programs = keeps()
  assert importlib.metadata.version('jaxlib') in own and programs
  with monkeypatch.context() as patch:
    patch.setattr(importlib.metadata, 'version', lambda name: '0.0.1')
    of_another_version, its_programs = keeps()
  assert '0.0.1' in of_another_version and its_programs == programs
  with monkeypatch.context() as patch:
    patch.setattr(compilation_cache, '_processor', lambda: ['flags: of another'])
    of_another_processor, its_programs = keeps()
  assert its_programs == programs
  assert len({own, of_another_version, of_another_processor}) == 3
  assert keeps() == (own, programs)


def test_a_program_is_there_when_it_is_whole(keeps, monkeypatch):
  write, half_written = Path.write_bytes, []

  def in_halves(path, program):
    write(path, program[: len(program) // 2])
    half_written.append(path)
    assert not path.name.endswith('-cache')
    return write(path, program)

  monkeypatch.setattr(Path, 'write_bytes', in_halves)
  _, programs = keeps()
  assert len(half_written) == programs > 0


def test_without_linux_the_platform_tells_the_processor(monkeypatch):
  monkeypatch.setattr(compilation_cache.Path, 'exists', lambda self: False)
  monkeypatch.setattr(platform, 'processor', lambda: 'arm')
  of_arm = compilation_cache.kind()
  monkeypatch.setattr(platform, 'processor', lambda: 'i386')
  assert compilation_cache.kind() != of_arm
