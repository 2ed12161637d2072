"""Reads heart rhythm and ectopy of MIMIC-IV, as `vitals.write_categorical` does.

The rows of an ectopy's type and of its frequency at the same time are one event.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.format.modalities import Events
from data_pipeline.sources.common import vitals
from data_pipeline.sources.common.items import items
from data_pipeline.sources.meds import variables
from data_pipeline.sources.meds.patients.events import DUPLICATE, staged_events
from data_pipeline.sources.meds.patients.items import variables_of
from data_pipeline.sources.meds.patients.rows import Rows, RowsOfBook, Tally

_NO_ITEM = 'ignored: the model does not know it'


class Part:
  """The modality of heart rhythm and ectopy of a model.

  Attributes:
    modality: of the model.
    variables: of its items.
    history: whether rows before the observation window count.
  """

  history = False

  def __init__(self, name: str, modality: Events, entry: variables.Events):
    self.modality = modality
    self._name = name
    own = variables_of(name, modality.items, (), None)
    # The first variable stands for all, because the item of a row depends on its text.
    charted = tuple(
      dataclasses.replace(one, itemid=str(itemid))
      for one in entry.charted
      for itemid in vitals.CATEGORICAL_ITEMIDS
    )
    first, *others = own
    self.variables = (dataclasses.replace(first, codes=(*first.codes, *charted)), *others)
    self._places = [
      self._place(item.itemid, item.categories) for item in items('vitals_categorical')
    ]

  def _place(self, itemid: str, categories: tuple[str, ...]) -> tuple[int, list[int]]:
    """Index among the model's items, and of the categories in the item; -1 if absent."""
    for place, item in enumerate(self.modality.items):
      if item.itemid == itemid:
        known = item.categories
        return place, [known.index(one) if one in known else -1 for one in categories]
    return -1, []

  def staged(
    self, own: RowsOfBook, prediction_time: np.ndarray, static: Any, tally: Tally
  ) -> pa.Table:
    """The staged rows of all patients, in order."""
    del static
    itemid_of = {one.code: int(one.itemid) for one in own.readings if one.itemid}
    rows = own.rows
    is_charted = own.of_codes(itemid_of)
    plain = dataclasses.replace(own, kept=own.kept[~is_charted])
    row, values = plain.values(self._name, tally)
    paired = self._paired(rows, own.kept[is_charted], itemid_of, tally)
    given = (rows.patient[row], rows.time[row], values.item, values.category)
    patient, time, item, category = (
      np.concatenate([of, np.array([event[place] for event in paired], of.dtype)])
      for place, of in enumerate(given)
    )

    def code(each: int) -> str:
      if each < len(row):
        return rows.bare(rows.place[row[each]])
      return paired[each - len(row)][4]

    return staged_events(
      self._name, patient, time, item, np.full(len(item), np.nan), category,
      prediction_time, tally, code,
    )  # fmt: skip

  def _paired(
    self, rows: Rows, charted: np.ndarray, itemid_of: dict[str, int], tally: Tally
  ) -> list[tuple[int, int, int, int, str]]:
    """(patient, time, item, category, code) of rhythms and ectopies."""
    read = []
    frequencies: dict[tuple[int, int, int], list[int]] = collections.defaultdict(list)
    for row in charted:
      code = rows.distinct[rows.place[row]]
      itemid, number = itemid_of[code], rows.number[row]
      said = str(rows.text[row] or ('' if np.isnan(number) else number))
      item, category, reason = vitals.read_charted(itemid, said)
      patient, time = int(rows.patient[row]), int(rows.time[row])
      if reason is not None:
        tally.add(patient, self._name, rows.bare(rows.place[row]), reason)
      if item is None and category is not None:
        frequencies[patient, time, itemid].append(category)
      elif item is not None:
        read.append((patient, time, itemid, item, category, rows.bare(rows.place[row])))
    unknown = items('vitals_categorical')[-1].categories.index(vitals.UNKNOWN)
    # Several rows of one ectopy at the same time are one event, with the highest frequency.
    ectopies: dict[tuple[int, int, int], list[int]] = {}
    found: dict[tuple[int, int, int, int], str] = {}
    codes = {}
    for patient, time, itemid, item, category, code in read:
      key = patient, time, item
      if (*key, category) in found if category is not None else key in ectopies:
        tally.add(patient, self._name, code, DUPLICATE)
      if category is not None:
        found[*key, category] = code
        continue
      pair = frequencies[patient, time, vitals.ECTOPY_PAIRS[itemid]]
      ectopies.setdefault(key, []).extend(each for each in pair if each != unknown)
      codes[key] = code
    for key, known in ectopies.items():
      found[(*key, max(known, default=unknown))] = codes[key]
    events = []
    for (patient, time, item, category), code in found.items():
      place, categories = self._places[item]
      if place < 0 or categories[category] < 0:
        tally.add(patient, self._name, code, _NO_ITEM)
        continue
      events.append((patient, time, place, categories[category], code))
    return events
