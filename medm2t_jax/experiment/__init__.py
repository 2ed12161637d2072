"""The typed experiment: a config of `configs/` after it is read."""

from __future__ import annotations

from typing import Any, TypeAlias

from medm2t_jax.experiment.options import Experiment, Recipe, Sweep

__all__ = ['Config', 'Experiment', 'Recipe', 'Sweep', 'read', 'read_sweep']

# An ml_collections.ConfigDict from `configs/`, which flags can change. It has the fields of
# `Experiment`, but type checkers cannot see them, so its type is Any.
Config: TypeAlias = Any


def read(config: Config) -> Experiment:
  """Converts a config to an experiment.

  Args:
    config: from `configs/`, locked or not.

  Raises:
    DataError: a field has a value that is not allowed.
  """
  return Experiment.from_fields(config.to_dict(), 'config')


def read_sweep(config: Config) -> Sweep:
  """Converts a config of `configs/sweeps` to a sweep.

  Raises:
    DataError: a field has a value that is not allowed.
  """
  return Sweep.from_fields(config.to_dict(), 'sweep')
