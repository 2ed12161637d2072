"""Counts the programs of training and prediction steps that are compiled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax

_COMPILED = '/jax/core/compile/backend_compile_duration'
_STEP = 'jit(_fun)'  # the name that `jax.pmap` gives to every step


@contextlib.contextmanager
def counted() -> Iterator[list[str]]:
  """The steps compiled so far, while the context is open."""
  compiled: list[str] = []

  def heard(event: str, _: float, *, fun_name: str = '', **__: object) -> None:
    if event == _COMPILED and fun_name == _STEP:
      compiled.append(fun_name)

  jax.monitoring.register_event_duration_secs_listener(heard)
  try:
    yield compiled
  finally:
    jax.monitoring.unregister_event_duration_listener(heard)
