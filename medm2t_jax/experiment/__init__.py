"""The type of an experiment's configuration."""

from __future__ import annotations

from typing import Any, TypeAlias

# An ml_collections.ConfigDict of `configs/`. Its fields are checked when it is built
# and locked; type checkers know nothing of them, so to them it is Any.
Experiment: TypeAlias = Any


def with_tuples(value: Any) -> Any:
  """JSON knows lists alone; every sequence of an experiment is a tuple."""
  if isinstance(value, dict):
    return {name: with_tuples(item) for name, item in value.items()}
  return tuple(map(with_tuples, value)) if isinstance(value, list) else value
