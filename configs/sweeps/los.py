"""Compares losses for length of stay by the validation mean absolute error.

  python -m medm2t_jax.sweep --sweep=configs/sweeps/los.py
  python -m medm2t_jax.sweep --sweep=configs/sweeps/los.py:small

The objective is an error in days: values of different losses cannot be compared.
"""

from __future__ import annotations

from configs import los
from configs.sweeps import common
from medm2t_jax.experiment import Config


def get_config(variant: str | None = None) -> Config:
  """Returns the locked sweep; `variant` is that of `configs/los.py`."""
  experiment = los.get_config(','.join(filter(None, [variant, 'end_to_end'])))
  with experiment.unlocked():
    experiment.recipe.multimodal.select_by = 'mae'
  losses = ('squared', 'absolute', 'huber', 'log_squared')
  space = (
    ('recipe.multimodal.loss', 'choice', losses),
    ('recipe.multimodal.learning_rate', 'log_uniform', 1e-5, 3e-3),
  )
  return common.sweep(experiment, space, stage='multimodal', trials=20)
