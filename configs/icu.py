"""Shared parts of the two tasks on the first 24 h of an ICU stay (paper Tasks 2 and 3).

The paper's batch of 128 segments is about five stays of 24 segments; a batch of 8
stays (192 segments) divides over the devices of one host.
"""

from __future__ import annotations

from configs import common
from medm2t_jax.experiment import Config

SEGMENT_STAGES = ('vitals_segments_*',)
MODALITIES = ('static', 'labs', 'vitals', 'vitals_categorical', 'ecg')

_QUINTILES = ('percentiles', (20.0, 40.0, 60.0, 80.0))


def with_icu_windows(config: Config) -> Config:
  """Sets the time windows and the buckets of Tasks 2 and 3."""
  config.model.windows = {
    'labs': _QUINTILES,
    'vitals_categorical': ('hours', common.hourly_cuts(24)),
    'ecg': _QUINTILES,
  }
  config.data.buckets = tuple(
    {'labs': labs, 'vitals_categorical': labs // 2} for labs in (128, 256, 512)
  )
  return config
