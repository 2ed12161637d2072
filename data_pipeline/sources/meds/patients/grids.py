"""Makes grids of patients, equal to those of `rows.write_grid` for samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.format.modalities import Grid
from data_pipeline.sources.meds import variables
from data_pipeline.sources.meds.patients.events import DUPLICATE
from data_pipeline.sources.meds.patients.items import variables_of
from data_pipeline.sources.meds.patients.rows import RowsOfBook, Tally

_BEFORE = 'dropped: before the first cell'


class Part:
  """A grid of a model.

  Attributes:
    modality: of the model.
    variables: of its signals.
    history: whether rows before the observation window count.
  """

  history = False

  def __init__(self, name: str, modality: Grid, entry: variables.Grid | None):
    mapped = entry.variables if entry else ()
    self.modality = modality
    self.variables = variables_of(name, modality.items, mapped, None)
    self._name = name
    self._cell = round(modality.step_hours * 3.6e9)  # microseconds

  def staged(
    self, own: RowsOfBook, prediction_time: np.ndarray, static: Any, tally: Tally
  ) -> pa.Table:
    """The staged rows of all patients, in order: the mean of the values of a cell."""
    del static
    row, values = own.values(self._name, tally)
    rows = own.rows
    patient, time, code = rows.patient[row], rows.time[row], rows.place[row]
    # As in `rows.write_grid`: equal rows of one code count once; values are added in order.
    order = np.lexsort((code, time, values.value, values.item, patient))
    patient, item, value, time, code = (
      each[order] for each in (patient, values.item, values.value, time, code)
    )
    same = np.zeros(len(order), bool)
    same[1:] = np.logical_and.reduce(
      [each[1:] == each[:-1] for each in (patient, item, value, time, code)]
    )
    steps = self.modality.steps
    start = prediction_time[patient] - self._cell * steps
    early = time < start
    for each in np.flatnonzero(same | early):
      reason = DUPLICATE if same[each] else _BEFORE
      tally.add(int(patient[each]), self._name, rows.bare(code[each]), reason)
    keep = ~(same | early)
    tally.use(patient[keep])
    # Values at the prediction time itself belong to the last cell.
    step = np.minimum((time - start) // self._cell, steps - 1)
    patient, step, item, value = (each[keep] for each in (patient, step, item, value))
    cells, cell = np.unique(
      np.stack([patient, step, item.astype(np.int64)]), axis=1, return_inverse=True
    )
    cell = cell.reshape(-1)
    count = np.bincount(cell, minlength=cells.shape[1])
    # Added one by one, as in DuckDB's mean of a list.
    by_value = np.lexsort((value, cell))
    total = np.bincount(cell[by_value], value[by_value], minlength=cells.shape[1])
    mean = total / np.maximum(count, 1)
    return pa.table(
      {
        'position': cells[0],
        'step': cells[1].astype(np.int32),
        'signal': cells[2].astype(np.int32),
        'value': mean.astype(np.float32),
      }
    )
