"""Baselines of a fold: what they are fitted on, what they predict, what is kept."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from configs import mortality
from data_pipeline.format.schema import DataError, Target
from medm2t_jax import baselines
from medm2t_jax.baselines import (
  boosted_trees,
  choosing,
  gru,
  logistic_regression,
  reading,
)
from medm2t_jax.baselines.inputs import Inputs
from medm2t_jax.baselines.summary_statistics import Table
from medm2t_jax.experiment import read
from medm2t_jax.runs.run import Run

FITTED = (logistic_regression, boosted_trees, gru)
DAYS = Target('regression', unit='days', low=0.0)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
  monkeypatch.setitem(gru.SETTINGS, 'epochs', 2)
  monkeypatch.setitem(gru.SETTINGS, 'hidden', 8)
  monkeypatch.setitem(boosted_trees._FIXED, 'max_iter', 10)
  monkeypatch.setitem(boosted_trees._FIXED, 'min_samples_leaf', 5)


@pytest.fixture
def fold(dataset, tmp_path):
  """A fold of the small random data set: the modalities that the model has sizes for."""
  return _fold(dataset, tmp_path)


def _fold(dataset, directory, names=('logistic_regression',), target=None, **data):
  schema = dataset.schema.only(('static', 'labs', 'ecg'))
  if target is not None:
    schema = dataclasses.replace(schema, target=target)
  config = mortality.get_config('smoke').unlock()
  config.refit = True
  config.data.buckets = ({'labs': 32},)
  config.data.update(data)
  config.evaluation.batch_size = 16
  config.evaluation.baselines = names
  return Run(read(config), dataclasses.replace(dataset, schema=schema), 0, directory)


def _changed(monkeypatch, change):
  """Lets `change(split, batch)` have every batch that baselines read."""
  read = reading.batches

  def batches(fold, split):
    for batch in read(fold, split):
      yield change(split, jax.tree.map(np.copy, batch))

  monkeypatch.setattr(reading, 'batches', batches)


@pytest.mark.parametrize(
  ('baseline', 'target'),
  [*((baseline, None) for baseline in FITTED), (boosted_trees, DAYS)],
  ids=['logistic_regression', 'boosted_trees', 'gru', 'boosted_trees of days'],
)
def test_test_subjects_have_no_part_in_the_fit(
  baseline, target, dataset, tmp_path, monkeypatch
):
  fold = _fold(dataset, tmp_path, target=target)
  rows = dataset.rows(0, 'test')
  expected = baseline.fit_predict(Inputs(fold))
  assert len(expected) == len(rows)
  if target is None:
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-6)
  absurd = rows[::2]

  def change(split, batch):
    if split == 'test':
      batch['label'] = 1 - batch['label']
      own = np.isin(batch['row'], absurd)
      batch['labs']['value'][own] = 1e6
      batch['static']['numeric'][own] = -1e6
    return batch

  _changed(monkeypatch, change)
  found = baseline.fit_predict(Inputs(fold))
  others = ~np.isin(rows, absurd)
  np.testing.assert_array_equal(found[others], expected[others])
  assert not np.array_equal(found[~others], expected[~others])


@pytest.mark.parametrize('baseline', FITTED, ids=lambda module: module.__name__[21:])
def test_what_can_be_known_is_learned_for_the_right_sample(baseline, fold, monkeypatch):
  monkeypatch.setitem(gru.SETTINGS, 'epochs', 20)

  def change(split, batch):
    del split
    # Nothing else is known, so nothing else can be learned.
    batch['labs']['mask'][:] = False
    batch['ecg']['mask'][:] = False
    batch['static']['categorical'][:] = -1
    batch['static']['numeric_mask'][:] = [True, False]
    batch['static']['numeric'][:, 0] = 50 + 10 * batch['label']
    return batch

  _changed(monkeypatch, change)
  predicted = baseline.fit_predict(Inputs(fold))
  label = fold.dataset.index['label'][fold.dataset.rows(0, 'test')]
  assert predicted[label == 1, 1].min() > predicted[label == 0, 1].max()


def test_tables_do_not_depend_on_batches(dataset, fold, tmp_path):
  expected = Inputs(fold)
  other = _fold(dataset, tmp_path, buckets=({'labs': 40},))
  other.config = other.config.changed({'evaluation.batch_size': 8})
  found = Inputs(other)
  for split, table in expected.summaries.items():
    np.testing.assert_array_equal(table.row, dataset.rows(0, split))
    np.testing.assert_array_equal(table.label, dataset.index['label'][table.row])
    recordings = table.value[:, table.names.index('ecg/recordings')]
    np.testing.assert_array_equal(recordings, dataset.lengths('ecg')[table.row])
    np.testing.assert_array_equal(found.summaries[split].value, table.value)
    np.testing.assert_array_equal(found.windows[split], expected.windows[split])


def test_predictions_are_kept_with_their_samples(fold, monkeypatch):
  first, left_out = baselines.predict([fold], [Inputs(fold)])
  assert list(first) == ['logistic_regression'] and left_out == []
  path = fold.workdir / 'fold0' / 'baselines' / 'logistic_regression.parquet'
  rows = fold.dataset.rows(0, 'test')
  samples = pq.read_table(path)['sample_id'].to_numpy()
  np.testing.assert_array_equal(samples, fold.dataset.index['sample_id'][rows])

  def fail(inputs):
    raise AssertionError('fitted again')

  monkeypatch.setattr(logistic_regression, 'fit_predict', fail)
  again, _ = baselines.predict([fold], [Inputs(fold)])
  np.testing.assert_array_equal(again['logistic_regression'], first['logistic_regression'])


@pytest.mark.parametrize(
  'changed', ['data', 'splits', 'settings', 'seed', 'refit', 'input']
)
def test_stale_predictions_are_made_again(changed, fold, monkeypatch):
  baselines.predict([fold], [Inputs(fold)])
  marked = np.full((len(fold.dataset.rows(0, 'test')), 2), 0.5)
  monkeypatch.setattr(logistic_regression, 'fit_predict', lambda inputs: marked)
  dataset = fold.dataset
  if changed == 'data':
    dataset = dataclasses.replace(dataset, version='another')
  elif changed == 'splits':
    index = dict(dataset.index)
    index['validates_0'] = np.where(index['fold'] == 1, 1, 0)
    dataset = dataclasses.replace(dataset, index=index)
  elif changed == 'settings':
    monkeypatch.setitem(logistic_regression.SETTINGS, 'clip', 9.0)
  elif changed == 'seed':
    fold.config = fold.config.changed({'seed': 7})
  elif changed == 'refit':
    fold.config = fold.config.changed({'refit': False})
  else:
    fold.config = fold.config.changed({'data.max_recordings': 2})
  again = Run(fold.config, dataset, 0, fold.workdir)
  found, _ = baselines.predict([again], [Inputs(again)])
  np.testing.assert_array_equal(found['logistic_regression'], marked)


def test_damaged_predictions_are_refused(fold):
  baselines.predict([fold], [Inputs(fold)])
  path = fold.workdir / 'fold0' / 'baselines' / 'logistic_regression.parquet'
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(DataError, match=r'logistic_regression\.parquet.*Delete it'):
    baselines.predict([fold], [Inputs(fold)])


def test_unknown_baselines_are_refused(dataset, tmp_path):
  with pytest.raises(DataError, match=r"baselines.*'forest' is unknown; known: logistic"):
    _fold(dataset, tmp_path, names=('gru', 'forest'))


def test_stages_that_were_not_trained_are_left_out_by_name(dataset, tmp_path):
  fold = _fold(dataset, tmp_path, names=('single_modalities',))
  predictions, left_out = baselines.predict([fold], [Inputs(fold)])
  assert predictions == {}
  assert [sentence.split()[0] for sentence in left_out] == ['static', 'labs', 'ecg']


@pytest.mark.parametrize('baseline', [logistic_regression, boosted_trees])
def test_classes_that_nobody_trained_on_have_probability_0(baseline):
  rng = np.random.default_rng(0)
  value = rng.normal(size=(40, 3)).astype(np.float32)
  table = lambda label: Table(np.arange(40), label, np.ones(40), value, ('a', 'b', 'c'))
  target = Target('multiclass', ('none', 'chd', 'stroke'))
  validation = table(np.arange(40) % 3.0)
  seed = (0,) if baseline is boosted_trees else ()
  for labels, expected in ((np.arange(40) % 2.0, 2), (np.ones(40), 1)):
    fitted = baseline.fit(table(labels), validation, target, *seed, refit=False)
    assert fitted.final is fitted.chosen
    predicted = choosing.predict(fitted.final, value, target)
    assert (predicted.max(axis=0) > 0).sum() == expected
    np.testing.assert_allclose(predicted.sum(axis=1), 1, atol=1e-6)


def _tables(target, sizes=(60, 40), weighted=False):
  """Training and validation samples, interleaved in the index, and others."""
  rng = np.random.default_rng(0)
  order = rng.permutation(sum(sizes))
  for row in (*np.split(order, [sizes[0]]), np.arange(200, 230)):
    value = rng.normal(size=(len(row), 4)).astype(np.float32)
    value[rng.random(value.shape) < 0.2] = np.nan
    label = np.nan_to_num(value[:, 0]) + rng.normal(size=len(row))
    if not target.numeric:
      label = (label > 0).astype(float)
    weight = rng.choice([0.1, 1, 2], len(row)) if weighted else np.ones(len(row))
    order = np.argsort(row)
    yield Table(row[order], label, weight, value, ('a', 'b', 'c', 'd'))


def _together(train, validation):
  order = np.argsort(np.concatenate([train.row, validation.row]))
  join = lambda name: np.concatenate([getattr(train, name), getattr(validation, name)])
  return join('value')[order], join('label')[order], join('weight')[order]


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('target', [Target('binary', ('no', 'yes')), DAYS])
def test_a_linear_refit_is_that_of_scikit_learn_on_both(target, weighted):
  train, validation, others = _tables(target, weighted=weighted)
  fitted = logistic_regression.fit(train, validation, target, refit=True)
  value, label, weight = _together(train, validation)
  impute = SimpleImputer(strategy='median', add_indicator=True).fit(value)
  scale = StandardScaler().fit(impute.transform(value))
  given = lambda value: np.clip(scale.transform(impute.transform(value)), -5, 5)
  chosen = fitted.chosen[-1]
  if target is DAYS:
    model = Ridge(alpha=chosen.alpha)
  else:
    model = LogisticRegression(C=chosen.C, max_iter=5000)
  model.fit(given(value), label, weight)
  expected = choosing.predict(model, given(others.value), target)
  found = choosing.predict(fitted.final, others.value, target)
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  first = logistic_regression.fit(train, validation, target, refit=False)
  of_first = choosing.predict(first.final, others.value, target)
  np.testing.assert_array_equal(
    of_first, choosing.predict(fitted.chosen, others.value, target)
  )
  assert np.abs(of_first - found).max() > 1e-3


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('target', [Target('binary', ('no', 'yes')), DAYS])
def test_refitted_trees_are_those_of_scikit_learn_on_both(target, weighted, monkeypatch):
  monkeypatch.setitem(boosted_trees._FIXED, 'max_iter', 60)
  monkeypatch.setitem(boosted_trees._FIXED, 'n_iter_no_change', 3)
  train, validation, others = _tables(target, weighted=weighted)
  fitted = boosted_trees.fit(train, validation, target, 0, refit=True)
  chosen = fitted.chosen
  assert chosen.n_iter_ < 60, 'else nothing was stopped'
  settings = {name: getattr(chosen, name) for name in ('max_leaf_nodes', 'loss')}
  kind = HistGradientBoostingClassifier
  if target is DAYS:
    kind = HistGradientBoostingRegressor
  model = kind(
    random_state=0,
    learning_rate=0.05,
    max_iter=chosen.n_iter_,
    early_stopping=False,
    max_features=0.2,
    min_samples_leaf=5,
    l2_regularization=1.0,
    **settings,
  )
  value, label, weight = _together(train, validation)
  # Weights of 1 are left out: they may add in another order.
  model.fit(value, label, weight if weighted else None)
  expected = choosing.predict(model, others.value, target)
  found = choosing.predict(fitted.final, others.value, target)
  np.testing.assert_array_equal(found, expected)
  assert fitted.final.n_iter_ == chosen.n_iter_


def test_the_network_is_trained_again_on_both_for_as_many_epochs(fold, monkeypatch):
  monkeypatch.setitem(gru.SETTINGS, 'epochs', 20)
  seen, epochs = [], gru._Training._epochs

  def counted(self, train):
    seen.append([len(train.label), 0])
    for number, params in enumerate(epochs(self, train)):
      seen[-1][1] = number
      yield params

  losses = iter([3.0, 1.0, *[2.0] * 5])
  monkeypatch.setattr(gru._Training, '_epochs', counted)
  monkeypatch.setattr(gru._Training, '_validation_loss', lambda *_: next(losses))
  gru.fit_predict(Inputs(fold))
  train, validation = (len(fold.splits.rows(split)) for split in ('train', 'validation'))
  assert seen == [[train, 7], [train + validation, 2]]
