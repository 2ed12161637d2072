"""The run on training and validation subjects: whom it sees, for how long, where it is."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.schema import DataError
from medm2t_jax.audit import audit, fitted
from medm2t_jax.baselines import single_modalities
from medm2t_jax.evaluation import evaluate
from medm2t_jax.experiment import read
from medm2t_jax.runs import workdir
from medm2t_jax.runs.reader import Reader
from medm2t_jax.runs.restoring import restore_best
from medm2t_jax.runs.run import Run, is_complete
from medm2t_jax.runs.splits import Splits
from medm2t_jax.training import prediction, selection, steps, train
from tests.support import static_data

STAGES = ('static', 'multimodal')
TIMES = ('seconds', 'samples_per_second', 'data_wait_share')


def make(data, home, **changes):
  """Fold 0, with a refit."""
  config = static_data.config(
    data, learning_rate=0.1, epochs=4, patience=4, schedule='cosine'
  )
  config.update(stages='all', refit=True)
  config.recipe.multimodal.update(batch_size=16, epochs=2)
  for stage in STAGES:
    config.recipe[stage].update(optimizer='adam', select_by='loss')
  config.update(changes)
  config.evaluation.update(
    baselines=('single_modalities',), bootstrap=20, explained=1, explained_globally=2,
    sections=('discrimination', 'explanation', 'training', 'card'),
  )  # fmt: skip
  return Run(read(config), open_dataset(data), 0, home)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return static_data.build(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def run(data, tmp_path_factory):
  """A fold with both runs trained, and what they have read: (refit, index rows).

  Of the first run the second epoch of each stage is the best.
  """
  fold = make(data, tmp_path_factory.mktemp('run'))
  workdir.claim(fold.workdir, fold.config, fold.dataset.version)
  reads = []

  def spied(read):
    def spy(self, plan, *arguments, **options):
      reads.append((self is fold.final.reader, plan.rows[plan.rows >= 0]))
      return read(self, plan, *arguments, **options)

    return spy

  def second_is_best(record, select_by):
    return -record['epoch'] if select_by == selection.LAST else abs(record['epoch'] - 2)

  with pytest.MonkeyPatch.context() as patch:
    for name in ('read', 'read_here'):
      patch.setattr(Reader, name, spied(getattr(Reader, name)))
    patch.setattr(selection, 'badness', second_is_best)
    train.train([fold])
  return fold, reads


def without_times(records):
  return [{k: v for k, v in record.items() if k not in TIMES} for record in records]


def test_a_refit_trains_on_both_and_validates_on_nobody(run):
  fold, _ = run
  first, final = fold.runs
  assert (first.refit, final.refit) == (False, True)
  assert first is fold and final is fold.final and final.final is final
  assert final.workdir == fold.workdir / 'refit' and final.name == 'fold 0, refit'
  both = [fold.dataset.rows(0, split) for split in ('train', 'validation')]
  np.testing.assert_array_equal(final.splits.rows('train'), np.sort(np.concatenate(both)))
  assert not len(final.splits.rows('validation')) and not final.splits.subject_hashes(
    'validation'
  )
  np.testing.assert_array_equal(final.splits.rows('test'), fold.dataset.rows(0, 'test'))
  assert final.splits.subject_hashes('test') == fold.splits.subject_hashes('test')
  seen = final.splits.subject_hashes('train')
  assert seen == fold.splits.subject_hashes('train') | fold.splits.subject_hashes(
    'validation'
  )
  assert not seen & fold.splits.subject_hashes('test')
  for stage in STAGES:
    _, lineage = restore_best(final, stage)
    assert (lineage.fitted_on, lineage.selected_on) == (seen, frozenset())


def test_each_run_reads_its_subjects_once_an_epoch_and_no_test_subject(run):
  fold, reads = run
  first, final = (
    [sorted(rows.tolist()) for refit, rows in reads if refit == of] for of in (False, True)
  )
  train_rows, validation_rows = (
    fold.dataset.rows(0, split).tolist() for split in ('train', 'validation')
  )
  epochs = sum(fold.record(stage).epochs for stage in STAGES)
  # Statistics are fitted once, for all stages.
  assert first.count(train_rows) == epochs + 1
  assert first.count(validation_rows) == epochs
  assert len(first) == 2 * epochs + 1
  epochs = sum(fold.final.record(stage).epochs for stage in STAGES)
  assert final == [sorted(train_rows + validation_rows)] * (epochs + 1)


def test_a_refit_is_a_run_of_as_many_epochs_as_were_best(run, tmp_path):
  fold, _ = run
  for stage in STAGES:
    first, final = (each.record(stage) for each in fold.runs)
    assert (first.refit, final.refit) == (False, True)
    assert final.epochs == final.best_epoch == first.best_epoch
    assert final.best_step == final.history[-1]['step']
    assert final.validation_loss is None and first.validation_loss > 0
    assert not [name for epoch in final.history for name in epoch if 'valid' in name]
  best = fold.final.record('static').epochs
  assert (best, fold.record('static').epochs) == (2, 4)
  # The first run of a data set whose training subjects are those of both splits.
  splits = {split: fold.final.splits.rows(split) for split in ('train', 'test')}
  splits['validation'] = fold.splits.rows('validation')
  dataset = dataclasses.replace(fold.dataset, splits=splits)
  alone = Run(fold.config, dataset, 0, tmp_path)
  train.train_stage(alone, 'static')
  expected = [epoch['train_loss'] for epoch in alone.record('static').history[:best]]
  found = [epoch['train_loss'] for epoch in fold.final.record('static').history]
  assert found == expected


class Killed(Exception):
  """Stands for a process that ends inside an epoch."""


def test_an_interrupted_refit_ends_as_an_uninterrupted_one(run, tmp_path, monkeypatch):
  expected, _ = run
  home = tmp_path / 'run'
  shutil.copytree(expected.workdir / 'fold0', home / 'fold0')
  fold = make(expected.dataset.directory, home, training={'save_every_steps': 4})
  read = Reader.read

  def die_in_the_second_epoch(self, plan, modalities, start_step=0):
    assert self is fold.final.reader
    for number, batch in enumerate(read(self, plan, modalities, start_step)):
      if number == 4 and (home / 'refit/fold0/static/metrics.jsonl').exists():
        raise Killed
      yield batch

  with monkeypatch.context() as patch:
    patch.setattr(Reader, 'read', die_in_the_second_epoch)
    with pytest.raises(Killed):
      train.train([fold])
  assert fold.final.record('static') is None
  starts = []

  def noted(self, plan, modalities, start_step=0):
    starts.append(start_step)
    return read(self, plan, modalities, start_step)

  monkeypatch.setattr(Reader, 'read', noted)
  train.train([fold])
  assert starts[0] == 4
  for stage in STAGES:
    one, other = (restore_best(each.final, stage) for each in (fold, expected))
    jax.tree.map(np.testing.assert_array_equal, one[0], other[0])
    assert one[1] == other[1]
    records = [each.final.record(stage).history for each in (fold, expected)]
    assert without_times(records[0][:1]) == without_times(records[1][:1])
    assert len(records[0]) == len(records[1])


def test_a_refit_skips_what_the_first_run_has_skipped(run, data, tmp_path, monkeypatch):
  fold = make(data, tmp_path)
  nobody = lambda self, split, modality: self.refit or split != 'validation'
  monkeypatch.setattr(Splits, 'has_samples', nobody)
  for each in fold.runs:
    train.train_stage(each, 'static')
    reason = each.record('static').skipped
    assert reason == 'no validation sample has this modality'
  assert fold.final.record('static').refit and not is_complete(fold, 'static')


def test_a_refit_is_added_to_a_run_without_one(run, data, tmp_path):
  expected, _ = run
  home = tmp_path / 'run'
  shutil.copytree(expected.workdir / 'fold0', home / 'fold0')
  one = make(data, home, refit=False)
  workdir.claim(home, one.config, one.dataset.version)
  assert one.final is one and one.runs == (one,) and is_complete(one, 'multimodal')
  more = make(data, home)
  workdir.claim(home, more.config, more.dataset.version)
  assert not is_complete(more, 'multimodal')
  with pytest.raises(DataError, match=r'refit/fold0.*fold 0, refit is not complete'):
    evaluate.evaluate([more])


def test_a_stage_taken_from_another_run_is_that_of_the_same_run(run, data, tmp_path):
  expected, _ = run
  ablation = make(data, tmp_path)
  ablation.taken = {'static': expected.workdir}
  for mine, theirs in zip(ablation.runs, expected.runs, strict=True):
    assert mine.record('static') == theirs.record('static')
    assert mine.record('multimodal') is None


def moved(source, target, *, finished):
  """Copies a fold's folder, as finished or as interrupted training."""
  shutil.copytree(source, target)
  if not finished:
    (target / 'static/done.json').unlink()


