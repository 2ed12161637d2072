"""The events of patients: which codes a modality reads, and which rows are in time."""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.sources.meds.codes import UNIT_SEPARATOR, Reading, TwoItems, readings
from data_pipeline.sources.meds.interpretation import Interpreter, Values
from data_pipeline.sources.meds.variables import Variable

NO_TIME = 'dropped: missing time'
BEFORE = 'dropped: before the observation window'
AFTER = 'dropped: after the prediction time'

_CODES_KEPT = 1 << 13  # whose reading a code book remembers


class Tally:
  """What was used of each patient, and what was not, with the reason."""

  def __init__(self, patients: int):
    self._used = np.zeros(patients, np.int64)
    self._lost: list[collections.Counter[tuple[str, str, str]]] = [
      collections.Counter() for _ in range(patients)
    ]

  def use(self, patient: np.ndarray) -> None:
    """Counts events that were used, one for each entry."""
    self._used += np.bincount(patient, minlength=len(self._used))

  def add(self, patient: int, modality: str, code: str, reason: str) -> None:
    """Counts one event, value or recording."""
    self._lost[patient][modality, code, reason] += 1

  def of_patient(self, patient: int) -> dict[str, Any]:
    """`used` and `entries` of `Read.coverage`."""
    entries = [
      {'modality': modality, 'code': code, 'reason': reason, 'events': count}
      for (modality, code, reason), count in sorted(self._lost[patient].items())
    ]
    return {'used': int(self._used[patient]), 'entries': entries}


class CodeBook:
  """Which items of one modality a code is read by; remembers the codes that it has met.

  Several threads may ask it.
  """

  def __init__(self, modality: str, variables: Sequence[Variable], two_items: TwoItems):
    """`two_items` of one code: as `codes.readings`."""
    self._variables = variables
    self._two_items: TwoItems = two_items
    self._modality = modality
    self._known: dict[str, tuple[Reading, ...]] = {}
    self._interpreter = Interpreter(variables, ())
    self._lock = threading.Lock()

  def read(self, codes: Sequence[str]) -> tuple[tuple[Reading, ...], Interpreter]:
    """How the codes are read that an item has, and what reads their rows.

    Raises:
      DataError: two items claim one code, and that is refused.
    """
    with self._lock:
      new = [code for code in codes if code not in self._known]
      if new:
        if len(self._known) + len(new) > _CODES_KEPT:
          self._known, new = {}, [*codes]
        self._add(new)
      return tuple(one for code in codes for one in self._known[code]), self._interpreter

  def _add(self, new: Sequence[str]) -> None:
    of: dict[str, list[Reading]] = {code: [] for code in new}
    found = readings(self._modality, self._variables, new, two_items=self._two_items)
    for one in found:
      of[one.code].append(one)
    self._known |= {code: tuple(its_own) for code, its_own in of.items()}
    if found:
      every = [one for its_own in self._known.values() for one in its_own]
      self._interpreter = Interpreter(self._variables, every)


