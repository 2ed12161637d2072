"""Makes events of patients, equal to those of `rows.write_events` for samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.format.modalities import Events
from data_pipeline.sources.meds import variables
from data_pipeline.sources.meds.patients.items import variables_of
from data_pipeline.sources.meds.patients.rows import RowsOfBook, Tally

DUPLICATE = 'dropped: duplicate'


class Part:
  """An event modality of a model.

  Attributes:
    modality: of the model.
    variables: of its items.
    history: whether rows before the observation window count.
  """

  history = False

  def __init__(self, name: str, modality: Events, entry: variables.Events):
    self.modality = modality
    self.variables = variables_of(name, modality.items, entry.variables, entry.automatic)
    self._name = name

  def staged(
    self, own: RowsOfBook, prediction_time: np.ndarray, static: Any, tally: Tally
  ) -> pa.Table:
    """The staged rows of all patients, in order."""
    del static
    row, values = own.values(self._name, tally)
    rows = own.rows
    return staged_events(
      self._name, rows.patient[row], rows.time[row], values.item, values.value,
      values.category, prediction_time, tally,
      lambda each: rows.bare(rows.place[row[each]]),
    )  # fmt: skip


def staged_events(
  name: str,
  patient: np.ndarray,
  time: np.ndarray,
  item: np.ndarray,
  value: np.ndarray,
  category: np.ndarray,
  prediction_time: np.ndarray,
  tally: Tally,
  code: Callable[[int], str],
) -> pa.Table:
  """Distinct events as in `events_{name}.parquet`; duplicates are counted.

  Args:
    name: of the modality.
    patient: int64 (n,).
    time: microseconds since 1970, int64 (n,).
    item: int32 (n,).
    value: float64 (n,), NaN for a category.
    category: int32 (n,), -1 for a number.
    prediction_time: of each patient, microseconds.
    tally: counts used events and duplicates.
    code: of an event by its index among these, for the tally.
  """
  # As in `rows.write_events`, compared before rounding to 32 bits.
  order = np.lexsort((value, category, item, time, patient))
  columns = [each[order] for each in (patient, time, item, category, value)]
  same = np.zeros(len(order), bool)
  if len(order):
    with_nan = [each[1:] == each[:-1] for each in columns[:-1]]
    numbers = columns[-1]
    equal = (numbers[1:] == numbers[:-1]) | (np.isnan(numbers[1:]) & np.isnan(numbers[:-1]))
    same[1:] = np.logical_and.reduce([*with_nan, equal])
  for each in np.flatnonzero(same):
    tally.add(int(columns[0][each]), name, code(order[each]), DUPLICATE)
  patient, time, item, category, value = (each[~same] for each in columns)
  tally.use(patient)
  hours = ((time - prediction_time[patient]) / 3.6e9).astype(np.float32)
  value = value.astype(np.float32)
  # The order of `Events.table`, applied to the stored values.
  order = np.lexsort((value, category, item, hours, patient))
  return pa.table(
    {
      'position': patient[order],
      'item': item[order],
      'value': value[order],
      'category': category[order],
      'time': hours[order],
    }
  )
