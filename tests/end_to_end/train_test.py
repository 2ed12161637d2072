"""The whole loop on a small simulated hospital: raw tables to a restored prediction."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from flax import traverse_util
from scipy import special

from configs import cvd
from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.schema import DataError
from data_pipeline.preparation import build
from medm2t_jax.baselines import reading, single_modalities
from medm2t_jax.evaluation import evaluate, finished, robustness
from medm2t_jax.experiment import read
from medm2t_jax.experiment.validation import folds_of
from medm2t_jax.models import medm2t
from medm2t_jax.runs import workdir
from medm2t_jax.runs.reader import Reader
from medm2t_jax.runs.restoring import restore_best
from medm2t_jax.runs.run import Run, is_complete, make_runs, was_skipped
from medm2t_jax.training import starting, steps, train
from medm2t_jax.training.optimizer import make_optimizer
from tests.support import static_data
from tests.support.batches import batches_of

STAGES = ('labs', 'multimodal')


def experiment(**changes):
  """The smoke experiment with few stages; `changes` are dotted fields, `.` as `__`."""
  config = cvd.get_config('smoke')
  with config.unlocked():
    config.stages = ','.join(STAGES)
    # Ensembles and blends: tests/inference/trained_model_test.py.
    config.blend = ()
    config.model.update(trunk='decoder', fusion='none')
    static_data.quickly_compiled(config)
    config.recipe.multimodal.starts_from = ('labs',)
    config.recipe.multimodal.batch_size = 16
    config.data.buckets = ({'labs': 512},)
    config.evaluation.batch_size = 16
    config.evaluation.bootstrap = 20
    config.evaluation.sections = ('discrimination', 'baselines', 'card')
    config.update_from_flattened_dict(
      {name.replace('__', '.'): value for name, value in changes.items()}
    )
  return read(config)


@pytest.fixture(scope='module')
def hospital(tmp_path_factory):
  return tmp_path_factory.mktemp('hospital')


def prepared(hospital, task):
  build.prepare(
    source='simulated',
    task=task,
    out=hospital / task,
    raw=hospital / 'raw',
    patients=60,
    workers=1,
  )
  return open_dataset(hospital / task)


@pytest.fixture(scope='module')
def dataset(hospital):
  return prepared(hospital, 'cvd')


@pytest.fixture(scope='module')
def trained(dataset, tmp_path_factory):
  """A trained and evaluated fold, and the metrics of its evaluation."""
  config = experiment(evaluation__baselines=('logistic_regression', 'single_modalities'))
  folds = make_runs(config, dataset, tmp_path_factory.mktemp('workdir'))
  train.train(folds)
  return folds[0], evaluate.evaluate(folds)


def test_the_loop_leaves_checkpoints_metrics_and_a_report(trained):
  fold, metrics = trained
  results = fold.workdir / 'eval'
  assert json.loads((results / 'metrics.json').read_text()) == metrics
  assert (results / 'report.html').stat().st_size > 10_000
  for stage in STAGES:
    record = workdir.read_record(fold.workdir, 0, stage)
    assert record is not None and record.epochs == 1 and np.isfinite(record.validation_loss)
    lines = (fold.workdir / 'fold0' / stage / 'metrics.jsonl').read_text().splitlines()
    assert [json.loads(line)['epoch'] for line in lines] == [1]
  table = pq.read_table(results / 'predictions.parquet').to_pydict()
  for split in ('validation', 'test'):
    rows = fold.dataset.rows(0, split)
    found = [
      sample
      for sample, its_split in zip(table['sample_id'], table['split'], strict=True)
      if its_split == split
    ]
    assert sorted(found) == sorted(fold.dataset.index['sample_id'][rows].tolist())
  probabilities = np.stack([table[f'p{c}'] for c in range(4)], axis=1)
  np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def restored(fold):
  variables, _ = restore_best(fold, 'multimodal')
  return steps.predictor(fold.model, 'multimodal', variables)


def test_a_restored_checkpoint_predicts_the_same(trained):
  fold, _ = trained
  table = pq.read_table(fold.workdir / 'eval' / 'predictions.parquet').to_pandas()
  before = table[table.split == 'test'].sort_values('sample_id')
  again = Run(fold.config, fold.dataset, 0, fold.workdir)
  rows, predictions = evaluate.predict(again, restored(again), 'test', {'all': ()})
  order = np.argsort(fold.dataset.index['sample_id'][rows])
  np.testing.assert_array_equal(
    predictions['all'][order], before[[f'p{c}' for c in range(4)]].to_numpy()
  )


def test_batches_and_padding_change_no_prediction(trained):
  fold, _ = trained
  predictor = restored(fold)
  assert fold.dataset.lengths('labs').max() <= 512, 'nothing may be truncated here'
  rows, expected = evaluate.predict(fold, predictor, 'test', {'all': ()})
  changes = {
    'evaluation__batch_size': 8,
    'data__buckets': ({'labs': 700},),
    'data__recordings_per_row': 5.0,
  }
  other = Run(experiment(**changes), fold.dataset, 0, fold.workdir)
  other_rows, found = evaluate.predict(other, predictor, 'test', {'all': ()})
  np.testing.assert_array_equal(other_rows, rows)
  np.testing.assert_allclose(found['all'], expected['all'], atol=1e-5)


def test_baselines_are_in_the_report(trained):
  fold, metrics = trained
  names = [each['name'] for each in metrics['baselines']]
  assert names == ['logistic_regression', 'single_labs']
  page = (fold.workdir / 'eval' / 'report.html').read_text()
  assert 'Not compared: ecg alone: its stage was not trained in fold 0.' in page
  kept = (fold.workdir / 'fold0' / 'baselines').iterdir()
  assert sorted(path.stem for path in kept) == sorted(names)


def test_a_stage_alone_predicts_its_samples_and_the_prior_for_others(trained):
  fold, _ = trained
  rows = fold.dataset.rows(0, 'test')
  index = dict(fold.dataset.index) | {'n_labs': fold.dataset.lengths('labs').copy()}
  index['n_labs'][rows[::3]] = 0
  lacking = Run(
    fold.config, dataclasses.replace(fold.dataset, index=index), 0, fold.workdir
  )
  found = single_modalities.predict(lacking, 'labs')
  label = index['label'][fold.dataset.rows(0, 'train')].astype(int)
  prior = np.bincount(label, minlength=4) / len(label)
  without = index['n_labs'][rows] == 0
  np.testing.assert_allclose(found[without], np.tile(prior, (without.sum(), 1)))
  variables, _ = restore_best(fold, 'labs')
  model = medm2t.MedM2T(fold.model_config)
  apply = jax.jit(lambda batch: model.apply(variables, batch, stage='labs', train=False))
  expected = np.zeros_like(found)
  for batch in map(reading.joined, batches_of(fold, 'test', ('labs',), 16)):
    valid = batch['row'] >= 0
    probabilities = special.softmax(np.asarray(apply(batch).logits, np.float64), axis=1)
    expected[np.searchsorted(rows, batch['row'][valid])] = probabilities[valid]
  assert not without.all()
  np.testing.assert_allclose(found[~without], expected[~without], atol=1e-5)


def test_undamaged_samples_are_predicted_as_in_the_report(trained):
  fold, _ = trained
  table = pq.read_table(fold.workdir / 'eval' / 'predictions.parquet').to_pandas()
  before = table[table.split == 'test'].set_index('sample_id')
  curves = robustness.pooled([robustness.damaged_predictions(fold, restored(fold), 8)])
  for curve in curves:
    assert curve.undamaged is not None, curve.reason
    expected = before.loc[curve.samples, [f'p{c}' for c in range(4)]].to_numpy()
    np.testing.assert_allclose(curve.undamaged, expected, atol=1e-5)
    same = {
      level.level: np.array_equal(level.prediction, curve.undamaged)
      for level in curve.levels
    }
    # Windows of months, as here, may not notice a shift of hours.
    assert not all(same.values()) or curve.name == 'times_earlier', curve.name
    if curve.name == 'ecg_sampling_rate':
      assert same == {250.0: False, 500.0: True, 1000.0: False}  # simulated at 500 Hz


def test_stages_continue_from_the_parameters_of_others(trained):
  fold, _ = trained
  optimizer = make_optimizer(fold.config.recipe['multimodal'], 'multimodal', 10)
  state, lineage = starting.initial_state(fold, 'multimodal', optimizer)
  labs, _ = restore_best(fold, 'labs')
  started = traverse_util.flatten_dict(state.params)
  for path, value in traverse_util.flatten_dict(labs['params']).items():
    # The stage's own decoder stays behind; its whole encoder goes over.
    assert (path in started) == (path[0] == 'encoders_labs')
    if path in started:
      np.testing.assert_array_equal(started[path], value)
  assert lineage.fitted_on == fold.splits.subject_hashes('train')


def test_a_complete_run_is_left_as_it_is(trained):
  fold, _ = trained
  assert all(is_complete(fold, stage) for stage in STAGES)
  assert not is_complete(fold, 'ecg_signal')
  done = fold.workdir / 'fold0' / 'labs' / 'done.json'
  before = done.stat().st_mtime_ns
  train.train([fold])
  assert done.stat().st_mtime_ns == before


class MadeAgain(Exception):
  """Stands for an evaluation that has begun."""


def test_an_evaluation_made_from_the_same_is_not_made_again(trained, monkeypatch):
  fold, metrics = trained

  def begins(*arguments):
    raise MadeAgain

  monkeypatch.setattr(evaluate, 'predict', begins)
  assert evaluate.evaluate([fold], again=False) == metrics
  other = Run(experiment(evaluation__bootstrap=21), fold.dataset, 0, fold.workdir)
  record = fold.record('labs')
  done = fold.workdir / 'fold0' / 'labs' / 'done.json'
  page = fold.workdir / 'eval' / 'report.html'
  with pytest.raises(MadeAgain):
    evaluate.evaluate([fold])
  with pytest.raises(MadeAgain):
    evaluate.evaluate([other], again=False)
  for path, change in (
    (page, page.read_text() + ' '),
    (done, json.dumps(dataclasses.asdict(dataclasses.replace(record, epochs=9)))),
  ):
    before = path.read_text()
    path.write_text(change)
    with pytest.raises(MadeAgain):
      evaluate.evaluate([fold], again=False)
    path.write_text(before)
  monkeypatch.setattr(finished, '_code_digest', lambda: 'of another version')
  with pytest.raises(MadeAgain):
    evaluate.evaluate([fold], again=False)


def test_a_checkpoint_of_another_fold_is_refused(trained, dataset, tmp_path):
  fold, _ = trained
  shutil.copytree(fold.workdir / 'fold0', tmp_path / 'fold1')
  smuggled = Run(fold.config, dataset, 1, tmp_path)
  with pytest.raises(DataError, match='of fold 1'):
    restore_best(smuggled, 'labs')


class Read(Exception):
  """Stands for a training that has begun."""


def test_samples_that_do_not_fit_name_the_capacity_to_raise(
  dataset, tmp_path, caplog, monkeypatch
):
  fold = Run(experiment(data__buckets=({'labs': 16},)), dataset, 0, tmp_path)
  long = (dataset.lengths('labs')[dataset.rows(0, 'train')] > 16).sum()
  assert fold.statistics  # fitted before, which reads too

  def begins(*arguments):
    raise Read

  monkeypatch.setattr(Reader, 'read', begins)
  with pytest.raises(Read):
    train.train_stage(fold, 'labs')
  assert f'{long} training samples have more than 16 events of labs' in caplog.text
  assert 'Raise the last value of config.data.buckets' in caplog.text


def test_a_stage_without_its_modality_is_skipped_on_record(dataset, tmp_path):
  empty = dict(dataset.index) | {'n_labs': np.zeros_like(dataset.index['n_labs'])}
  fold = Run(experiment(), dataclasses.replace(dataset, index=empty), 0, tmp_path)
  train.train_stage(fold, 'labs')
  assert was_skipped(fold, 'labs') and not is_complete(fold, 'labs')
  with pytest.raises(DataError, match='labs'):
    restore_best(fold, 'labs')


@pytest.mark.parametrize(
  ('refit', 'held_out'), [(False, ('test', 'validation')), (True, ('test',))]
)
def test_nothing_held_out_is_read_to_fit(dataset, tmp_path, refit, held_out):
  config = experiment(refit=refit)
  expected = Run(config, dataset, 0, tmp_path).final.statistics
  copy = tmp_path / 'copy'
  shutil.copytree(dataset.directory, copy)
  # Every record of a held-out subject becomes garbage: reading one would fail its
  # checksum.
  for split in held_out:
    for row in dataset.rows(0, split):
      index = dataset.index
      with (copy / dataset.files[index['file'][row]]).open('r+b') as shard:
        shard.seek(int(index['offset'][row]))
        shard.write(b'\xff' * int(index['bytes'][row]))
  damaged = open_dataset(copy)
  found = Run(config, damaged, 0, tmp_path / 'damaged').final.statistics
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  with pytest.raises(DataError):
    list(batches_of(Run(experiment(), damaged, 0, tmp_path), 'test', ('static',), 16))


def test_nothing_after_the_prediction_time_is_in_a_sample(dataset):
  cohort = json.loads((dataset.directory / 'cohort.json').read_text())
  assert cohort['rows']['labevents']['dropped: after the prediction time'] > 0
  fold = Run(experiment(), dataset, 0, dataset.directory)
  for split in ('train', 'validation', 'test'):
    for batch in batches_of(fold, split, ('labs', 'ecg'), 16):
      assert (batch['labs']['time'] <= 0).all()
      assert (batch['ecg']['time'] <= 0).all()
      # The index ECG itself stands at the prediction time, and nothing is younger.
      assert (batch['ecg']['time'][batch['ecg']['mask']] == 0).any()


def test_no_subject_is_in_two_splits(dataset):
  for index in range(5):
    fold = Run(experiment(), dataset, index, dataset.directory)
    splits = [
      fold.splits.subject_hashes(split) for split in ('train', 'validation', 'test')
    ]
    assert sum(map(len, splits)) == len(frozenset().union(*splits))
    assert all(splits)


@pytest.mark.parametrize('text', ['5', 'a', '', '1,,2', '-1'])
def test_unknown_folds_are_refused(text):
  with pytest.raises(DataError, match=r'config\.folds'):
    folds_of(experiment(folds=text))


def test_folds_are_parsed():
  assert folds_of(experiment(folds='all')) == (0, 1, 2, 3, 4)
  assert folds_of(experiment(folds='3,1')) == (1, 3)


def test_a_wrong_path_in_the_last_recipe_is_told_before_training(dataset, tmp_path):
  config = experiment().changed({'recipe.multimodal.frozen': ('encoder_*',)})
  fold = Run(config, dataset, 0, tmp_path)
  with pytest.raises(DataError, match=r"multimodal\.frozen.*'encoder_\*'.*encoders_static"):
    train.train([fold])
  assert fold.record('labs') is None


def test_unknown_stages_are_refused(dataset, tmp_path):
  with pytest.raises(DataError, match='labz'):
    train.chosen_stages(Run(experiment(stages='labz'), dataset, 0, tmp_path))
