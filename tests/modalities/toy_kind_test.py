"""A kind of modality is two classes: a toy one is prepared, trained, explained, audited."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from configs import common
from data_pipeline.format import modalities as format_kinds
from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.heads import read_head
from data_pipeline.sources import Staged
from medm2t_jax import audit, modalities
from medm2t_jax.audit import shuffled
from medm2t_jax.evaluation import evaluate
from medm2t_jax.experiment import read
from medm2t_jax.inference import bundling, predicting
from medm2t_jax.inference.trained_model import TrainedModel
from medm2t_jax.runs import workdir
from medm2t_jax.runs.run import make_runs
from medm2t_jax.training import train
from tests.support import kinds, staging_fixture, static_data
from tests.support.toy_kind import Visits, VisitsOfModel, write_visits

NAME, DAYS, EPOCHS = 'clinic', 4, 5


@pytest.fixture(scope='module', autouse=True)
def registered():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(format_kinds, 'KINDS', (*format_kinds.KINDS, Visits))
    patch.setattr(modalities, 'KINDS', (*modalities.KINDS, VisitsOfModel))
    yield


def build(folder, days=DAYS):
  raw = folder / 'raw'
  raw.mkdir()
  staging_fixture.write_staging(raw, subjects=60)
  write_visits(raw, NAME, days)
  schema = staging_fixture.SCHEMA.only(('static',))
  schema = dataclasses.replace(schema, observation_hours=24.0 * DAYS)
  schema = kinds.replaced(schema, **{NAME: Visits(days)})
  staged = Staged(schema, staging_fixture.COHORT, {'fixture': '1.0'})
  return open_dataset(staging_fixture.build_from(raw, staged, folder / 'out'))


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
  return build(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def fold(dataset, tmp_path_factory):
  """A fold that is trained and evaluated, with one entry in its config for the kind."""
  config = static_data.config(dataset.directory)
  config.stages = f'{NAME},multimodal'
  config.recipe.visits = common.stage(8, 1e-2, epochs=EPOCHS, patience=EPOCHS)
  # By the recipe of its kind, not by name.
  config.recipe.multimodal.starts_from = ('labs',)
  config.recipe.multimodal.update(
    batch_size=8, epochs=EPOCHS, patience=EPOCHS, learning_rate=1e-2
  )
  config.evaluation.update(
    baselines=('logistic_regression', 'gru', 'single_modalities'),
    robustness_samples=16, bootstrap=20, explained=1, explained_globally=7,
    sections=(
      'discrimination', 'baselines', 'missing_modality', 'robustness', 'explanation',
      'card',
    ),
  )  # fmt: skip
  config.model.update(trunk='ensemble', ensemble=2, size='tiny', fusion='none')
  folds = make_runs(read(config), dataset, tmp_path_factory.mktemp('workdir'))
  workdir.claim(folds[0].workdir, folds[0].config, dataset.version)
  train.train(folds)
  evaluate.evaluate(folds)
  return folds[0]


@pytest.fixture(scope='module')
def metrics(fold):
  return json.loads((fold.workdir / 'eval' / 'metrics.json').read_text())


def test_its_rows_are_in_the_records_and_counted_in_the_index(dataset):
  raw = pd.read_parquet(dataset.directory.parent / 'raw' / f'visits_{NAME}.parquet')
  for row in range(0, len(dataset), 9):
    own = raw[raw['sample_id'] == dataset.index['sample_id'][row]]
    number = np.zeros(DAYS)
    number[own['day']] = own['number']
    found = read_head(dataset, row)
    np.testing.assert_array_equal(found[f'visits/{NAME}/number'], number)
    assert dataset.lengths(NAME)[row] == found[f'visits/{NAME}/known'].sum() == len(own)
  (entry,) = [
    each for each in dataset.metadata['schema']['modalities'] if each['name'] == NAME
  ]
  assert entry == {'name': NAME, 'kind': 'visits', 'days': DAYS}


def test_its_stage_has_the_recipe_of_its_kind_and_the_model_starts_from_it(fold):
  record = fold.record(NAME)
  assert record is not None and not record.skipped and record.epochs == EPOCHS
  assert fold.record('multimodal').part_weights[NAME] != 0


def test_it_predicts(fold, metrics):
  scenarios = {each['name']: each for each in metrics['missing_modality']}
  assert metrics['headline']['value'] > 0.9
  assert scenarios[f'only {NAME}']['metric']['value'] > 0.9
  assert scenarios['only static']['metric']['value'] < 0.85
  names = {each['name']: each for each in metrics['baselines']}
  assert {'logistic_regression', 'gru', f'single_{NAME}'} <= names.keys()


def test_it_is_explained(fold, metrics):
  first = metrics['explanation']['items'][0]
  assert first['modality'] == NAME and 'days ago' in first['name']
  page = (fold.workdir / 'eval' / 'patients' / '1.html').read_text()
  assert 'days ago' in page


def test_it_is_damaged(metrics):
  curves = {curve['name']: curve for curve in metrics['robustness']}
  for name in ('later_start', 'times_earlier', 'events_removed', 'modalities_lost'):
    levels = [level['metric']['value'] for level in curves[name]['levels']]
    assert levels, name
  removed = [level['metric']['value'] for level in curves['modalities_lost']['levels']]
  assert removed[-1] < curves['modalities_lost']['undamaged']['value']


def test_it_is_audited(fold, monkeypatch):
  monkeypatch.setattr(shuffled, 'EPOCHS', 2)
  found = audit.audit([fold])
  checks = json.loads((fold.workdir / 'eval' / 'audit.json').read_text())['checks']
  by_name = {check['name']: check for check in checks}
  assert by_name[f'times, {NAME}']['passed'] and by_name['fitted state, fold 0']['passed']
  # Visits tell the label on purpose; by chance anything else may.
  assert set(found['failed']) <= {'inputs against the label', 'drift, fold 0'}


def test_a_bundle_predicts_with_it_and_lines_it_up(fold, dataset, tmp_path):
  model = TrainedModel.load(bundling.folder_of(fold.workdir, fold.fold))
  assert model.check() < 1e-6 and model.schema == dataset.schema
  found = predicting.predict(model, dataset, allow_seen=True)
  shares = {
    each['code']: each for each in found.coverage['variables'] if each['modality'] == NAME
  }
  assert len(shares) == DAYS and all(each['share'] > 0.5 for each in shares.values())
  longer = build(tmp_path, DAYS + 2)
  again = predicting.predict(model, longer, allow_seen=True)
  ignored = {each['code'] for each in again.coverage['ignored']}
  assert ignored == {'day-5', 'day-6'} and not again.coverage['absent']
