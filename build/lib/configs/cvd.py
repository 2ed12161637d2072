"""CVD within 90 days of an ECG: non-CVD, CHD, stroke or HF (paper Task 1).

  python -m medm2t_jax.main --config=configs/cvd.py
  python -m medm2t_jax.main --config=configs/cvd.py:small   # two CPU cores
  python -m medm2t_jax.main --config=configs/cvd.py:smoke   # under two minutes

Published (arXiv 2510.27321 v2, MIMIC-IV, 170,777 ECGs, extended static columns):
macro AUROC .932, AUPRC .670. Learning rates are the paper's for core columns.
"""

from __future__ import annotations

from configs import common
from medm2t_jax.experiment import Config


def get_config(variant: str | None = None, task: str = 'cvd') -> Config:
  """Returns the locked experiment; `variant` as in `configs.common`."""
  recipe = {
    'static': common.stage(128, 5e-4),
    'labs': common.stage(128, 5e-5),
    'ecg_signal': common.stage(128, 5e-3),
    'ecg_features': common.stage(128, 1e-4),
    'ecg_text': common.stage(128, 5e-5),
    'ecg_fusion': common.stage(128, 5e-5, optimizer='sgd', starts_from=common.ECG_VIEWS),
    'ecg': common.stage(32, 5e-5, starts_from=('ecg_fusion',)),
    'multimodal': common.stage(32, 1e-6, starts_from=('static', 'labs', 'ecg')),
  }
  config = common.base(task, recipe)
  config.model.windows = {
    'labs': ('percentiles', (5.0, 10.0, 20.0, 40.0, 80.0)),
    'ecg': ('percentiles', (20.0, 40.0, 60.0, 80.0)),
  }
  config.data.buckets = tuple({'labs': length} for length in (64, 256, 1024))
  return common.apply_variants(
    config, variant, small_rate=5e-4, small_overrides=common.FROZEN_ENCODERS
  )
