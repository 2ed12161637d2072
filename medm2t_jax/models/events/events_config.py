"""Sizes and options of the encoder of irregular events."""

from __future__ import annotations

import dataclasses

import numpy as np

from medm2t_jax.models.hierarchical_fusion import HierarchyConfig
from medm2t_jax.models.options import (
  Accumulation,
  Pooling,
  Sequence,
  ValueEncoding,
)

NUM_BINS = 11  # between the 5, 15, ..., 95 percentiles of an item


@dataclasses.dataclass(frozen=True)
class EventsConfig:
  """Sizes and options of one event modality.

  Attributes:
    categories: number of categories per item, 0 for a numeric item.
    windows: number of time windows.
    width: of embeddings, recurrent outputs and the summary.
    dropout: of the MLP.
    value_encoding: 'bins' (one-hot) or 'piecewise_linear' (quantile thermometer,
      centred at the item's mean).
    pooling: mean over all 'tokens', or 'statistics' of each item (`event_statistics`;
      piecewise-linear values, accumulation 'mean').
    accumulation: a window sees the mean of all tokens so far ('mean'), or only its own
      ('none').
    sequence: a bidirectional 'lstm', or 'mean_last': the mean of all windows since the
      first event, concatenated with the last window, or 'hierarchical': `hierarchy`.
    hierarchy: sizes of the fusion that reads the windows, with sequence 'hierarchical'.
    input_dropout: of the statistics of an item in all windows, with 'statistics'.
    window_dropout: of the windows' vectors, with 'statistics'.
    decoder: hidden width of the stage's decoder.
    decoder_dropout: its rate.
  """

  categories: tuple[int, ...]
  windows: int
  width: int
  dropout: float
  value_encoding: ValueEncoding
  pooling: Pooling
  accumulation: Accumulation
  sequence: Sequence
  hierarchy: HierarchyConfig | None
  input_dropout: float
  window_dropout: float
  decoder: int
  decoder_dropout: float

  @property
  def item_sizes(self) -> np.ndarray:
    """Value ids per item."""
    return np.array([count or NUM_BINS for count in self.categories], np.int32)

  @property
  def first_ids(self) -> np.ndarray:
    """First value id of each item; the last entry is the id of 'none', (items + 1,)."""
    return np.concatenate([[0], np.cumsum(self.item_sizes)]).astype(np.int32)

  @property
  def item_of_id(self) -> np.ndarray:
    """Item of each value id; 'none' belongs to item `items`, (value ids + 1,)."""
    items = len(self.categories)
    sizes = [*self.item_sizes, 1]
    return np.repeat(np.arange(items + 1), sizes).astype(np.int32)
