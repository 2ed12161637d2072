"""All ECGs: admitted within 90 days, with which class of CVD, or not admitted.

  python -m medm2t_jax.main --config=configs/cvd_all.py:small

The cohort of `configs/cvd.py` (paper Task 1) asks for a later admission, which nobody knows
at the ECG. Here whoever is not admitted is a fifth class. Sizes, windows and recipe are
those of the published task.
"""

from __future__ import annotations

from configs import cvd
from medm2t_jax.experiment import Config


def get_config(variant: str | None = None) -> Config:
  """Returns the locked experiment; `variant` as in `configs.common`."""
  return cvd.get_config(variant, task='cvd_all')
