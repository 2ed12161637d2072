"""Reads `Outcomes-a.txt`, which has the labels and no inputs."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

from data_pipeline.format.schema import DataError
from data_pipeline.sources.physionet2012.records import DOWNLOAD

# Columns to read; SAPS-I, SOFA and Survival are not read.
COLUMNS = {'mortality': 'In-hospital_death', 'los': 'Length_of_stay'}


def labels(path: Path, task: str) -> tuple[dict[int, float], Counter[str]]:
  """Labels of one set.

  Args:
    path: of the file.
    task: 'mortality' (0 or 1) or 'los' (days).

  Returns:
    RecordID -> label, NaN if unknown; and counts of rows by reason.

  Raises:
    DataError: the file is not UTF-8 text, a column is missing, a cell is not a number, or
      two rows of one record differ.
  """
  column = COLUMNS[task]
  found: dict[int, float] = {}
  counts: Counter[str] = Counter()
  try:
    with path.open(encoding='utf-8-sig', newline='') as file:
      rows = csv.DictReader(file)
      missing = [c for c in ('RecordID', column) if c not in (rows.fieldnames or ())]
      if missing:
        raise DataError(
          f'{path}: no column {missing[0]!r} in its first line. Download it again from '
          f'{DOWNLOAD}'
        )
      for row in rows:
        counts['read'] += 1
        cells = row['RecordID'], row[column]
        record, label = map(_number, cells)
        if record is None or record != int(record) or label is None:
          if all(cells):
            raise DataError(
              f'{path}, line {rows.line_num}: RecordID or {column} is not a number. '
              f'Download it again from {DOWNLOAD}'
            )
          counts['dropped: missing RecordID or outcome'] += 1
          continue
        if label == -1:
          counts['missing: -1'] += 1
          label = float('nan')
        elif label < 0 or (task == 'mortality' and label not in (0, 1)):
          counts['dropped: impossible outcome'] += 1
          continue
        if int(record) not in found:
          found[int(record)] = label
          continue
        if repr(found[int(record)]) != repr(label):  # also compares NaN
          raise DataError(
            f'{path}, line {rows.line_num}: contradicts an earlier row of the same '
            f'record. Download it again from {DOWNLOAD}'
          )
        counts['dropped: duplicate'] += 1
  except UnicodeDecodeError:
    raise DataError(f'{path}: not UTF-8 text. Download it again from {DOWNLOAD}') from None
  return found, counts


def _number(text: str | None) -> float | None:
  text = (text or '').strip()
  return float(text) if re.fullmatch(r'-?[0-9]{1,9}(\.[0-9]*)?', text) else None
