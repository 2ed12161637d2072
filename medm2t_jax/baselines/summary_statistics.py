"""Summary columns, one row per sample: those that the ensemble trunk reads.

`medm2t_jax.models.trunk.columns` defines them. NaN where there is nothing to summarise;
nothing is fitted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import jax
import numpy as np

from medm2t_jax.baselines.reading import Batch
from medm2t_jax.modalities import Modality
from medm2t_jax.models.trunk import columns


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """Columns of n samples.

  Attributes:
    row: rows of the data set's index, ascending, int64 (n).
    label: float64 (n), or (n l) for a multilabel target.
    weight: float64 (n).
    value: float32 (n columns), NaN where missing.
    names: of the columns: 'modality/itemid/statistic' or similar.
  """

  row: np.ndarray
  label: np.ndarray
  weight: np.ndarray
  value: np.ndarray
  names: tuple[str, ...]

  def of_modalities(self, modalities: Sequence[str]) -> np.ndarray:
    """The columns of some modalities, float32 (n some)."""
    wanted = [name.split('/')[0] in modalities for name in self.names]
    return self.value[:, wanted]

  @property
  def sample_weight(self) -> np.ndarray | None:
    """`weight` for scikit-learn; None if all samples have weight 1."""
    return None if (self.weight == 1).all() else self.weight


def summarise(batches: Iterable[Batch], modalities: Sequence[Modality]) -> Table:
  """The table of all samples of some batches (`reading.batches`).

  Args:
    batches: without a device axis.
    modalities: of the model; the batches have their variables.
  """
  kinds = tuple((each.name, each.columns) for each in modalities)
  rows, labels, weights, values = [], [], [], []
  for batch in batches:
    of_device = jax.tree.map(lambda array: array[np.newaxis], dict(batch))
    valid = batch['row'] >= 0
    rows.append(batch['row'][valid].astype(np.int64))
    labels.append(batch['label'][valid].astype(np.float64))
    weights.append(batch['weight'][valid].astype(np.float64))
    values.append(np.asarray(columns.table(kinds, of_device))[valid])
  row = np.concatenate(rows)
  order = np.argsort(row)
  return Table(
    row[order],
    np.concatenate(labels)[order],
    np.concatenate(weights)[order],
    np.concatenate(values)[order],
    column_names(modalities),
  )


def joined(tables: Sequence[Table]) -> Table:
  """The samples of several tables with the same columns, in the order of the index."""
  row, label, weight, value = (
    np.concatenate([getattr(table, name) for table in tables])
    for name in ('row', 'label', 'weight', 'value')
  )
  order = np.argsort(row)
  return Table(row[order], label[order], weight[order], value[order], tables[0].names)


def column_names(modalities: Sequence[Modality]) -> tuple[str, ...]:
  """Names of the columns of all modalities, in model order."""
  return tuple(f'{each.name}/{name}' for each in modalities for name in each.column_names())