class Rows:
  """The events of all patients. Letter: n events.

  Attributes:
    patient: int64 (n,).
    time: microseconds since 1970, int64 (n,); 0 where there is none.
    code: of each, with its unit behind `UNIT_SEPARATOR` where one was given.
    number: float64 (n,), NaN where there is none.
    text: of each, object (n,), None where there is none or where there is a number.
    reason: why no modality but a static one can use it, object (n,), '' where one can.
  """

  def __init__(self, events: pa.Table, prediction_time: np.ndarray, window: int | None):
    """`window` in microseconds, None for the whole history."""
    self.patient = events['patient'].to_numpy()
    times = events['time'].combine_chunks()
    self.has_time = np.asarray(times.is_valid())
    self.time = times.cast(pa.int64()).fill_null(0).to_numpy()
    code, unit = events['code'], events['unit']
    if unit.null_count < len(unit):
      suffixed = pc.call_function(
        'binary_join_element_wise', [code, unit, pa.scalar(UNIT_SEPARATOR)]
      )
      code = pc.call_function('coalesce', [suffixed, code])
    coded = code.combine_chunks().dictionary_encode()
    self.distinct: list[str] = coded.dictionary.to_pylist()
    self.place = coded.indices.to_numpy()
    self.number = charted_numbers(events['numeric_value'])
    self.text = np.full(len(self), None, object)
    missing = np.flatnonzero(np.isnan(self.number))
    for row, said in zip(
      missing, events['text_value'].take(missing).to_pylist(), strict=True
    ):
      self.text[row] = None if said is None else said.strip() or None
    before = np.zeros(len(self), bool)
    if window is not None:
      before = self.time < prediction_time[self.patient] - window
    self.after = self.has_time & (self.time > prediction_time[self.patient])
    self.reason = np.full(len(self), '', object)
    self.reason[before] = BEFORE
    self.reason[~self.has_time] = NO_TIME
    self.reason[self.after] = AFTER

  def __len__(self) -> int:
    return len(self.patient)

  def of_book(self, book: CodeBook, *, history: bool) -> RowsOfBook:
    """The rows that a code book reads.

    Args:
      book: of one modality.
      history: everything up to the prediction time, with what has no time; else the
        observation window alone.
    """
    found, interpreter = book.read(self.distinct)
    read = {one.code for one in found}
    reads = np.array([code in read for code in self.distinct], bool)
    known = reads[self.place]
    lost = self.after if history else self.reason != ''
    return RowsOfBook(self, known, np.flatnonzero(known & ~lost), lost, found, interpreter)

  def bare(self, place: int) -> str:
    """The code of an entry of `distinct` as it was given."""
    return self.distinct[place].partition(UNIT_SEPARATOR)[0]

  def count_unknown(self, known: np.ndarray, reason: str, tally: Tally) -> None:
    """Counts the rows that no modality reads."""
    for row in np.flatnonzero(~known):
      tally.add(int(self.patient[row]), '', self.bare(self.place[row]), reason)


@dataclasses.dataclass(frozen=True)
class RowsOfBook:
  """The rows of one modality.

  Attributes:
    rows: all of them.
    known: bool (n,): of this modality.
    kept: the places of those that are in time.
    lost: bool (n,): which are not.
    readings: of their codes.
    interpreter: that reads them.
  """

  rows: Rows
  known: np.ndarray
  kept: np.ndarray
  lost: np.ndarray
  readings: tuple[Reading, ...]
  interpreter: Interpreter

  def of_codes(self, codes: Collection[str]) -> np.ndarray:
    """Which of the kept rows have one of some codes, bool (k,)."""
    has = np.array([code in codes for code in self.rows.distinct], bool)
    return has[self.rows.place[self.kept]]

  def count_lost(self, modality: str, tally: Tally) -> None:
    """Counts the rows that are not in time."""
    rows = self.rows
    for row in np.flatnonzero(self.known & self.lost):
      tally.add(
        int(rows.patient[row]), modality, rows.bare(rows.place[row]), rows.reason[row]
      )

  def values(self, modality: str, tally: Tally) -> tuple[np.ndarray, Values]:
    """What the rows say: the place of the row of each usable value, and the values.

    Counts what is dropped and what is repaired.
    """
    rows = self.rows
    kept = self.kept
    values = self.interpreter(
      rows.distinct, rows.place[kept], rows.number[kept], rows.text[kept]
    )
    of_row = self.kept[values.row]
    said = np.where(values.reason == '', values.repair, values.reason)
    for each in np.flatnonzero(said != ''):
      row = of_row[each]
      tally.add(int(rows.patient[row]), modality, rows.bare(rows.place[row]), said[each])
    usable = values.reason == ''
    fields = {
      field.name: getattr(values, field.name)[usable]
      for field in dataclasses.fields(values)
    }
    return of_row[usable], Values(**fields)


def charted_numbers(column: pa.ChunkedArray) -> np.ndarray:
  """The numbers that were charted: the shortest decimals of 32-bit floats, float64 (n,).

  NaN where there is none, or no finite one.
  """
  numbers = column.cast(pa.float32()).to_numpy().astype(np.float32)
  charted = numbers.astype('U32').astype(np.float64)
  return np.where(np.isfinite(charted), charted, np.nan)
