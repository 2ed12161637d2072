"""A small random data set for tests of the data engine: staging files and shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from data_pipeline.format.modalities import Events, Grid, Static, Waveform
from data_pipeline.format.modalities.waveform import ECG_MEASUREMENTS
from data_pipeline.format.schema import Item, Schema, Target
from data_pipeline.preparation import build
from data_pipeline.reading.batching import Batching
from data_pipeline.sources import Staged
from tests.support import kinds

COHORT = {
  'steps': [{'step': 'all', 'samples': 1000, 'subjects': 100}],
  'rows': {'labevents': {'no value': 3}},
}
# Of all data sets of the tests, so that equal ones have equal bytes.
SUBJECT_KEY = Path(__file__).with_name('subject_key')
REQUEST = {'source': 'fixture', 'samples_per_shard': 6}

SCHEMA = Schema(
  task='mortality',
  source='fixture',
  target=Target('binary', ('alive', 'dead')),
  modalities={
    'static': Static(
      (Item('age', 'age', 'years'), Item('weight', 'weight', 'kg')),
      (Item('gender', 'gender', categories=('F', 'M')),),
    ),
    'labs': Events(
      (
        Item('1', 'potassium', 'mEq/L'),
        Item('2', 'color', categories=('clear', 'red', 'dark')),
        Item('3', 'lactate', 'mmol/L'),
      )
    ),
    'notes': Events((Item('9', 'rhythm', categories=('sinus', 'af')),)),
    'vitals': Grid((Item('HR', 'heart rate'), Item('RR', 'resp. rate')), 6, 0.1),
    'ecg': Waveform(('426783006', '164889003', '59118001')),
  },
  attributes=('age', 'sex'),
  observation_hours=24.0,
)


def staged() -> Staged:
  """What a source returns beside the staging files of `write_staging`."""
  return Staged(SCHEMA, COHORT, {'fixture': '1.0'})


def write_staging(
  folder: Path, *, subjects: int = 40, seed: int = 0, long: int = 30
) -> Staged:
  """Writes random staging files for `SCHEMA`, in no particular order of rows.

  Args:
    folder: where; recordings go to `folder / 'ecg'`.
    subjects: number of subjects, with one to three samples each.
    seed: of everything.
    long: most events that a sample has.
  """
  rng = np.random.default_rng(seed)
  count = rng.integers(1, 4, subjects)
  subject_id = np.repeat(rng.permutation(10**6)[:subjects] + 10**7, count)
  n = len(subject_id)
  sample_id = rng.permutation(10**6)[:n] + 1
  samples = pd.DataFrame(
    {
      'sample_id': sample_id,
      'subject_id': subject_id,
      'prediction_time': pd.Timestamp('2150-01-01')
      + pd.to_timedelta(rng.integers(0, 10**7, n), unit='s'),
      'label': (rng.random(n) < 0.3).astype(float),
      'age': rng.uniform(18, 89, n),
      'sex': rng.choice(['F', 'M', None], n),
    }
  )
  static = pd.DataFrame(
    {
      'sample_id': sample_id,
      'age': samples['age'],
      'weight': np.where(rng.random(n) < 0.3, np.nan, rng.normal(80, 10, n)),
      'gender': samples['sex'],
    }
  )
  tables = {'samples': samples, 'static': static}
  for modality, items in kinds.events(SCHEMA).items():
    owner = np.repeat(sample_id, rng.integers(0, long + 1, n) * (rng.random(n) < 0.9))
    item = rng.integers(0, len(items), len(owner))
    levels = np.array([len(i.categories) for i in items])[item]
    value = np.where(levels > 0, np.nan, rng.normal(4, 1, len(owner)))
    category = np.where(
      levels > 0, rng.integers(0, 10**6, len(owner)) % (levels + (levels == 0)), -1
    )
    tables[f'events_{modality}'] = pd.DataFrame(
      {
        'sample_id': owner,
        'item': item.astype(np.int32),
        'value': value.astype(np.float32),
        'category': category.astype(np.int32),
        # Coarse, so that equal times occur.
        'time': (-rng.integers(0, 48, len(owner)) / 2).astype(np.float32),
      }
    )
  cells = np.argwhere(rng.random((n, 6, 2)) < 0.4)
  tables['grid_vitals'] = pd.DataFrame(
    {
      'sample_id': sample_id[cells[:, 0]],
      'step': cells[:, 1].astype(np.int32),
      'signal': cells[:, 2].astype(np.int32),
      'value': rng.normal(80, 5, len(cells)).astype(np.float32),
    }
  )
  tables['recordings'] = _recordings(folder / 'ecg', samples, rng)
  for name, table in tables.items():
    table.sample(frac=1, random_state=seed).to_parquet(folder / f'{name}.parquet')
  return staged()


def _recordings(
  folder: Path, samples: pd.DataFrame, rng: np.random.Generator
) -> pd.DataFrame:
  folder.mkdir()
  rows = []
  for number, subject in enumerate(samples['subject_id'].unique()[::3]):
    path = folder / f'r{number}'
    write_ecg(path, rng, flat=number == 0)
    for sample in samples['sample_id'][samples['subject_id'] == subject]:
      # Number 1 has more recordings than a batch may keep.
      for study in range(5 if number == 1 else 1 + number % 2):
        measured = rng.normal(400, 50, 9)
        measured[rng.random(9) < 0.3] = np.nan
        rows.append(
          {
            'sample_id': sample,
            'study_id': 100 * number + study,
            'path': str(path),
            'time': np.float32(-rng.integers(0, 20)),
            **dict(zip(ECG_MEASUREMENTS, measured, strict=True)),
            'terms': np.flatnonzero(rng.random(3) < 0.5).astype(np.int32),
          }
        )
  return pd.DataFrame(rows)


def write_ecg(path: Path, rng: np.random.Generator, *, flat: bool = False) -> None:
  """Writes one format 16 record of 10 s at 500 Hz; all leads are flat if asked."""
  leads = ('I', 'II', 'III', 'aVR', 'aVF', 'aVL', 'V1', 'V2', 'V3', 'V4', 'V5', 'V6')
  phase = 2 * np.pi * rng.uniform(1, 8, 12) * np.arange(5000)[:, None] / 500
  signal = (200 * np.sin(phase) * (not flat)).round().astype('<i2')
  path.with_suffix('.dat').write_bytes(signal.tobytes())
  lines = [f'{path.name} 12 500 5000']
  for column, lead in enumerate(leads):
    checksum = int(signal[:, column].astype(np.int64).sum()) % 65536
    checksum -= 65536 * (checksum > 32767)
    lines.append(
      f'{path.name}.dat 16 200.0(0)/mV 16 0 {signal[0, column]} {checksum} 0 {lead}'
    )
  path.with_suffix('.hea').write_text('\n'.join(lines) + '\n')


def build_dataset(folder: Path, *, workers: int = 1, **sizes: int) -> Path:
  """Writes staging files and prepares `folder / 'out'` from them."""
  raw = folder / 'raw'
  raw.mkdir()
  staged = write_staging(raw, **sizes)
  return build_from(raw, staged, folder / 'out', workers=workers)


def build_from(
  raw: Path,
  staged: Staged,
  out: Path,
  *,
  workers: int = 1,
  memory_limit: str = '1GB',
  max_dropped_recordings: float = 0.2,
) -> Path:
  """Prepares `out` from the staging files in `raw`."""

  def stage(tables: Path) -> Staged:
    for path in raw.glob('*.parquet'):
      (tables / path.name).write_bytes(path.read_bytes())
    return staged

  build.build(
    stage,
    out,
    request=REQUEST,
    memory_limit=memory_limit,
    workers=workers,
    max_dropped_recordings=max_dropped_recordings,
    subject_key=SUBJECT_KEY,
  )
  return out


def batching(
  buckets: tuple[dict[str, int], ...] = (
    {'labs': 8, 'notes': 8},
    {'labs': 20, 'notes': 16},
  ),
  *,
  max_recordings: int = 3,
  recordings_per_row: float = 1.0,
) -> Batching:
  """Small capacities of a batch."""
  return Batching(buckets, max_recordings, recordings_per_row)
