"""All ECGs: admission within 90 days, by class of CVD, or no admission.

  python -m medm2t_jax.main --config=configs/cvd_all.py:small

The cohort of `configs/cvd.py` (paper Task 1) requires a later admission, which is unknown
at the time of the ECG. Here, patients who are not admitted form a fifth class. Sizes,
windows and recipe are those of the published task.
"""

from __future__ import annotations

from configs import cvd
from medm2t_jax.experiment import Config


def get_config(variant: str | None = None) -> Config:
  """Returns the locked experiment; `variant` as in `configs.common`."""
  return cvd.get_config(variant, task='cvd_all')
