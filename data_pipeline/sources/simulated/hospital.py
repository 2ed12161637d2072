"""Writes a simulated hospital: raw tables and ECGs in the layout of MIMIC.

    RAW/simulated.json      hospital, seed, patients, options, version, planted effects
    RAW/mimic-iv/           MIMIC-IV 2.2: hosp/*.csv.gz, icu/*.csv.gz
    RAW/mimic-iv-ecg/       MIMIC-IV-ECG 1.0

Patients are simulated and written one after another, so memory is constant.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_pipeline import folders, lock
from data_pipeline.format.schema import DataError, write_json
from data_pipeline.sources.simulated import (
  chart,
  hosp,
  hospitals,
  lab_dictionary,
  labs,
  latent,
  outcomes,
  treatment,
)
from data_pipeline.sources.simulated.ecg_records import EcgWriter
from data_pipeline.sources.simulated.outcomes import conditions, urine
from data_pipeline.sources.simulated.tables import Table

VERSION = 4  # of the simulation; rows of the same seed differ between versions
MANIFEST = 'simulated.json'

_SMALL_TABLES = (
  'hosp/patients', 'hosp/admissions', 'hosp/diagnoses_icd', 'hosp/procedures_icd',
  'hosp/omr', 'hosp/prescriptions', 'hosp/services', 'hosp/transfers', 'icu/icustays',
  'icu/inputevents', 'icu/outputevents', 'icu/procedureevents', 'hosp/emar',
)  # fmt: skip


def write_hospital(
  raw: Path,
  *,
  patients: int,
  seed: int,
  hospital: str = 'a',
  ecg: bool = True,
  density: float = 1.0,
) -> None:
  """Writes the hospital to `raw`, unless it is already complete.

  Patients are independent: the first n patients of a larger hospital with the same name and
  seed are the patients of the smaller one.

  Args:
    raw: the folder to create. It appears only when it is complete.
    patients: 1 to 150,000.
    seed: 0 or more; the same arguments give the same bytes.
    hospital: a key of `hospitals.HOSPITALS`.
    ecg: False leaves out waveforms; the lists then have no recordings either.
    density: factor on the sampling rates of vital signs and ICU laboratories.

  Raises:
    DataError: an argument is out of range, `raw` holds other files, or another process
      simulates it.
  """
  _check(patients, seed, density)
  hospitals.find(hospital)
  raw = raw.resolve()
  request = {
    'version': VERSION, 'hospital': hospital, 'patients': patients, 'seed': seed,
    'ecg': ecg, 'density': density,
  }  # fmt: skip
  folders.make(raw.parent, '--raw')
  held = lock.exclusive(
    raw.with_name(f'{raw.name}.lock'), 'simulates this hospital', 'name another --raw'
  )
  with held:
    if raw.exists() and (not raw.is_dir() or any(raw.iterdir())):
      _check_existing(raw, request)
    else:
      _write_whole(raw, request)


def _write_whole(raw: Path, request: dict[str, Any]) -> None:
  """Writes the hospital beside `raw`, and renames it when it is complete."""
  partial = raw.with_name(raw.name + '.partial')
  if partial.exists():  # left by an interrupted run
    shutil.rmtree(partial)
  numbers = {name: value for name, value in request.items() if name != 'version'}
  rows = _write(partial, **numbers)
  planted = planted_effects(request['hospital'])
  write_json(partial / MANIFEST, {**request, 'planted': planted, 'rows': rows})
  if raw.exists():
    raw.rmdir()
  partial.rename(raw)


def planted_effects(hospital: str = 'a') -> dict[str, Any]:
  """All coefficients of the causal model that an experiment may need.

  Raises:
    DataError: there is no such hospital.
  """
  found = hospitals.find(hospital)
  return {
    'mortality': latent.mortality(found),
    'length_of_stay': latent.length_of_stay(found),
    'cvd': {name: list(pair) for name, pair in latent.cvd(found).items()},
    'swing': {
      'period_seconds': chart.SWING_PERIOD,
      'heart_rate_bpm': chart.SWING_HEART_RATE,
      'systolic_mmhg': chart.SWING_PRESSURE,
      'log_slope': chart.SWING_LOG_SLOPE,
    },
    'drift': {
      'mean_pressure_mmhg': chart.DRIFT_PRESSURE,
      'log_lactate': labs.LACTATE_DRIFT,
    },
    **outcomes.planted(),
    'treatment': treatment.planted(),
    'pairing': {'potassium_meq_l': labs.POTASSIUM_SHIFT, 't_wave': 'sign in V1 to V4'},
  }


def _check(patients: int, seed: int, density: float) -> None:
  if not 1 <= patients <= latent.MAX_PATIENTS:
    raise DataError(
      f'patients={patients}: choose a number from 1 to {latent.MAX_PATIENTS}.'
    )
  if seed < 0:
    raise DataError(f'seed={seed}: choose 0 or more.')
  if not 0.1 <= density <= 20:
    raise DataError(f'density={density}: choose a factor from 0.1 to 20.')


def _check_existing(raw: Path, request: dict[str, Any]) -> None:
  manifest = raw / MANIFEST
  if not manifest.is_file():
    raise DataError(
      f'{raw}: holds files but no {MANIFEST}, so it is not a simulated hospital. '
      'Choose another folder with --raw.'
    )
  # Without a name, it is from the time when there was only one hospital.
  found = {'hospital': 'a', **json.loads(manifest.read_text())}
  differing = [name for name, value in request.items() if found.get(name) != value]
  if differing:
    name = differing[0]
    raise DataError(
      f'{manifest}: {name} is {found.get(name)}, asked for {request[name]}. '
      'Choose another folder with --raw, or delete this one.'
    )


def _write(
  root: Path, *, hospital: str, patients: int, seed: int, ecg: bool, density: float
) -> dict[str, int]:
  chosen = hospitals.find(hospital)
  tables = {name: Table(root / 'mimic-iv', name) for name in _SMALL_TABLES}
  dictionaries = {
    'hosp/d_labitems': lab_dictionary.dictionary_rows(),
    'hosp/d_icd_diagnoses': hosp.icd_rows('diagnoses'),
    'hosp/d_icd_procedures': hosp.icd_rows('procedures'),
    'icu/d_items': chart.item_rows(chosen),
  }
  for name, rows in dictionaries.items():
    tables[name] = Table(root / 'mimic-iv', name)
    tables[name].append(rows)
  tables['hosp/d_icd_diagnoses'].append(conditions.icd_rows())
  tables['icu/d_items'].append(urine.item_rows())
  tables['icu/d_items'].append(treatment.item_rows())
  texts = tuple(dict.fromkeys((*chart.vocabulary(), *treatment.texts())))
  tables['hosp/labevents'] = Table(
    root / 'mimic-iv', 'hosp/labevents', lab_dictionary.vocabulary()
  )
  tables['icu/chartevents'] = Table(root / 'mimic-iv', 'icu/chartevents', texts)
  writer = EcgWriter(root / 'mimic-iv-ecg')
  try:
    for index in tqdm(range(patients), 'simulating patients', unit='patient', disable=None):
      patient = latent.simulate_patient(seed, index, chosen)
      people = hosp.simulate_hosp(patient, seed)
      for more in (people, *outcomes.simulate(patient, seed, people)):
        for name, rows in more.items():
          tables[name].append(rows)
      rows, copies = labs.simulate_labs(patient, seed, density)
      _number(rows, tables['hosp/labevents'].rows)
      tables['hosp/labevents'].append(rows)
      charted = chart.simulate_chart(patient, copies, seed, density)
      for rows in charted:
        tables['icu/chartevents'].append(rows)
      for name, more in treatment.simulate(patient, seed, charted, texts).items():
        tables[name].append(more)
      if ecg:
        writer.append(patient, seed)
  finally:
    for table in tables.values():
      table.close()
    writer.close()
  counts = {name: table.rows for name, table in tables.items()}
  return {**counts, 'recordings': writer.recordings}


def _number(rows: labs.Rows, first: int) -> None:
  """Assigns row numbers; results of the same minute and subject share a specimen."""
  size = len(rows['itemid'])
  rows['labevent_id'] = first + 1 + np.arange(size)
  _, sample = np.unique(rows['charttime'], return_inverse=True)
  rows['specimen_id'] = first + 1 + sample
