"""The laboratory's dictionary: items, reference ranges and result texts.

`lab_items.csv` has the numeric items and the effects of the latent components on them:
`scale` log means that `center` is a median and all other columns act on the log.
Texts are those of MIMIC-IV's labevents.
"""

from __future__ import annotations

import csv
import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipeline.sources.simulated import hospitals


class NumericItems(NamedTuple):
  """Columns of lab_items.csv as arrays over its rows (n); `effects` is (n, 4)."""

  itemid: np.ndarray
  panel: np.ndarray
  low: np.ndarray
  high: np.ndarray
  decimals: np.ndarray
  is_log: np.ndarray
  center: np.ndarray
  spread: np.ndarray
  effects: np.ndarray  # severity, renal, failure, ischemia
  chart: np.ndarray  # itemid of the copy in chartevents, -1 for none
  unit: tuple[str, ...]


class TextItem(NamedTuple):
  """A categorical item: category texts with weights, in value or in comments."""

  itemid: int
  label: str
  fluid: str
  category: str
  panel: str
  unit: str
  place: str
  results: tuple[str, ...]
  weights: tuple[float, ...]


EGFR = 50920
_U = ('Urine', 'Hematology', 'urine')
TEXT_ITEMS = tuple(
  TextItem(*fields)  # pyright: ignore[reportArgumentType]
  for fields in (
    (51463, 'Bacteria', *_U, '', 'comments',
     ('FEW.', 'NONE.', 'MOD.', 'MANY.', 'RARE.', 'OCC.'), (5, 3, 1.5, 1, .5, .3)),
    (51464, 'Bilirubin', *_U, 'N/A', 'comments', ('NEG.', 'SM .', 'MOD*.', 'LG*.'),
     (9, .6, .3, .1)),
    (51466, 'Blood', *_U, 'N/A', 'comments', ('NEG.', 'SM*.', 'MOD*.', 'LG*.', 'TR.'),
     (4, 2, 1.5, 1.5, 1)),
    (51478, 'Glucose', *_U, 'mg/dL', 'comments', ('NEG.', 'TR*.', '>1000*.'),
     (8, 1, .5)),
    (51484, 'Ketone', *_U, 'mg/dL', 'comments', ('NEG.', 'TR*.', '>150*.'),
     (7, 2, .3)),
    (51486, 'Leukocytes', *_U, 'N/A', 'comments',
     ('NEG.', 'TR*.', 'SM*.', 'MOD*.', 'LG*.'), (6, 1, 1, 1, 1)),
    (51487, 'Nitrite', *_U, 'N/A', 'comments', ('NEG.', 'POS*.'), (9, .5)),
    (51492, 'Protein', *_U, 'mg/dL', 'comments', ('NEG.', 'TR*.', '>600*.'), (2, 7, .4)),
    (51512, 'Urine Mucous', *_U, '', 'comments',
     ('RARE.', 'OCC.', 'FEW.', 'MOD.', 'MANY.'), (7, 1, 1, .5, .2)),
    (51514, 'Urobilinogen', *_U, 'mg/dL', 'comments', ('NEG.', 'NORMAL.', '>12*.'),
     (8, 1, .1)),
    (51519, 'Yeast', *_U, '', 'value', ('NONE', 'RARE', 'FEW', 'MOD', 'MANY', 'OCC'),
     (9, .2, .2, .1, .1, .1)),
    (50812, 'Intubated', 'Blood', 'Blood Gas', 'gas', '', 'value',
     ('INTUBATED.', 'NOT INTUBATED.'), (8, 2)),
    (50828, 'Ventilator', 'Blood', 'Blood Gas', 'gas', '', 'value',
     ('CONTROLLED.', 'SPONTANEOUS.', 'IMV.'), (7, 2, .3)),
  )
)  # fmt: skip

MASKED_TEXT = '___'
TROPONIN_NOTE = 'CTROPNT > 0.10 NG/ML SUGGESTS ACUTE MI.'
TROPONIN_LOW = f'<0.01.  {TROPONIN_NOTE}'
TROPONIN_HIGH = f'GREATER THAN 25.  {TROPONIN_NOTE}'
CKMB_LOW = '<1.'
CKMB_HIGH = 'GREATER THAN 500.'
GLUCOSE_NOTE = 'IF FASTING, 70-100 NORMAL, >125 PROVISIONAL DIABETES.'
GLUCOSE_NOTE_MOLAR = 'IF FASTING, 3.9-5.6 NORMAL, >6.9 PROVISIONAL DIABETES.'
UNABLE = 'UNABLE TO REPORT.'
HEMOLYSIS = 'Hemolysis falsely elevates this test.'
BELOW_TEXT = '<0.01'

_CREATININE_STEPS = 120  # eGFR wordings are tabulated for creatinine 0.1 to 12.0


