"""Makes static values of patients, equal to those of `static.write_static`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from data_pipeline.format.modalities import Static
from data_pipeline.format.schema import Item
from data_pipeline.sources.meds import variables
from data_pipeline.sources.meds.patients.items import variables_of
from data_pipeline.sources.meds.patients.rows import RowsOfBook, Tally
from data_pipeline.sources.meds.static import MICROSECONDS_A_YEAR, OLDEST

_REPLACED = 'ignored: a later value is known'
_UNKNOWN = 'ignored: the model has no such static column'
_OUTSIDE = 'dropped: outside its limits'
_UNLISTED = 'dropped: unlisted category'
_NOT_ITS_KIND = 'dropped: not a number'
_TOO_OLD = f'repaired: age above {OLDEST:g} is missing'


class Part:
  """The static columns of a model.

  Attributes:
    modality: of the model.
    variables: of its columns.
    history: whether rows before the observation window count.
  """

  history = True

  def __init__(self, name: str, modality: Static, mapping: variables.Mapping | None):
    self.modality = modality
    self._name = name
    self.variables = variables_of(
      name, modality.variables, mapping.static if mapping else (), None
    )
    self._birth = mapping.birth if mapping else None
    ids = [item.itemid for item in modality.numeric]
    self._age = ids.index(mapping.age) if mapping and mapping.age in ids else -1
    self._place = {item.itemid: place for place, item in enumerate(modality.variables)}
    if self._birth and self._age >= 0:
      age = self.variables[self._age]
      birth = variables.Codes(re.compile(re.escape(self._birth)))
      aged = dataclasses.replace(age, codes=(birth, *age.codes))
      before, after = self.variables[: self._age], self.variables[self._age + 1 :]
      self.variables = (*before, aged, *after)

  def staged(
    self,
    own: RowsOfBook,
    prediction_time: np.ndarray,
    static: Sequence[Mapping[str, float | str]],
    tally: Tally,
  ) -> pa.Table:
    """The staged row of each patient. Values given as static ones take precedence."""
    count = len(prediction_time)
    found: list[dict[int, float | str]] = [{} for _ in range(count)]
    is_birth = own.of_codes(() if self._birth is None else (self._birth,))
    self._find_ages(own, own.kept[is_birth], prediction_time, found, tally)
    rest = dataclasses.replace(own, kept=own.kept[~is_birth])
    self._find_last(rest, found, tally)
    for patient, given in enumerate(static):
      for code, value in given.items():
        self._take(patient, code, value, found[patient], tally)
    columns: dict[str, pa.Array] = {'position': pa.array(range(count), pa.int64())}
    for place, item in enumerate(self.modality.variables):
      kind = pa.float64() if item.kind == 'numeric' else pa.string()
      columns[item.itemid] = pa.array([of.get(place) for of in found], kind)
    return pa.table(columns)

  def _find_ages(
    self,
    own: RowsOfBook,
    births: np.ndarray,
    prediction_time: np.ndarray,
    found: Sequence[dict[int, float | str]],
    tally: Tally,
  ) -> None:
    rows = own.rows
    births = births[rows.has_time[births]]
    for row in births[
      np.argsort(-rows.time[births], kind='stable')
    ]:  # the first row is used
      patient = int(rows.patient[row])
      years = float(prediction_time[patient] - rows.time[row]) / MICROSECONDS_A_YEAR
      if years > OLDEST:
        tally.add(patient, self._name, str(self._birth), _TOO_OLD)
        found[patient].pop(self._age, None)
      else:
        found[patient][self._age] = years
    tally.use(rows.patient[births])

  def _find_last(
    self, own: RowsOfBook, found: Sequence[dict[int, float | str]], tally: Tally
  ) -> None:
    row, values = own.values(self._name, tally)
    rows = own.rows
    ago = np.where(rows.has_time[row], -rows.time[row], np.iinfo(np.int64).max)
    patient = rows.patient[row]
    order = np.lexsort((values.category, values.value, ago, values.item, patient))
    before = (-1, -1)
    for each in order:
      key = int(patient[each]), int(values.item[each])
      if key == before:
        code = rows.bare(rows.place[row[each]])
        tally.add(key[0], self._name, code, _REPLACED)
        continue
      before = key
      category = int(values.category[each])
      item = self.modality.variables[key[1]]
      said = item.categories[category] if category >= 0 else float(values.value[each])
      found[key[0]][key[1]] = said
      tally.use(patient[each : each + 1])

  def _take(
    self,
    patient: int,
    code: str,
    value: float | str,
    found: dict[int, float | str],
    tally: Tally,
  ) -> None:
    """Takes a value given by the column's own code, or counts the reason why not."""
    place = self._place.get(code)
    if place is None:
      tally.add(patient, self._name, code, _UNKNOWN)
      return
    item = self.modality.variables[place]
    if item.kind == 'categorical':
      if value in item.categories:
        found[place] = value
      else:
        tally.add(patient, self._name, code, _UNLISTED)
    elif isinstance(value, str):
      tally.add(patient, self._name, code, _NOT_ITS_KIND)
    elif _inside(item, value):
      found[place] = float(value)
    else:
      tally.add(patient, self._name, code, _OUTSIDE)


def _inside(item: Item, value: float) -> bool:
  low = -np.inf if item.low is None else item.low
  high = np.inf if item.high is None else item.high
  return bool(np.isfinite(value) and low <= value <= high)
