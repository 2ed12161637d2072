"""The job of `./run.sh`: in-hospital mortality of 2,000 simulated patients.

  python -m medm2t_jax.main --config=configs/first.py   # five minutes on two CPU cores

The test stays of one fold include enough deaths to give the metrics of most subgroups an
interval. It reads static columns, laboratory values and ECGs: the stages of vital signs
would take as long as all others together (`configs/mortality.py:small` has them).
"""

from __future__ import annotations

from configs import mortality
from medm2t_jax.experiment import Config


def get_config() -> Config:
  """Returns the locked experiment."""
  config = mortality.get_config('small')
  with config.unlocked():
    config.name = 'first'
    config.data.update(simulated_patients=2000, modalities=('static', 'labs', 'ecg'))
    # As many epochs as fit into about five minutes.
    config.refit = False
    for stage in ('ecg_signal', 'ecg_fusion', 'ecg'):
      config.recipe[stage].epochs = 5
    config.recipe.multimodal.epochs = 8
    config.evaluation.update(explained_globally=16, robustness_samples=60)
    config.evaluation.baselines = (
      'logistic_regression', 'boosted_trees', 'single_modalities'
    )  # fmt: skip
  return config
