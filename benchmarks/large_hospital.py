"""Writes a hospital with a given number of event rows, in MIMIC-IV's layout.

Everything that affects the speed of reading is as in MIMIC-IV 2.2, but values are
meaningless: rows per ICU stay (4,292), stays per ICU subject (1.44), laboratory rows per
subject (400), 17 rows per charting time, ordered by subject, stay and time; 1,400 chart
items and 500 laboratory items, of which those of the ICU tasks make up 22 % and 72 % of
the rows, as in the open demo; texts, units, reference ranges, flags, comments; level 6
gzip, about 9 bytes per row. Rows are made in pieces, so memory is constant. For planted
effects and ECGs see `data_pipeline/sources/simulated`.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_pipeline.format.schema import write_json
from data_pipeline.sources.simulated import lab_dictionary
from data_pipeline.sources.simulated.tables import NULL, Table

_ROWS_PER_STAY = 4292
_STAYS_PER_SUBJECT = 1.437
_LAB_ROWS_PER_SUBJECT = 400
_ROWS_PER_TIME = 17
_PIECE_ROWS = 1_000_000
_DAY = 86_400
_YEAR = 365 * _DAY
_MANIFEST = 'large_hospital.json'
# itemid: share of the rows in percent, center, spread, decimals.
_VITALS = {
  220045: (2.1, 85, 15, 0), 220210: (2.1, 19, 5, 0), 220277: (2.0, 97, 2, 0),
  220179: (1.3, 120, 20, 0), 220180: (1.3, 65, 12, 0), 220181: (1.3, 80, 13, 0),
  220050: (0.8, 120, 20, 0), 220051: (0.8, 60, 11, 0), 220052: (0.8, 79, 13, 0),
  223761: (0.6, 98.4, 1, 1), 223762: (0.1, 36.9, 0.6, 1), 223835: (0.6, 45, 8, 0),
  224690: (0.4, 18, 4, 0),
}  # fmt: skip
_TEXTS = {
  220048: (1.9, ('SR (Sinus Rhythm)', 'ST (Sinus Tachycardia)', 'V Paced')),
  224650: (0.9, ('None', 'PVCs', 'PACs')),
  224651: (0.4, ('Rare', 'Occasional', 'Frequent')),
}  # fmt: skip
_CHARTED_LABS = 4.6  # percent
_OTHER_CHART_ITEMS = 1300
_OTHER_LAB_PANELS = 60
_WANTED_LAB_PANELS = 0.66  # of the laboratory's orders


@dataclasses.dataclass(frozen=True)
class _Items:
  """Items (n) of one table; a text item has `texts` texts from index `first` on."""

  itemid: np.ndarray
  weight: np.ndarray
  center: np.ndarray
  spread: np.ndarray
  decimals: np.ndarray
  first: np.ndarray
  texts: np.ndarray
  unit: np.ndarray
  vocabulary: tuple[str, ...]


def write_large_hospital(
  root: Path, *, chartevents_rows: int, labevents_rows: int, seed: int = 0
) -> None:
  """Writes the hospital to `root`, unless it is already complete."""
  request = {
    'chartevents_rows': chartevents_rows, 'labevents_rows': labevents_rows, 'seed': seed,
  }  # fmt: skip
  manifest = root / _MANIFEST
  if manifest.exists() and json.loads(manifest.read_text()) == request:
    return
  shutil.rmtree(root, ignore_errors=True)
  rng = np.random.default_rng(seed)
  stays = _write_people(root, chartevents_rows, labevents_rows, rng)
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
    jobs = [
      pool.submit(_write_chart, root, stays, chartevents_rows, seed),
      pool.submit(_write_labs, root, stays, labevents_rows, seed),
    ]
    for job in jobs:
      job.result()
  write_json(manifest, request)


def _write_people(
  root: Path, chartevents_rows: int, labevents_rows: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
  """Writes patients, admissions and icustays; returns the stays, and all `subjects`."""
  count = max(round(chartevents_rows / _ROWS_PER_STAY), 50)
  people = max(round(labevents_rows / _LAB_ROWS_PER_SUBJECT), count)
  subjects = np.sort(rng.choice(9_000_000, people, replace=False)) + 10_000_000
  in_icu = rng.choice(people, round(count / _STAYS_PER_SUBJECT), replace=False)
  owner = np.sort(np.append(in_icu, rng.choice(in_icu, count - len(in_icu))))
  start = (rng.uniform(140, 220, people)[owner] * _YEAR).astype(np.int64)
  start += _YEAR // 2 * (np.arange(count) - np.searchsorted(owner, owner))
  days = np.clip(rng.lognormal(0.75, 0.95, count), 0.2, 60)
  stays = {
    'subject_id': subjects[owner],
    'hadm_id': rng.permutation(9_000_000)[:count] + 20_000_000,
    'stay_id': rng.permutation(9_000_000)[:count] + 30_000_000,
    'intime': start // 60 * 60,
    'outtime': (start + days * _DAY).astype(np.int64) // 60 * 60,
  }
  same = lambda text, n: np.full(n, text)
  year = np.full(people, 2110)
  year[owner] = 1970 + start // _YEAR
  _write_table(root, 'hosp/patients', {
    'subject_id': subjects, 'gender': rng.choice(['F', 'M'], people),
    'anchor_age': rng.integers(18, 91, people), 'anchor_year': year,
    'anchor_year_group': same('2011 - 2013', people), 'dod': np.full(people, NULL),
  })  # fmt: skip
  none = [None] * count
  _write_table(root, 'hosp/admissions', {
    'subject_id': stays['subject_id'], 'hadm_id': stays['hadm_id'],
    'admittime': stays['intime'] - 7200, 'dischtime': stays['outtime'] + 2 * _DAY,
    'deathtime': np.full(count, NULL), 'admission_type': same('URGENT', count),
    'admit_provider_id': none, 'admission_location': same('EMERGENCY ROOM', count),
    'discharge_location': same('HOME', count), 'insurance': same('Other', count),
    'language': none, 'marital_status': none, 'race': same('WHITE', count),
    'edregtime': np.full(count, NULL), 'edouttime': np.full(count, NULL),
    'hospital_expire_flag': (rng.random(count) < 0.11).astype(int),
  })  # fmt: skip
  unit = same('Medical Intensive Care Unit (MICU)', count)
  _write_table(root, 'icu/icustays', {
    **stays, 'first_careunit': unit, 'last_careunit': unit, 'los': days.round(4),
  })  # fmt: skip
  return {**stays, 'subjects': subjects}


def _write_table(root: Path, name: str, rows: dict) -> None:
  table = Table(root, name)
  table.append(rows)
  table.close()


def _write_chart(root: Path, stays: dict[str, np.ndarray], wanted: int, seed: int) -> None:
  items = _chart_items()
  table = Table(root, 'icu/chartevents', items.vocabulary, compression_level=6)
  rng = np.random.default_rng([seed, 1])
  share = rng.lognormal(0, 0.6, len(stays['stay_id']))
  hours = (stays['outtime'] - stays['intime']) / 3600
  share *= hours / (share * hours).sum()
  for stay in _pieces(rng.poisson(share * wanted * 1.1 / _ROWS_PER_TIME)):
    begin, end = stays['intime'][stay], stays['outtime'][stay]
    time = (begin + rng.random(len(stay)) * (end - begin)).astype(np.int64) // 60 * 60
    stay, time = _sorted(stay, time)
    owner, item = _pick(rng, len(stay), items.weight / items.weight.sum())
    delay = (rng.lognormal(3, 0.9, len(stay))).astype(np.int64) * 60
    shift = (time // (_DAY // 2) * 7919 + stay * 104_729) % 4000
    rows = {
      'subject_id': stays['subject_id'][stay][owner],
      'hadm_id': stays['hadm_id'][stay][owner],
      'stay_id': stays['stay_id'][stay][owner],
      'caregiver_id': (shift + 2000)[owner],
      'charttime': time[owner],
      'storetime': (time + delay)[owner],
      'warning': (rng.random(len(owner)) < 0.01).astype(np.int64),
      **_values(rng, items, item),
    }
    _append(table, rows, wanted)
  table.close()
  assert table.rows == wanted, 'too few charting times'


def _write_labs(root: Path, stays: dict[str, np.ndarray], wanted: int, seed: int) -> None:
  items, panels, weights = _lab_items()
  table = Table(root, 'hosp/labevents', items.vocabulary, compression_level=6)
  rng = np.random.default_rng([seed, 2])
  subjects = stays['subjects']
  share = rng.lognormal(0, 1.0, len(subjects))
  share[np.searchsorted(subjects, stays['subject_id'])] *= 4
  share /= share.sum()
  size = float((np.array([len(panel) for panel in panels]) * weights).sum())
  first = np.searchsorted(stays['subject_id'], subjects)
  specimen = 0
  for subject in _pieces(rng.poisson(share * wanted * 1.1 / size)):
    time = (rng.uniform(150, 220, len(subject)) * _YEAR).astype(np.int64) // 60 * 60
    stay = np.minimum(first[subject], len(stays['stay_id']) - 1)
    inside = (stays['subject_id'][stay] == subjects[subject]) & (
      rng.random(len(subject)) < 0.5
    )
    length = stays['outtime'][stay] - stays['intime'][stay]
    within = stays['intime'][stay] + (rng.random(len(subject)) * length).astype(np.int64)
    time = np.where(inside, within // 60 * 60, time)
    hadm = np.where(inside, stays['hadm_id'][stay], NULL)
    order = np.lexsort((time, subject))
    subject, time, hadm = subject[order], time[order], hadm[order]
    panel = rng.choice(len(panels), len(subject), p=weights)
    owner = np.repeat(np.arange(len(subject)), [len(panels[p]) for p in panel])
    item = np.concatenate([panels[p] for p in panel])
    values = _values(rng, items, item)
    n = len(owner)
    number = values['valuenum']
    low, high = items.center - items.spread, items.center + items.spread
    text = {text: i for i, text in enumerate(items.vocabulary)}
    in_comment = (values['value'] >= 0) & (rng.random(n) < 0.6)
    comment = np.where(in_comment, values['value'], -1)
    comment[(comment < 0) & (rng.random(n) < 0.08)] = text[lab_dictionary.GLUCOSE_NOTE]
    provider = np.where(rng.random(len(subject)) < 0.6, text['P00XYZ'], -1)
    provider = np.where(provider < 0, -1, provider + rng.integers(0, 900, len(subject)))
    delay = (rng.lognormal(4, 0.6, len(subject))).astype(np.int64) * 60
    rows = {
      'labevent_id': table.rows + 1 + np.arange(n),
      'subject_id': subjects[subject][owner],
      'hadm_id': hadm[owner],
      'specimen_id': 10_000_000 + specimen + owner,
      'order_provider_id': provider[owner],
      'charttime': time[owner],
      'storetime': (time + delay)[owner],
      'ref_range_lower': np.where(np.isnan(number), np.nan, low[item].round(1)),
      'ref_range_upper': np.where(np.isnan(number), np.nan, high[item].round(1)),
      'flag': np.where((number > high[item]) | (number < low[item]), text['abnormal'], -1),
      'priority': np.where(rng.random(n) < 0.5, text['STAT'], text['ROUTINE']),
      'comments': comment,
      **values,
      'value': np.where(in_comment, text[lab_dictionary.MASKED_TEXT], values['value']),
    }
    specimen += len(subject)
    _append(table, rows, wanted)
  table.close()
  assert table.rows == wanted, 'too few specimens'


def _pieces(counts: np.ndarray) -> Iterator[np.ndarray]:
  """Index i repeated counts[i] times, in pieces of about `_PIECE_ROWS` table rows."""
  limit = _PIECE_ROWS // _ROWS_PER_TIME
  total = counts.cumsum()
  for piece in np.split(
    np.arange(len(counts)), np.flatnonzero(np.diff(total // limit)) + 1
  ):
    yield np.repeat(piece, counts[piece])


def _sorted(group: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  order = np.lexsort((time, group))
  return group[order], time[order]


def _pick(
  rng: np.random.Generator, groups: int, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Group and item of each row: about `_ROWS_PER_TIME` different items per group."""
  owner = np.repeat(np.arange(groups), rng.geometric(1 / (1.1 * _ROWS_PER_TIME), groups))
  item = np.searchsorted(weight.cumsum()[:-1], rng.random(len(owner)))
  return tuple(np.divmod(np.unique(owner * len(weight) + item), len(weight)))  # pyright: ignore[reportReturnType]


