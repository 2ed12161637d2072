"""What all sweeps share: the fields of a sweep."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from medm2t_jax.experiment import Config


def sweep(
  experiment: Config, space: tuple[tuple[Any, ...], ...], *, stage: str, trials: int
) -> Config:
  """A locked sweep.

  Args:
    experiment: what every trial starts from; all its values can be given on the command
      line, as --sweep.experiment.data.dir=DIR. The objective is what
      `recipe.STAGE.select_by` names, on validation subjects, at the best epoch; with
      several folds their mean. No trial has a refit; the best one has when it is replayed.
    space: one entry a swept value: (path, kind, ...). The path is that of a config
      value; `*` stands for any name, and all values that match change together. Kinds:
      ('uniform', low, high), ('log_uniform', low, high), ('integer', low, high) and
      ('choice', (value, value, ...)).
    stage: whose metric is the objective; `experiment.stages` must contain it.
    trials: number of trials, those that failed included.
  """
  fields = {
    'name': experiment.name,
    'stage': stage,
    'trials': trials,
    'seed': 0,
    'space': space,
    'experiment': experiment,
  }
  return ConfigDict(fields).lock()
