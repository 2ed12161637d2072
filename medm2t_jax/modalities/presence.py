"""Which variables of a data set a sample has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from data_pipeline.format.schema import Schema

Batch = Mapping[str, Any]


def found(batch: Batch, schema: Schema) -> Iterator[tuple[str, np.ndarray]]:
  """Modality, and which of its variables each valid row has: bool (rows, variables).

  A row has a term of ECG reports if a report of it says so.

  Args:
    batch: with a leading device axis, in the terms of `schema`.
    schema: of a model or a data set.
  """
  valid = batch['row'] >= 0
  for name in schema.modalities:
    arrays, count = batch[name], len(schema.variables(name))
    if name == 'static':
      has = np.concatenate([arrays['numeric_mask'], arrays['categorical'] >= 0], axis=-1)
    elif name == 'ecg':
      has = np.zeros((*valid.shape, count), bool)
      measured = arrays['measurements_mask'] & arrays['mask'][..., np.newaxis]
      reported = (arrays['terms'] > 0) & arrays['mask'][..., np.newaxis]
      each = np.concatenate([measured, reported], axis=-1)
      device = np.arange(len(valid))[:, np.newaxis]
      np.logical_or.at(has, (device, arrays['owner']), each)
    elif name in schema.grids:
      has = arrays['observed'].any(axis=2)
    else:
      has = np.zeros((*valid.shape, count), bool)
      device, row, event = np.nonzero(arrays['mask'])
      has[device, row, arrays['item'][device, row, event]] = True
    yield name, has[valid]
