"""One row of columns a sample, those that the ensemble trunk reads.

`medm2t_jax.models.trunk.columns` says which there are. NaN where there is nothing to
summarise; nothing is fitted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import jax
import numpy as np

from data_pipeline.format.schema import ECG_MEASUREMENTS, Item, Schema
from medm2t_jax.baselines.reading import Batch
from medm2t_jax.experiment.model_config import column_kinds
from medm2t_jax.models.trunk import columns
from medm2t_jax.models.trunk.column_statistics import STATISTICS


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """Columns of n samples.

  Attributes:
    row: rows of the data set's index, ascending, int64 (n).
    label: float64 (n), or (n l) of a multilabel target.
    value: float32 (n columns), NaN where missing.
    names: of the columns: 'modality/itemid/statistic' and the like.
  """

  row: np.ndarray
  label: np.ndarray
  value: np.ndarray
  names: tuple[str, ...]

  def of_modalities(self, modalities: Sequence[str]) -> np.ndarray:
    """The columns of some modalities, float32 (n some)."""
    wanted = [name.split('/')[0] in modalities for name in self.names]
    return self.value[:, wanted]


def summarise(batches: Iterable[Batch], schema: Schema) -> Table:
  """The table of all samples of some batches (`reading.batches`)."""
  kinds = tuple(column_kinds(schema).items())
  rows, labels, values = [], [], []
  for batch in batches:
    of_device = jax.tree.map(lambda array: array[np.newaxis], dict(batch))
    valid = batch['row'] >= 0
    rows.append(batch['row'][valid].astype(np.int64))
    labels.append(batch['label'][valid].astype(np.float64))
    values.append(np.asarray(columns.table(kinds, of_device))[valid])
  row = np.concatenate(rows)
  order = np.argsort(row)
  return Table(
    row[order],
    np.concatenate(labels)[order],
    np.concatenate(values)[order],
    column_names(schema),
  )


def joined(tables: Sequence[Table]) -> Table:
  """The samples of several tables with the same columns, in the order of the index."""
  row, label, value = (
    np.concatenate([getattr(table, name) for table in tables])
    for name in ('row', 'label', 'value')
  )
  order = np.argsort(row)
  return Table(row[order], label[order], value[order], tables[0].names)


def column_names(schema: Schema) -> tuple[str, ...]:
  """Names of the columns of all modalities, in model order."""
  names: list[str] = []
  if 'static' in schema.modalities:
    names += [f'static/{item.itemid}' for item in schema.static_numeric]
    for item in schema.static_categorical:
      names += [f'static/{item.itemid}={category}' for category in item.categories]
  for name, items in schema.events.items():
    names += _of_events(name, items)
  for name, grid in schema.grids.items():
    each = (*STATISTICS, 'spread')
    names += [f'{name}/{item.itemid}/{key}' for item in grid.items for key in each]
  if 'ecg' in schema.modalities:
    names += [
      f'ecg/{measurement}/{key}'
      for measurement in ECG_MEASUREMENTS
      for key in columns.OF_MEASUREMENTS
    ]
    names += [f'ecg/{term}/ever' for term in schema.ecg_terms]
    names += ['ecg/recordings', 'ecg/hours_since_last']
  return tuple(names)


def _of_events(modality: str, items: Sequence[Item]) -> list[str]:
  names = [
    f'{modality}/{item.itemid}/{key}'
    for item in items
    if not item.categories
    for key in STATISTICS
  ]
  for item in items:
    for category in item.categories:
      names += [f'{modality}/{item.itemid}={category}/{key}' for key in ('last', 'count')]
    if item.categories:
      names.append(f'{modality}/{item.itemid}/hours_since_last')
  return names
