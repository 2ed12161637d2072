"""What a baseline is fitted on and predicts, read once and shared by all of them."""

from __future__ import annotations

import functools

import numpy as np

from data_pipeline.dataset import Split
from data_pipeline.schema import Schema, Target
from medm2t_jax.baselines import reading
from medm2t_jax.baselines.summary_statistics import Table, summarise
from medm2t_jax.baselines.windows import windowed
from medm2t_jax.fold import Fold

SPLITS: tuple[Split, ...] = ('train', 'validation', 'test')


class Inputs:
  """The three splits of a fold, as tables; read when first asked for.

  Baselines fit on 'train', choose on 'validation' and predict 'test'. The tables are in
  memory: four bytes a sample and column, or a sample, window and level.
  """

  def __init__(self, fold: Fold):
    self._fold = fold

  @property
  def schema(self) -> Schema:
    return self._fold.dataset.schema

  @property
  def target(self) -> Target:
    return self.schema.target

  @property
  def seed(self) -> tuple[int, int]:
    """Of all that is random in a baseline."""
    return self._fold.config.seed, self._fold.index

  @functools.cached_property
  def summaries(self) -> dict[Split, Table]:
    """Summary statistics of each split."""
    return {
      split: summarise(reading.batches(self._fold, split), self.schema) for split in SPLITS
    }

  @functools.cached_property
  def windows(self) -> dict[Split, np.ndarray]:
    """Windowed means of each split, float32 (n t l), in the order of `summaries`."""
    return {
      split: windowed(reading.batches(self._fold, split), self.schema) for split in SPLITS
    }