def _values(
  rng: np.random.Generator, items: _Items, item: np.ndarray
) -> dict[str, np.ndarray]:
  number = items.center[item] + items.spread[item] * rng.standard_normal(len(item))
  number = np.abs(number)
  for decimals in np.unique(items.decimals):
    of = items.decimals[item] == decimals
    number[of] = number[of].round(decimals)
  texts = items.texts[item]
  chosen = items.first[item] + (rng.random(len(item)) ** 2 * texts).astype(np.int64)
  return {
    'itemid': items.itemid[item],
    'value': np.where(texts > 0, chosen, -1),
    'valuenum': np.where(texts > 0, np.nan, number),
    'valueuom': items.unit[item],
  }


def _append(table: Table, rows: dict[str, np.ndarray], wanted: int) -> None:
  table.append({name: column[: wanted - table.rows] for name, column in rows.items()})


@functools.cache
def _chart_items() -> _Items:
  rows, labs = [], lab_dictionary.numeric_items()
  unit_of = {
    int(row['itemid']): row['unit'] for row in lab_dictionary.read_table('chart_items.csv')
  }
  for itemid, (share, center, spread, decimals) in _VITALS.items():
    rows.append((itemid, share, center, spread, decimals, (), unit_of[itemid]))
  for itemid, (share, texts) in _TEXTS.items():
    rows.append((itemid, share, 0, 0, 0, texts, ''))
  charted = np.flatnonzero(labs.chart >= 0)
  rows += [
    (labs.chart[i], _CHARTED_LABS / len(charted), labs.center[i], 0.1 * labs.center[i],
     labs.decimals[i], (), labs.unit[i])
    for i in charted
  ]  # fmt: skip
  rng = np.random.default_rng(0)
  share = 1 / (np.arange(_OTHER_CHART_ITEMS) + 20)
  share *= (100 - sum(row[1] for row in rows)) / share.sum()
  for i in range(_OTHER_CHART_ITEMS):
    texts = ()
    if i % 5 < 3:  # texts of 3 to 40 characters, some with a comma
      texts = tuple(
        f'{"Assessment, " if i % 7 == 0 else ""}{"finding " * int(rng.integers(0, 4))}'
        f'{chr(97 + k)}{i}'
        for k in range(int(rng.integers(2, 12)))
      )
    center = float(rng.integers(1, 120))
    rows.append(
      (228_000 + i, share[i], center, center / 8, 0, texts, 'mmHg' * (i % 3 == 0))
    )
  return _make_items(rows, ())


