"""Damages training samples at random, as the section `robustness` damages test samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medm2t_jax.damage.curves import curves
from medm2t_jax.modalities import Modality, draws
from medm2t_jax.modalities.fitting import Statistics

Batch = Mapping[str, Any]


def augmented(
  batch: Batch,
  modalities: Sequence[Modality],
  statistics: Statistics,
  rate: float,
  seed: int,
) -> Batch:
  """Does every kind of damage to some samples, at a random level.

  What is done to a sample depends on the seed and the sample, not on its batch.

  Args:
    batch: of the training samples, with all or some of the modalities.
    modalities: of the model.
    statistics: of its training subjects.
    rate: probability of each kind of damage.
    seed: of this epoch.
  """
  for curve in curves(modalities, statistics, seed):
    if not curve.in_training or not any(name in batch for name in curve.of):
      continue
    assert curve.version is not None
    drawn = draws.uniform(batch['row'], seed, f'augment {curve.name}')
    levels = np.array([*curve.levels, 0.0])
    which = np.minimum(drawn / rate * len(curve.levels), len(curve.levels))
    level = levels[which.astype(np.int64)]
    if level.any():
      batch = curve.version(batch, level)
  return batch
