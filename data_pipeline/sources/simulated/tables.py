"""Writes csv.gz tables with MIMIC-IV's columns, with the same bytes for the same rows.

Rows are collected as NumPy columns, turned into lines by pyarrow, and compressed in
pieces of fixed size, so that neither memory nor the bytes depend on how many rows
are appended at a time.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NULL = np.iinfo(np.int64).min  # an empty cell of an int or time column

_FLUSH_ROWS = 100_000
_PIECE = 1 << 20

# Column kinds: i int64, f float64 (NaN empty), t time in seconds, d date in seconds,
# s text (None empty), c index into the table's vocabulary (-1 empty).
LAYOUT: dict[str, tuple[tuple[str, str], ...]] = {
  name: tuple((field.split(':')[0], field.split(':')[1]) for field in fields.split())
  for name, fields in {
    'hosp/patients': 'subject_id:i gender:s anchor_age:i anchor_year:i '
    'anchor_year_group:s dod:d',
    'hosp/admissions': 'subject_id:i hadm_id:i admittime:t dischtime:t deathtime:t '
    'admission_type:s admit_provider_id:s admission_location:s discharge_location:s '
    'insurance:s language:s marital_status:s race:s edregtime:t edouttime:t '
    'hospital_expire_flag:i',
    'hosp/d_labitems': 'itemid:i label:s fluid:s category:s',
    'hosp/d_icd_diagnoses': 'icd_code:s icd_version:i long_title:s',
    'hosp/d_icd_procedures': 'icd_code:s icd_version:i long_title:s',
    'hosp/diagnoses_icd': 'subject_id:i hadm_id:i seq_num:i icd_code:s icd_version:i',
    'hosp/procedures_icd': 'subject_id:i hadm_id:i seq_num:i chartdate:d icd_code:s '
    'icd_version:i',
    'hosp/labevents': 'labevent_id:i subject_id:i hadm_id:i specimen_id:i itemid:i '
    'order_provider_id:c charttime:t storetime:t value:c valuenum:f valueuom:c '
    'ref_range_lower:f ref_range_upper:f flag:c priority:c comments:c',
    'hosp/omr': 'subject_id:i chartdate:d seq_num:i result_name:s result_value:s',
    'hosp/prescriptions': 'subject_id:i hadm_id:i pharmacy_id:i poe_id:s poe_seq:i '
    'order_provider_id:s starttime:t stoptime:t drug_type:s drug:s formulary_drug_cd:s '
    'gsn:s ndc:s prod_strength:s form_rx:s dose_val_rx:s dose_unit_rx:s '
    'form_val_disp:s form_unit_disp:s doses_per_24_hrs:i route:s',
    'hosp/emar': 'subject_id:i hadm_id:i emar_id:s emar_seq:i poe_id:s pharmacy_id:i '
    'enter_provider_id:s charttime:t medication:s event_txt:s scheduletime:t storetime:t',
    'hosp/services': 'subject_id:i hadm_id:i transfertime:t prev_service:s curr_service:s',
    'hosp/transfers': 'subject_id:i hadm_id:i transfer_id:i eventtype:s careunit:s '
    'intime:t outtime:t',
    'icu/icustays': 'subject_id:i hadm_id:i stay_id:i first_careunit:s '
    'last_careunit:s intime:t outtime:t los:f',
    'icu/inputevents': 'subject_id:i hadm_id:i stay_id:i caregiver_id:i starttime:t '
    'endtime:t storetime:t itemid:i amount:f amountuom:s rate:f rateuom:s orderid:i '
    'linkorderid:i ordercategoryname:s secondaryordercategoryname:s '
    'ordercomponenttypedescription:s ordercategorydescription:s patientweight:f '
    'totalamount:f totalamountuom:s isopenbag:i continueinnextdept:i '
    'statusdescription:s originalamount:f originalrate:f',
    'icu/outputevents': 'subject_id:i hadm_id:i stay_id:i caregiver_id:i charttime:t '
    'storetime:t itemid:i value:f valueuom:s',
    'icu/procedureevents': 'subject_id:i hadm_id:i stay_id:i caregiver_id:i starttime:t '
    'endtime:t storetime:t itemid:i value:f valueuom:s location:s locationcategory:s '
    'orderid:i linkorderid:i ordercategoryname:s ordercategorydescription:s '
    'patientweight:f isopenbag:i continueinnextdept:i statusdescription:s '
    'originalamount:f originalrate:f',
    'icu/d_items': 'itemid:i label:s abbreviation:s linksto:s category:s unitname:s '
    'param_type:s lownormalvalue:f highnormalvalue:f',
    'icu/chartevents': 'subject_id:i hadm_id:i stay_id:i caregiver_id:i charttime:t '
    'storetime:t itemid:i value:c valuenum:f valueuom:c warning:i',
  }.items()
}


def quote(text: str | None) -> str | None:
  """`text` as a CSV cell, quoted only if CSV requires it."""
  if text is None or not any(mark in text for mark in ',"\n'):
    return text
  return '"' + text.replace('"', '""') + '"'


class Table:
  """A csv.gz file to which rows are appended.

  `append` takes one array or list per column, all of the same length. A `value` column of
  kind c is the text if its index is not negative, else the number in `valuenum`.
  """

  def __init__(
    self,
    root: Path,
    name: str,
    vocabulary: Sequence[str] = (),
    *,
    compression_level: int = 1,
  ):
    path = root / f'{name}.csv.gz'
    path.parent.mkdir(parents=True, exist_ok=True)
    self.name = name
    self.rows = 0
    self._columns = LAYOUT[name]
    self._vocabulary = pa.array([quote(text) for text in vocabulary], pa.string())
    self._pending: list[Mapping[str, Any]] = []
    self._pending_rows = 0
    self._buffer = bytearray()
    self._file: IO[bytes] = path.open('wb')
    # no name and no time in the gzip header: the same rows give the same bytes
    self._gzip = gzip.GzipFile(
      '', 'wb', compresslevel=compression_level, fileobj=self._file, mtime=0
    )
    self._buffer += (','.join(column for column, _ in self._columns) + '\n').encode()

  def append(self, rows: Mapping[str, Any]) -> None:
    """Adds rows, given as one array or list per column; writes once enough are pending."""
    count = len(rows[self._columns[0][0]])
    if not count:
      return
    self._pending.append(rows)
    self._pending_rows += count
    self.rows += count
    if self._pending_rows >= _FLUSH_ROWS:
      self._flush()

  def close(self) -> None:
    """Writes the pending rows and closes the file."""
    self._flush()
    self._gzip.write(self._buffer)
    self._buffer.clear()
    self._gzip.close()
    self._file.close()

  def _flush(self) -> None:
    if not self._pending:
      return
    cells = [self._cells(column, kind) for column, kind in self._columns]
    lines = pc.binary_join_element_wise(  # pyright: ignore[reportAttributeAccessIssue]
      *cells, ',', null_handling='replace', null_replacement=''
    )
    ended = pc.binary_join_element_wise(  # pyright: ignore[reportAttributeAccessIssue]
      lines, '', '\n'
    )
    _, offsets, data = ended.buffers()
    size = np.frombuffer(offsets, np.int32)[len(ended)]
    self._buffer += memoryview(data)[:size]
    self._pending, self._pending_rows = [], 0
    whole = len(self._buffer) // _PIECE * _PIECE
    for start in range(0, whole, _PIECE):
      self._gzip.write(self._buffer[start : start + _PIECE])
    del self._buffer[:whole]

  def _cells(self, column: str, kind: str) -> pa.Array:
    if kind == 's':
      texts = [quote(text) for rows in self._pending for text in rows[column]]
      return pa.array(texts, pa.string())
    parts = [np.asarray(rows[column]) for rows in self._pending]
    values = np.concatenate(parts)
    if kind == 'f':
      return _numbers(values)
    if kind == 'c':
      texts = self._vocabulary.take(pa.array(values, mask=values < 0))
      if column != 'value':
        return texts
      numbers = np.concatenate([np.asarray(rows['valuenum']) for rows in self._pending])
      return pc.coalesce(texts, _numbers(numbers))  # pyright: ignore[reportAttributeAccessIssue]
    integers = pa.array(values.astype(np.int64), mask=values == NULL)
    if kind == 'i':
      return integers.cast(pa.string())
    times = integers.cast(pa.timestamp('s'))
    return (times.cast(pa.date32()) if kind == 'd' else times).cast(pa.string())


def _numbers(values: np.ndarray) -> pa.Array:
  values = values.astype(np.float64)
  return pa.array(values, mask=np.isnan(values)).cast(pa.string())