@functools.cache
def _lab_items() -> tuple[_Items, list[np.ndarray], np.ndarray]:
  """Items, panels of item indices, and the share of each panel in the orders."""
  labs = lab_dictionary.numeric_items()
  rows, panel_of = [], []
  for i, itemid in enumerate(labs.itemid):
    rows.append((itemid, 0, labs.center[i], 0.15 * labs.center[i], labs.decimals[i], (),
                 labs.unit[i]))  # fmt: skip
    panel_of.append(labs.panel[i])
  for item in lab_dictionary.TEXT_ITEMS:
    rows.append((item.itemid, 0, 0, 0, 0, item.results, item.unit))
    panel_of.append(item.panel)
  names = sorted(set(panel_of))
  panels = [np.flatnonzero(np.array(panel_of) == name) for name in names]
  weights = [_WANTED_LAB_PANELS / len(panels)] * len(panels)
  rng = np.random.default_rng(0)
  for panel in range(_OTHER_LAB_PANELS):
    size = int(rng.integers(1, 15))
    panels.append(len(rows) + np.arange(size))
    weights.append((1 - _WANTED_LAB_PANELS) / _OTHER_LAB_PANELS)
    for i in range(size):
      texts = ('NEGATIVE.', 'POSITIVE.', 'NOT DONE.') if i % 4 == 3 else ()
      rows.append((54_000 + panel * 20 + i, 0, 10.0 * (i + 1), i + 1.0, i % 3, texts,
                   'mg/dL'))  # fmt: skip
  extra = (
    lab_dictionary.GLUCOSE_NOTE, lab_dictionary.MASKED_TEXT, 'abnormal', 'STAT', 'ROUTINE',
    *(f'P{number:02d}XYZ' for number in range(900)),
  )  # fmt: skip
  return _make_items(rows, extra), panels, np.array(weights)


def _make_items(rows: list[tuple], extra: tuple[str, ...]) -> _Items:
  itemid, weight, center, spread, decimals, texts, unit = zip(*rows, strict=True)
  vocabulary = [*extra]
  first = []
  for of in texts:
    first.append(len(vocabulary))
    vocabulary += of
  units = {text: len(vocabulary) + i for i, text in enumerate(sorted(set(unit) - {''}))}
  return _Items(
    itemid=np.array(itemid, np.int64),
    weight=np.array(weight, np.float64),
    center=np.array(center, np.float64),
    spread=np.array(spread, np.float64),
    decimals=np.array(decimals, np.int64),
    first=np.array(first),
    texts=np.array([len(of) for of in texts]),
    unit=np.array([units.get(text, -1) for text in unit]),
    vocabulary=(*vocabulary, *units),
  )
