"""The fields that all sweeps share."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from medm2t_jax.experiment import Config


def sweep(
  experiment: Config, space: tuple[tuple[Any, ...], ...], *, stage: str, trials: int
) -> Config:
  """Returns a locked sweep.

  Args:
    experiment: base of every trial. Its values can be set on the command line, for example
      --sweep.experiment.data.dir=DIR. The objective is the metric named by
      `recipe.STAGE.select_by`, on validation subjects, at the best epoch, averaged over
      folds. Trials have no refit; replaying the best trial includes it.
    space: one entry per swept value: (path, kind, ...). The path is that of a config value;
      `*` stands for any name, and all matching values change together. Kinds: ('uniform',
      low, high), ('log_uniform', low, high), ('integer', low, high) and ('choice', (value,
      value, ...)).
    stage: the stage whose metric is the objective; `experiment.stages` must contain it.
    trials: number of trials, failed ones included.
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
