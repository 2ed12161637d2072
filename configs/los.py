"""ICU length of stay in days, from the first 24 h of the first ICU stay (paper Task 3).

  python -m medm2t_jax.main --config=configs/los.py
  python -m medm2t_jax.main --config=configs/los.py:small   # two CPU cores
  python -m medm2t_jax.main --config=configs/los.py:smoke   # under two minutes

Published (arXiv 2510.27321 v2, MIMIC-IV, 40,167 stays): MAE 2.33 days.
"""

from __future__ import annotations

from configs import common, icu
from medm2t_jax.experiment import Config


def get_config(variant: str | None = None) -> Config:
  """Returns the locked experiment; `variant` as in `configs.common`."""
  recipe = {
    'static': common.stage(128, 1e-2),
    'labs': common.stage(128, 2.5e-3),
    'vitals_segments': common.stage(8, 1e-3),
    'vitals_segments_12': common.stage(8, 2.5e-3),
    'vitals_segments_24': common.stage(8, 1e-3),
    'vitals': common.stage(128, 5e-4, starts_from=icu.SEGMENT_STAGES),
    'vitals_categorical': common.stage(128, 1e-3),
    # Modalities of --extra: medications, urine_output, ventilation.
    'events': common.stage(128, 1e-3),
    'ecg_signal': common.stage(128, 5e-4),
    'ecg_features': common.stage(128, 1e-3),
    'ecg_text': common.stage(128, 1e-3),
    'ecg_fusion': common.stage(128, 5e-5, starts_from=common.ECG_VIEWS),
    'ecg': common.stage(32, 5e-4, starts_from=('ecg_fusion',)),
    'multimodal': common.stage(64, 1e-5, starts_from=icu.MODALITIES),
  }
  for fields in recipe.values():
    fields['loss'] = 'squared'
  config = icu.with_icu_windows(common.base('los', recipe))
  return common.apply_variants(
    config,
    variant,
    small_rate=1e-3,
    small_overrides={'recipe.multimodal.learning_rate': 5e-5},
    # Gives lower MAE and MSE than the squared error in days (docs/experiments.md).
    of_samples=common.ENSEMBLE_RECIPE | {'loss': 'log_squared'},
  )
