"""The inputs of the baselines, read once and shared by all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from data_pipeline.format.dataset import Split
from data_pipeline.format.schema import Schema, Target
from medm2t_jax.baselines import reading
from medm2t_jax.baselines.choosing import Fitted
from medm2t_jax.baselines.summary_statistics import Table, summarise
from medm2t_jax.baselines.windows import windowed
from medm2t_jax.modalities import Modality
from medm2t_jax.runs.run import Run

SPLITS: tuple[Split, ...] = ('train', 'validation', 'test')


class Inputs:
  """The three splits of a fold, as tables that are read on first use.

  Baselines fit on 'train', choose on 'validation', fit again on both with `refit`, and
  predict 'test'. The tables are in memory: four bytes per sample and column, or per sample,
  window and level.
  """

  def __init__(self, fold: Run):
    self._fold = fold
    self._fitted: dict[str, Fitted] = {}

  @property
  def schema(self) -> Schema:
    """The schema of the fold's data set."""
    return self._fold.dataset.schema

  @property
  def modalities(self) -> tuple[Modality, ...]:
    """Modalities of the fold's model."""
    return self._fold.model_config.modalities

  @property
  def target(self) -> Target:
    """What the label means."""
    return self.schema.target

  @property
  def seed(self) -> tuple[int, int]:
    """Seed of everything random in a baseline."""
    return self._fold.config.seed, self._fold.fold

  @property
  def refit(self) -> bool:
    """Whether the predictor of test samples is also fitted on validation samples."""
    return self._fold.config.refit

  def fitted(self, name: str, fit: Callable[[Inputs], Fitted]) -> Fitted:
    """The fit of the baseline `name` to these inputs, made once."""
    if name not in self._fitted:
      self._fitted[name] = fit(self)
    return self._fitted[name]

  @functools.cached_property
  def summaries(self) -> dict[Split, Table]:
    """Summary statistics of each split."""
    return {
      split: summarise(reading.batches(self._fold, split), self.modalities)
      for split in SPLITS
    }

  @functools.cached_property
  def windows(self) -> dict[Split, np.ndarray]:
    """Windowed means of each split, float32 (n t l), in the order of `summaries`."""
    return {
      split: windowed(
        reading.batches(self._fold, split), self.modalities, self.schema.observation_hours
      )
      for split in SPLITS
    }
