"""Reads rows of a data set as batches, for the devices of all processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from data_pipeline.format.dataset import Dataset
from data_pipeline.reading import input_pipeline, planning
from data_pipeline.reading.batching import Batching

Batch = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Reader:
  """Plans passes over rows of a data set, and reads them.

  Attributes:
    dataset: the prepared data set.
    batching: capacities of a batch.
    change: applied to every batch that is read; None for no change.
  """

  dataset: Dataset
  batching: Batching
  change: Callable[[Batch], Batch] | None = None

  def plan(
    self,
    rows: np.ndarray,
    modalities: tuple[str, ...],
    batch_size: int,
    *,
    require: str | None = None,
    shuffle: tuple[int, int] | None = None,
    devices: int | None = None,
  ) -> planning.Plan:
    """Plans one pass.

    Args:
      rows: of the index, int64 (n,).
      modalities: to include in the batches.
      batch_size: samples per step over all devices, rounded up until these divide it.
      require: only use samples that have this modality.
      shuffle: seeds of the order; None keeps the order of the index.
      devices: for work that one process does alone; by default all devices.
    """
    devices = devices or jax.device_count()
    return planning.plan_epoch(
      self.dataset,
      rows,
      modalities=modalities,
      batching=self.batching,
      batch_rows=planning.rows_each(batch_size, devices),
      devices=devices,
      require=require,
      shuffle=shuffle,
    )

  def read(
    self, plan: planning.Plan, modalities: tuple[str, ...], start_step: int = 0
  ) -> Iterator[Batch]:
    """This process's share of the steps of a plan, from `start_step` on."""
    return self._batches(
      plan,
      modalities,
      start_step=start_step,
      host=jax.process_index(),
      hosts=jax.process_count(),
    )

  def read_here(
    self, plan: planning.Plan, modalities: tuple[str, ...], *, signals: bool = True
  ) -> Iterator[Batch]:
    """All steps of a plan, for work that one process does alone.

    Args:
      plan: from `plan`.
      modalities: to read.
      signals: whether to include ECG signals.
    """
    return self._batches(plan, modalities, signals=signals)

  def _batches(
    self, plan: planning.Plan, modalities: tuple[str, ...], **options: Any
  ) -> Iterator[Batch]:
    batches = input_pipeline.batches(
      self.dataset, plan, modalities=modalities, batching=self.batching, **options
    )
    return batches if self.change is None else map(self.change, batches)
