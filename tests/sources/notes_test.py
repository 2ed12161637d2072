"""Notes as vectors: the user's file, what is refused, and a model that reads them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.heads import read_head
from data_pipeline.format.modalities import Notes
from data_pipeline.format.schema import DataError
from data_pipeline.reading.alignment import Alignment
from data_pipeline.sources import Resources, Staged
from data_pipeline.sources.common.notes import NAME, checked
from data_pipeline.sources.common.raw_tables import in_scratch
from medm2t_jax.evaluation import evaluate
from medm2t_jax.experiment import read
from medm2t_jax.runs.run import make_runs
from medm2t_jax.training import train
from tests.support import kinds, staging_fixture, static_data
from tests.support.small_hospital import Hospital

WIDTH = 5
TIMES = ('2150-03-01 09:00', '2150-03-02 10:00', '2150-03-02 10:01', '2150-03-01 22:00')


def table(**columns):
  count = len(TIMES)
  made = {
    'subject_id': [1] * count,
    'time': pd.to_datetime(list(TIMES)).astype('datetime64[us]'),
    'vector': [[float(row)] * WIDTH for row in range(count)],
    **columns,
  }
  return pd.DataFrame({name: each for name, each in made.items() if each is not None})


def written(tmp_path, frame):
  path = tmp_path / 'notes.parquet'
  pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
  return path


@pytest.mark.parametrize('key', ['subject_id', 'stay_id', 'sample_id'])
def test_notes_of_the_observation_window_are_staged_and_the_others_counted(tmp_path, key):
  number = 1 if key == 'subject_id' else 100
  frame = table(**{'subject_id': None, key: [number] * len(TIMES)})
  unknown = frame.iloc[:2].assign(**{key: [9, None]})
  hospital = Hospital(tmp_path / 'hospital')
  result = hospital.stage(notes=written(tmp_path, pd.concat([frame, unknown])))
  assert result.schema.modalities[NAME] == Notes(WIDTH)
  assert result.cohort['rows'][NAME] == {
    'read': 6, 'dropped: missing key or time': 1, 'dropped: of no sample': 1,
    'dropped: after the prediction time': 1, 'dropped: before the observation window': 1,
    'used': 2,
  }  # fmt: skip
  found = hospital.read(f'notes_{NAME}').sort_values('time')
  assert found['time'].tolist() == [-12, 0]
  assert [vector[0] for vector in found['vector']] == [3, 1]
  assert set(found['sample_id']) == {100}


@pytest.fixture(scope='module')
def raw(tmp_path_factory):
  with in_scratch(tmp_path_factory.mktemp('staging'), Resources('1GB')) as (tables, _):
    yield tables


ZONED = table()['time'].dt.tz_localize('UTC')


@pytest.mark.parametrize(
  ('columns', 'message'),
  [
    ({'vector': None}, 'column vector is missing'),
    ({'time': None}, 'column time is missing'),
    ({'subject_id': None}, 'none of the columns sample_id, stay_id, subject_id'),
    ({'time': ZONED}, 'without a zone'),
    ({'vector': ['a'] * 4}, 'not a list of numbers'),
    ({'vector': [[1.0], [1.0], [1.0, 2.0], [1.0]]}, 'have 1 to 2 numbers'),
    ({'vector': [[1.0], None, [1.0], [1.0]]}, 'some are null'),
    (
      {'vector': [[1.0], [np.nan], [1.0], [1.0]]},
      '1 vectors have a missing or non-finite number',
    ),
    (
      {'vector': [[1.0], [1e300], [1.0], [np.inf]]},
      '2 vectors have a missing or non-finite number',
    ),
    ({'note_type': ['RR', 'DS', 'RR', 'RR']}, '1 rows are discharge summaries'),
    ({'Category': ['Discharge summary', 'x', None, 'DISCHARGE']}, '2 rows are discharge'),
  ],
)
def test_what_is_no_such_file_is_refused_in_one_line(raw, tmp_path, columns, message):
  with pytest.raises(DataError, match=message) as caught:
    path = written(tmp_path, table(**columns))
    checked(raw, path, stays=True)
  assert '--notes=' in str(caught.value) and '\n' not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused_before_any_table_is(tmp_path):
  hospital = Hospital(tmp_path / 'hospital')
  hospital.write()
  (hospital.root / 'hosp' / 'patients.csv').unlink()
  with pytest.raises(DataError, match='column vector is missing'):
    hospital.run(notes=written(tmp_path, table(vector=None)))


def build(folder, width=WIDTH):
  """Static columns and notes; those of the dead point elsewhere."""
  raw = folder / 'raw'
  raw.mkdir()
  staging_fixture.write_staging(raw, subjects=60)
  samples = pd.read_parquet(raw / 'samples.parquet')
  rng = np.random.default_rng(0)
  rows = []
  for place, (sample, label) in enumerate(
    zip(samples['sample_id'], samples['label'], strict=True)
  ):
    for _ in range(rng.integers(1, 4) if place % 6 else 0):
      vector = rng.normal(2 * label, 0.5, width).astype(np.float32)
      rows.append((sample, vector, np.float32(-rng.integers(0, 20))))
  frame = pd.DataFrame(rows, columns=['sample_id', 'vector', 'time'])
  frame.sample(frac=1, random_state=0).to_parquet(raw / f'notes_{NAME}.parquet')
  schema = kinds.replaced(staging_fixture.SCHEMA.only(('static',)), **{NAME: Notes(width)})
  made = Staged(schema, staging_fixture.COHORT, {'fixture': '1.0'})
  return open_dataset(staging_fixture.build_from(raw, made, folder / 'out'))


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
  return build(tmp_path_factory.mktemp('notes'))


def test_a_record_has_the_notes_in_order_of_time(dataset):
  raw = pd.read_parquet(dataset.directory.parent / 'raw' / f'notes_{NAME}.parquet')
  for row in range(0, len(dataset), 11):
    own = raw[raw['sample_id'] == dataset.index['sample_id'][row]].sort_values('time')
    found = read_head(dataset, row)
    assert found[f'notes/{NAME}/vector'].shape == (len(own), WIDTH)
    np.testing.assert_array_equal(found[f'notes/{NAME}/time'], own['time'])
    assert dataset.lengths(NAME)[row] == len(own)


def test_vectors_of_another_length_are_not_read(dataset):
  other = kinds.changed(dataset.schema, NAME, width=WIDTH + 1)
  (absent,) = Alignment(other, dataset.schema).absent
  assert absent.reason == f'vectors of {WIDTH} numbers; the model has {WIDTH + 1}'


def test_a_model_learns_from_notes_and_says_so(dataset, tmp_path):
  config = static_data.config(dataset.directory)
  config.stages = 'multimodal'
  config.recipe.multimodal.update(
    batch_size=8, epochs=6, patience=6, learning_rate=1e-2, starts_from=(), frozen=()
  )
  config.evaluation.update(
    sections=('missing_modality', 'explanation'), bootstrap=10, explained=1,
    explained_globally=8,
  )  # fmt: skip
  # The trunk reads their summary, the deep network beside it all of them.
  config.model.update(
    trunk='ensemble', ensemble=2, size='tiny', single_stages='none', fusion='none'
  )
  folds = make_runs(read(config), dataset, tmp_path)
  train.train(folds)
  metrics = evaluate.evaluate(folds)
  scenarios = {
    each['name']: each['metric']['value'] for each in metrics['missing_modality']
  }
  assert scenarios[f'only {NAME}'] > 0.9 > scenarios['only static']
  first = metrics['explanation']['items'][0]
  assert (first['modality'], first['name']) == (NAME, 'notes')
  assert metrics['explanation']['largest_residual'] < 0.1
  page = (tmp_path / 'eval' / 'patients' / '1.html').read_text()
  assert f'{NAME}: ' in page
