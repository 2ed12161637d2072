"""Targets that no published task has: trained, blended, explained, audited, bundled."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from configs import task
from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.schema import Target
from medm2t_jax import audit
from medm2t_jax.audit import shuffled
from medm2t_jax.evaluation import evaluate
from medm2t_jax.experiment import read
from medm2t_jax.inference import bundling, predicting
from medm2t_jax.inference.trained_model import TrainedModel
from medm2t_jax.runs import workdir
from medm2t_jax.runs.run import make_runs
from medm2t_jax.training import train
from tests.support import static_data

LABELS = Target('multilabel', ('old', 'heavy', 'nobody'), description='what a scale shows')
GRAMS = Target('regression', unit='g', description='weight at the next visit')
SUBJECTS = 80


def _with_labels(raw):
  """Two labels that static columns tell, some not known, and one that nobody has."""
  table = _static_by_sample(raw)
  known = np.random.default_rng(0).random((len(table), 2)) < 0.8
  known[:, 0] |= ~known.any(axis=1)
  true = np.stack([table['age'] > 60, table['weight'] > 75], axis=1)
  listed = [
    [*(float(one) if k else None for one, k in zip(*row, strict=True)), 0.0]
    for row in zip(true, known, strict=True)
  ]
  _replace_labels(raw, table['sample_id'], listed)


def _with_grams(raw):
  table = _static_by_sample(raw)
  noise = np.random.default_rng(0).normal(0, 500, len(table))
  _replace_labels(raw, table['sample_id'], 1000 * table['weight'] + noise)


def _static_by_sample(raw):
  table = pd.read_parquet(raw / 'static.parquet')
  random = np.random.default_rng(1)
  table['age'] = random.uniform(20, 100, len(table))
  table['weight'] = random.uniform(50, 100, len(table))
  table.to_parquet(raw / 'static.parquet')
  return table


def _replace_labels(raw, sample_id, labels):
  samples = pd.read_parquet(raw / 'samples.parquet').set_index('sample_id')
  samples = samples.loc[sample_id].reset_index()
  samples['label'] = list(labels)  # by place, not by the table's index
  samples.to_parquet(raw / 'samples.parquet')


def _evaluated(folder, target, change, baselines):
  data = open_dataset(
    static_data.build(
      folder, change=change, subjects=SUBJECTS, target=target, task='weighing'
    )
  )
  config = task.get_config('weighing,smoke').unlock()
  config.data.dir = str(data.directory)
  # Encoders and their stages: train_test.py, tasks_test.py.
  config.model.update(ensemble=2, deep='none', single_stages='none')
  static_data.quickly_compiled(config)
  config.stages = 'multimodal'
  config.recipe.multimodal.update(starts_from=(), frozen=())
  config.evaluation.update(
    batch_size=32,
    baselines=baselines,
    bootstrap=20,
    explained=2,
    explained_globally=4,
    sections=('discrimination', 'baselines', 'explanation', 'card'),
  )
  config.blend = ('boosted_trees', 'logistic_regression')
  for fields in config.recipe.values():
    fields.update(batch_size=8, epochs=4)
  folds = make_runs(read(config), data, folder / 'workdir')
  workdir.claim(folds[0].workdir, folds[0].config, data.version)
  train.train(folds)
  evaluate.evaluate(folds)
  return folds[0]


@pytest.fixture(scope='module')
def labels(tmp_path_factory):
  return _evaluated(
    tmp_path_factory.mktemp('labels'), LABELS, _with_labels, baselines=('gru',)
  )


@pytest.fixture(scope='module')
def grams(tmp_path_factory):
  return _evaluated(tmp_path_factory.mktemp('grams'), GRAMS, _with_grams, baselines=())


def metrics_of(fold):
  return json.loads((fold.workdir / 'eval' / 'metrics.json').read_text())


def test_labels_are_learnt_each_where_it_is_known(labels):
  found = metrics_of(labels)
  assert found['headline']['name'] == 'AUROC' and found['headline']['value'] > 0.85
  assert found['pooled']['classes']['nobody']['auroc']['value'] is None
  assert found['pooled']['micro']['auroc']['value'] > 0.85
  table = pq.read_table(labels.workdir / 'eval' / 'predictions.parquet').to_pandas()
  tested = np.stack(table[table.split == 'test']['label'])
  counts = [int(np.isfinite(tested[:, i]).sum()) for i in (0, 1)]
  each = found['pooled']['classes']
  assert [each[name]['auroc']['n'] for name in ('old', 'heavy')] == counts
  assert min(counts) < len(tested)
  # The label that nobody has is predicted by its share, not as impossible.
  assert table['p2'].min() > 0 and table['p2'].max() < 0.2


def test_an_unknown_label_has_no_part(labels):
  """Its value in the records changes no fitted weight and no loss: it is masked."""
  index = labels.dataset.index['label']
  assert np.isnan(index[:, :2]).any() and not np.isnan(index).all(axis=1).any()
  batch = next(
    labels.reader.read_here(
      labels.reader.plan(np.arange(32), ('static',), 32, devices=1), ('static',)
    )
  )
  row = batch['row'][0]
  valid = row >= 0
  expected = np.nan_to_num(index[row[valid]], nan=-1)
  np.testing.assert_array_equal(batch['label'][0][valid], expected)


def test_numbers_in_grams_are_learnt_as_well_as_in_kilograms(grams):
  found = metrics_of(grams)
  assert grams.statistics['decoder']['output_scale'] == 1e4
  assert found['headline']['name'] == 'MAE'
  spread = np.abs(grams.dataset.index['label'] - grams.dataset.index['label'].mean())
  assert found['headline']['value'] < 0.35 * spread.mean()
  alone = next(each for each in found['baselines'] if each['name'] == 'model_alone')
  assert alone['metrics']['mae']['value'] < 0.6 * spread.mean()
  bands = found['pooled']['bands']
  assert len(bands) >= 3 and bands[-1]['high'] is None
  page = (grams.workdir / 'eval' / 'report.html').read_text()
  assert 'Weight at the next visit' in page and '(g)' in page and 'days' not in page


@pytest.mark.parametrize('name', ['labels', 'grams'])
def test_they_are_explained_audited_and_bundled(name, request, monkeypatch):
  monkeypatch.setattr(shuffled, 'EPOCHS', 2)
  fold = request.getfixturevalue(name)
  explained = metrics_of(fold)['explanation']
  assert explained['items'] and len(explained['patients']) == 2
  page = (fold.workdir / 'eval' / 'patients' / '1.html').read_text()
  assert {'labels': 'log odds of', 'grams': 'predicted g'}[name] in page
  if name == 'labels':  # of numbers: tests/audit
    found = audit.audit([fold])
    # On purpose, static columns tell the label.
    assert set(found['failed']) <= {'inputs against the label'}
  model = TrainedModel.load(bundling.folder_of(fold.workdir, fold.fold))
  assert model.check() < 1e-5
  again = predicting.predict(model, fold.dataset, allow_seen=True)
  table = pq.read_table(fold.workdir / 'eval' / 'predictions.parquet').to_pandas()
  tested = table[table.split == 'test'].set_index('sample_id')
  columns = ['p0', 'p1', 'p2'] if name == 'labels' else ['prediction']
  place = np.flatnonzero(np.isin(fold.dataset.index['sample_id'], tested.index))
  ids = fold.dataset.index['sample_id'][place]
  expected = tested.loc[ids, columns].to_numpy()
  predictions = again.predictions.reshape(len(fold.dataset), -1)
  np.testing.assert_allclose(predictions[place], expected, rtol=1e-5)
