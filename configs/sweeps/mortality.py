"""Searches settings of the end-to-end multimodal model for in-hospital mortality.

  python -m medm2t_jax.sweep --sweep=configs/sweeps/mortality.py
  python -m medm2t_jax.sweep --sweep=configs/sweeps/mortality.py:small

The variant is that of `configs/mortality.py`, to which `end_to_end` is added: a trial
with all stages would take twelve times as long.
"""

from __future__ import annotations

from configs import mortality
from configs.sweeps import common
from medm2t_jax.experiment import Config


def get_config(variant: str | None = None) -> Config:
  """Returns the locked sweep."""
  experiment = mortality.get_config(','.join(filter(None, [variant, 'end_to_end'])))
  space = (
    ('recipe.multimodal.learning_rate', 'log_uniform', 1e-5, 3e-3),
    ('recipe.multimodal.schedule', 'choice', ('constant', 'cosine')),
    ('recipe.multimodal.ema_decay', 'choice', (0.0, 0.99, 0.999)),
    ('recipe.multimodal.weight_decay', 'choice', (0.0, 1e-5, 1e-4)),
    ('model.modality_dropout', 'uniform', 0.0, 0.4),
    ('model.fusion', 'choice', ('add', 'mul', 'concat')),
  )
  return common.sweep(experiment, space, stage='multimodal', trials=30)
