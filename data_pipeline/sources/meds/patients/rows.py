"""Selects the events of patients: the codes of a modality, and rows inside the window."""

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

_CODES_KEPT = 1 << 13  # size of a code book's cache


class Tally:
  """Counts what was used of each patient, and what was not, with the reason."""

  def __init__(self, patients: int):
    self._used = np.zeros(patients, np.int64)
    self._lost: list[collections.Counter[tuple[str, str, str]]] = [
      collections.Counter() for _ in range(patients)
    ]

  def use(self, patient: np.ndarray) -> None:
    """Counts used events, one per entry."""
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
  """Assigns codes to items of one modality, with a cache of codes; thread-safe."""

  def __init__(self, modality: str, variables: Sequence[Variable], two_items: TwoItems):
    """Takes variables; `two_items` is that of `codes.readings`."""
    self._variables = variables
    self._two_items: TwoItems = two_items
    self._modality = modality
    self._known: dict[str, tuple[Reading, ...]] = {}
    self._interpreter = Interpreter(variables, ())
    self._lock = threading.Lock()

  def read(self, codes: Sequence[str]) -> tuple[tuple[Reading, ...], Interpreter]:
    """The readings of codes that an item has, and the interpreter of their rows.

    Raises:
      DataError: two items claim one code, and this is not allowed.
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
    time: microseconds since 1970, int64 (n,); 0 if there is none.
    code: of each event, followed by `UNIT_SEPARATOR` and its unit if one was given.
    number: float64 (n,), NaN if there is none.
    text: object (n,), None if there is none or if there is a number.
    reason: why only a static modality can use the event, object (n,), '' if any can.
  """

  def __init__(self, events: pa.Table, prediction_time: np.ndarray, window: int | None):
    """Takes the events; `window` is in microseconds, None for the whole history."""
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
    """The rows whose code is in a code book.

    Args:
      book: of one modality.
      history: include everything up to the prediction time, and rows without a time;
        otherwise only the observation window.
    """
    found, interpreter = book.read(self.distinct)
    read = {one.code for one in found}
    reads = np.array([code in read for code in self.distinct], bool)
    known = reads[self.place]
    lost = self.after if history else self.reason != ''
    return RowsOfBook(self, known, np.flatnonzero(known & ~lost), lost, found, interpreter)

  def bare(self, place: int) -> str:
    """The code of an entry of `distinct` as given, without unit."""
    return self.distinct[place].partition(UNIT_SEPARATOR)[0]

  def count_unknown(self, known: np.ndarray, reason: str, tally: Tally) -> None:
    """Counts the rows that no modality reads."""
    for row in np.flatnonzero(~known):
      tally.add(int(self.patient[row]), '', self.bare(self.place[row]), reason)


@dataclasses.dataclass(frozen=True)
class RowsOfBook:
  """The rows of one modality.

  Attributes:
    rows: all rows.
    known: bool (n,): whether a row belongs to this modality.
    kept: indices of those inside the window.
    lost: bool (n,): those outside the window.
    readings: of their codes.
    interpreter: of their rows.
  """

  rows: Rows
  known: np.ndarray
  kept: np.ndarray
  lost: np.ndarray
  readings: tuple[Reading, ...]
  interpreter: Interpreter

  def of_codes(self, codes: Collection[str]) -> np.ndarray:
    """Which of the kept rows have one of these codes, bool (k,)."""
    has = np.array([code in codes for code in self.rows.distinct], bool)
    return has[self.rows.place[self.kept]]

  def count_lost(self, modality: str, tally: Tally) -> None:
    """Counts the rows outside the window."""
    rows = self.rows
    for row in np.flatnonzero(self.known & self.lost):
      tally.add(
        int(rows.patient[row]), modality, rows.bare(rows.place[row]), rows.reason[row]
      )

  def values(self, modality: str, tally: Tally) -> tuple[np.ndarray, Values]:
    """The row of each usable value, and the values.

    Counts dropped and repaired rows.
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
  """The charted numbers: the shortest decimals of 32-bit floats, float64 (n,).

  NaN if there is none, or it is not finite.
  """
  numbers = column.cast(pa.float32()).to_numpy().astype(np.float32)
  charted = numbers.astype('U32').astype(np.float64)
  return np.where(np.isfinite(charted), charted, np.nan)
