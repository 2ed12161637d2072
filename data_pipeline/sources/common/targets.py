"""Targets of tasks that several sources have."""

from __future__ import annotations

from data_pipeline.format.schema import Target

MORTALITY = Target(
  'binary', ('survived', 'died'), description='death in hospital', horizon='until discharge'
)
LOS = Target(
  'regression',
  unit='days',
  low=0.0,
  description='length of the ICU stay',
  horizon='until the end of the ICU stay',
)
CVD = Target(
  'multiclass',
  ('non_CVD', 'CHD', 'stroke', 'HF'),
  description='cardiovascular disease as the reason for the next admission',
  horizon='90 days after the ECG',
)
# For all ECGs: patients who are not admitted form a separate class.
CVD_ALL = Target(
  'multiclass', (*CVD.classes, 'no_admission'),
  description='the next admission and its reason', horizon=CVD.horizon,
)  # fmt: skip
