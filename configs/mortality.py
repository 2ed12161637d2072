"""In-hospital mortality from the first 24 h of the first ICU stay (paper Task 2).

  python -m medm2t_jax.main --config=configs/mortality.py
  python -m medm2t_jax.main --config=configs/mortality.py:small   # two CPU cores
  python -m medm2t_jax.main --config=configs/mortality.py:smoke   # under two minutes

Published (arXiv 2510.27321 v2, MIMIC-IV, 40,167 stays): AUROC .868, AUPRC .470.
"""

from __future__ import annotations

from configs import common, icu
from medm2t_jax.experiment import Config


def get_config(variant: str | None = None) -> Config:
  """Returns the locked experiment; `variant` as in `configs.common`."""
  weighted = common.WEIGHTED_DEATHS
  recipe = {
    'static': common.stage(128, 5e-4),
    'labs': common.stage(128, 2.5e-3),
    'vitals_segments': common.stage(8, 1e-3, **weighted),
    'vitals_segments_12': common.stage(8, 2.5e-3, **weighted),
    'vitals_segments_24': common.stage(8, 1e-3, **weighted),
    'vitals': common.stage(128, 1e-3, starts_from=icu.SEGMENT_STAGES, **weighted),
    'vitals_categorical': common.stage(128, 5e-4, **weighted),
    # Modalities of --extra: medications, urine_output, ventilation.
    'events': common.stage(128, 5e-4, **weighted),
    'ecg_signal': common.stage(128, 1e-3, **weighted),
    'ecg_features': common.stage(128, 1e-3, **weighted),
    'ecg_text': common.stage(128, 5e-4, **weighted),
    'ecg_fusion': common.stage(128, 1e-3, starts_from=common.ECG_VIEWS),
    'ecg': common.stage(32, 1e-5, starts_from=('ecg_fusion',), **weighted),
    'multimodal': common.stage(32, 5e-5, starts_from=icu.MODALITIES),
  }
  config = icu.with_icu_windows(common.base('mortality', recipe))
  return common.apply_variants(
    config, variant, small_rate=1e-3, small_overrides=common.FROZEN_ENCODERS
  )