def test_a_refit_is_refused_where_its_subjects_are_held_out(run, tmp_path):
  fold, _ = run
  refitted = fold.workdir / 'refit/fold0'
  config, dataset = fold.config, fold.dataset
  for finished in (True, False):
    home = tmp_path / str(finished)
    moved(refitted, home / 'fold0', finished=finished)
    moved(fold.workdir / 'fold0', home / 'fold1', finished=True)
    moved(refitted, home / 'refit/fold1', finished=finished)
    first, other = Run(config, dataset, 0, home), Run(config, dataset, 1, home).final
    use = lambda each, finished=finished: (
      restore_best(each, 'static') if finished else train.train_stage(each, 'static')
    )
    with pytest.raises(DataError, match=r'fitted on \d+ validation subjects of fold 0'):
      use(first)
    with pytest.raises(DataError, match=r'fitted on \d+ test subjects of fold 1'):
      use(other)


def alone(fold, stage, split):
  plan = fold.plan(split, ('static',), 16)
  variables, _ = restore_best(fold, stage)
  predictor = steps.predictor(fold.model, stage, variables)
  _, found = prediction.predict(fold, stage, predictor, plan, 'alone')
  return found['all']


def test_test_subjects_are_predicted_by_the_refit_and_the_others_by_the_first(run):
  fold, _ = run
  metrics = evaluate.evaluate([fold])
  folder = fold.workdir / 'eval'
  table = pq.read_table(folder / 'predictions.parquet').to_pandas()
  for split, by in (('validation', fold), ('test', fold.final)):
    found = table.loc[table['split'] == split, ['p0', 'p1']].to_numpy()
    expected = alone(by, 'multimodal', split)
    np.testing.assert_allclose(found, expected, atol=1e-6)
  other = alone(fold, 'multimodal', 'test')
  assert np.abs(other - expected).max() > 1e-3, 'else this shows nothing'
  single = single_modalities.predict(fold, 'static')
  np.testing.assert_allclose(single, alone(fold.final, 'static', 'test'), atol=1e-6)
  (explained,) = metrics['explanation']['patients']
  assert np.abs(expected - np.array(explained['prediction'])).sum(axis=1).min() < 1e-6
  output = np.log(explained['prediction'][1] / explained['prediction'][0])
  assert explained['output'] == pytest.approx(output, abs=1e-4)
  # All pages say which model they are about.
  assert [(each['stage'], each['refit']) for each in metrics['stages']] == [
    (stage, refit) for refit in (False, True) for stage in STAGES
  ]
  counts = [len(each.splits.subject_hashes('train')) for each in fold.runs]
  assert metrics['trained_on'] == [{'fold': 0, 'first': counts[0], 'final': counts[1]}]
  card = (folder / 'model_card.md').read_text()
  assert f'{counts[1]} subjects per fold, training and validation together' in card
  assert f'first run on the {counts[0]} training subjects' in card
  assert 'Fold 0, refit' in (folder / 'report.html').read_text()


def test_the_audit_looks_at_both_runs(run):
  fold, _ = run
  assert audit([fold])['passed']
  report = json.loads((fold.workdir / 'eval/audit.json').read_text())
  names = {each['name'] for each in report['checks']}
  for check in ('fitted state', 'lineage', 'predictions'):
    assert {f'{check}, fold 0', f'{check}, fold 0, refit'} <= names
  # The state of the first run is not what a refit fits.
  variables, lineage = restore_best(fold, 'multimodal')
  state, _ = fitted.check(fold.final, variables, lineage, fitted.fit_again(fold.final))
  assert not state.passed and 'center' in state.detail


def test_without_a_choice_the_last_epoch_is_the_best(data, tmp_path):
  fold = make(data, tmp_path, refit=False)
  fold.config = fold.config.changed(
    {'recipe.static.select_by': 'last', 'recipe.static.patience': 1}
  )
  train.train_stage(fold, 'static')
  record = fold.record('static')
  losses = [epoch['validation_loss'] for epoch in record.history]
  assert len(losses) == 4 and min(losses) < losses[-1], 'else this shows nothing'
  assert record.best_epoch == 4 and record.validation_loss == losses[-1]
  assert record.best_step == record.history[-1]['step']
