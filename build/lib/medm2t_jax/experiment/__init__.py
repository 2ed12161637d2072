"""The typed experiment: what a config of `configs/` is once it is read."""

from __future__ import annotations

from typing import Any, TypeAlias

from medm2t_jax.experiment.options import Experiment, Recipe, Sweep

__all__ = ['Config', 'Experiment', 'Recipe', 'Sweep', 'read', 'read_sweep']

# An ml_collections.ConfigDict of `configs/`, which flags change; its fields are what they
# are in `Experiment`. Type checkers know nothing of them, so to them it is Any.
Config: TypeAlias = Any


def read(config: Config) -> Experiment:
  """The experiment that a config holds.

  Args:
    config: of `configs/`, locked or not.

  Raises:
    DataError: a value that its field cannot have.
  """
  return Experiment.from_fields(config.to_dict(), 'config')


def read_sweep(config: Config) -> Sweep:
  """The sweep that a config of `configs/sweeps` holds.

  Raises:
    DataError: a value that its field cannot have.
  """
  return Sweep.from_fields(config.to_dict(), 'sweep')