def egfr_comment(creatinine: float, *, wording: int, molar: bool = False) -> str:
  """The comment with the eGFR; the value itself is empty, as in MIMIC-IV.

  Args:
    creatinine: in mg/dL.
    wording: 0 or 1.
    molar: whether the comment has the creatinine in umol/L instead of mg/dL.
  """
  egfr = 78 * creatinine**-1.15
  named = f'{creatinine * 88.4:.0f} umol/L' if molar else f'{creatinine:.1f}'
  start = f"Using this patient's age, gender, and serum creatinine value of {named}, .  "
  if wording == 0:
    between = f'between {int(egfr * 0.9)} and {int(egfr * 1.1) + 1}'
    likely = '>75' if egfr >= 75 else between
    return (
      f'{start}estimated GFR (eGFR) is likely {likely} mL/min/1.73 m2, .  '
      'provided the serum creatinine value is stable.'
    )
  shown = [f'{value:.0f}' if value < 75 else '>75' for value in (egfr, egfr * 1.21)]
  return (
    f'{start}Estimated GFR = {shown[0]} if non African-American (mL/min/1.73 m2) .  '
    f'Estimated GFR = {shown[1]} if African-American (mL/min/1.73 m2) .  '
    'GFR<60 = Chronic Kidney Disease, GFR<15 = Kidney Failure.'
  )


def read_table(name: str) -> list[dict[str, str]]:
  """Rows of a dictionary that is shipped beside this module."""
  with (Path(__file__).parent / name).open(encoding='utf-8', newline='') as file:
    return list(csv.DictReader(file))


@functools.cache
def numeric_items() -> NumericItems:
  """All numeric laboratory items, as arrays in the order of `lab_items.csv`."""
  rows = read_table('lab_items.csv')
  column = lambda name: np.array([float(row[name] or 'nan') for row in rows])
  return NumericItems(
    itemid=column('itemid').astype(np.int64),
    panel=np.array([row['panel'] for row in rows]),
    low=column('low'),
    high=column('high'),
    decimals=column('decimals').astype(int),
    is_log=np.array([row['scale'] == 'log' for row in rows]),
    center=column('center'),
    spread=column('spread'),
    effects=np.stack(
      [column(name) for name in ('severity', 'renal', 'failure', 'ischemia')], axis=1
    ),
    chart=np.nan_to_num(column('chart'), nan=-1).astype(np.int64),
    unit=tuple(row['unit'] for row in rows),
  )


@functools.cache
def dictionary_rows() -> dict[str, list[Any]]:
  """Rows of d_labitems."""
  rows = [
    (int(row['itemid']), row['label'], row['fluid'], row['category'])
    for row in read_table('lab_items.csv')
  ]
  rows += [(item.itemid, item.label, item.fluid, item.category) for item in TEXT_ITEMS]
  rows.append((EGFR, 'Estimated GFR (MDRD equation)', 'Blood', 'Chemistry'))
  rows.sort()
  names = ('itemid', 'label', 'fluid', 'category')
  return {name: [row[i] for row in rows] for i, name in enumerate(names)}


@functools.cache
def vocabulary() -> tuple[str, ...]:
  """Every text of labevents; a row refers to it by index."""
  texts = [
    MASKED_TEXT, TROPONIN_NOTE, TROPONIN_LOW, TROPONIN_HIGH, CKMB_LOW, CKMB_HIGH,
    GLUCOSE_NOTE, UNABLE, HEMOLYSIS, BELOW_TEXT, 'abnormal', 'STAT', 'ROUTINE', 'g/dL',
  ]  # fmt: skip
  texts += [f'P{number:02d}XYZ' for number in range(20)]
  texts += list(numeric_items().unit)
  for item in TEXT_ITEMS:
    texts += [item.unit, *item.results]
  texts += [
    egfr_comment(step / 10, wording=wording)
    for wording in (0, 1)
    for step in range(1, _CREATININE_STEPS + 1)
  ]
  texts += [*hospitals.unit_texts(), *_molar_notes().values()]
  return tuple(dict.fromkeys(text for text in texts if text))


@functools.cache
def text_index() -> dict[str, int]:
  """Index of a text in `vocabulary`; -1 for the empty text."""
  return {'': -1, **{text: i for i, text in enumerate(vocabulary())}}


@functools.cache
def molar_codes() -> np.ndarray:
  """For each text of `vocabulary`, the index of the same text in mmol/L or umol/L.

  Only notes with a glucose or a creatinine have another text.
  """
  index, molar = text_index(), _molar_notes()
  return np.array([index[molar.get(text, text)] for text in vocabulary()])


@functools.cache
def _molar_notes() -> dict[str, str]:
  return {
    GLUCOSE_NOTE: GLUCOSE_NOTE_MOLAR,
    **{
      egfr_comment(step / 10, wording=wording): egfr_comment(
        step / 10, wording=wording, molar=True
      )
      for wording in (0, 1)
      for step in range(1, _CREATININE_STEPS + 1)
    },
  }


@functools.cache
def egfr_codes() -> np.ndarray:
  """Index of the eGFR comment by wording and creatinine step, (2, 120)."""
  index = text_index()
  return np.array(
    [
      [
        index[egfr_comment(step / 10, wording=w)]
        for step in range(1, _CREATININE_STEPS + 1)
      ]
      for w in (0, 1)
    ]
  )
