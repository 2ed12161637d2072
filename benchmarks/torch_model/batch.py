"""A batch of ours as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.model_workload import Batch


def for_torch(made: Batch) -> dict[str, Any]:
  """The same batch as tensors; a row without a recording has a placeholder."""
  ecg = made['ecg']
  real = ecg['mask']
  owner = ecg['owner'][real]
  absent = np.setdiff1d(np.arange(len(made['label'])), owner).astype(np.int32)
  with_placeholders: Batch = {
    name: np.concatenate(
      [array[real], np.zeros((len(absent), *array.shape[1:]), array.dtype)]
    )
    for name, array in ecg.items()
  }
  with_placeholders['owner'] = np.concatenate([owner, absent])
  with_placeholders['gain'][len(owner) :] = 1
  with_placeholders['real'] = with_placeholders.pop('mask')
  return _tensors({**made, 'ecg': with_placeholders})


def _tensors(tree: Batch) -> dict[str, Any]:
  return {
    name: _tensors(value) if isinstance(value, dict) else torch.from_numpy(value)
    for name, value in tree.items()
  }
