"""A batch of ours as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.model_workload import Batch


def for_torch(made: Batch, device: torch.device) -> dict[str, Any]:
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
  return _tensors({**made, 'ecg': with_placeholders}, device)


def _tensors(tree: Batch, device: torch.device) -> dict[str, Any]:
  place = lambda value: (
    _tensors(value, device)
    if isinstance(value, dict)
    else torch.from_numpy(value).to(device)
  )
  return {name: place(value) for name, value in tree.items()}
