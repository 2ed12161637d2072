"""Several runs of a fold, whose mean output is the prediction."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from scipy import special

from data_pipeline.dataset import open_dataset
from data_pipeline.schema import DataError
from medm2t_jax import evaluate, prediction, train, workdir
from medm2t_jax.audit import audit
from medm2t_jax.baselines import single_modalities
from medm2t_jax.fold import Fold, make_folds
from tests import static_data

STAGES = ('static', 'multimodal')


def make(data, home, **changes):
  config = static_data.experiment(data, learning_rate=0.02)
  config.stages = 'all'
  config.recipe.multimodal.update(batch_size=16, epochs=2)
  config.update(changes)
  config.evaluation.update(
    baselines=('single_modalities',), bootstrap=20, explained=0, explained_globally=0
  )
  return Fold(config.lock(), open_dataset(data), 0, home)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return static_data.build(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def two(data, tmp_path_factory):
  fold = make(data, tmp_path_factory.mktemp('two'), members=2)
  workdir.claim(fold.workdir, fold.config, fold.dataset.version)
  train.train([fold])
  return fold


def losses(fold, stage):
  history = fold.record(stage).history
  return [(epoch['train_loss'], epoch['validation_loss']) for epoch in history]


def test_a_member_is_a_run_with_another_seed(data, two, tmp_path):
  first, second = two.members
  assert first is two and second.workdir == two.workdir / 'member1'
  assert second.name == 'fold 0, member 1'
  alone = make(data, tmp_path, seed=1000)
  train.train([alone])
  for stage in STAGES:
    assert losses(second, stage) == losses(alone, stage)
    assert losses(second, stage) != losses(first, stage)
    assert [member.record(stage).member for member in two.members] == [0, 1]


def test_members_are_added_to_a_run_that_has_fewer(data, two, tmp_path):
  home = tmp_path / 'run'
  shutil.copytree(two.workdir, home)
  shutil.rmtree(home / 'member1')
  one = make(data, home, members=1)
  workdir.claim(home, one.config, one.dataset.version)
  assert one.completed('multimodal')
  more = make(data, home, members=2)
  workdir.claim(home, more.config, more.dataset.version)
  assert not more.completed('multimodal')
  with pytest.raises(DataError, match=r'member1.*fold 0, member 1 is not complete'):
    evaluate.evaluate([more])
  before = (home / 'fold0/static/done.json').stat().st_mtime_ns
  train.train([more])
  assert more.completed('multimodal')
  assert (home / 'fold0/static/done.json').stat().st_mtime_ns == before


def test_a_fold_has_a_member(data, tmp_path):
  fold = make(data, tmp_path, members=0)
  with pytest.raises(DataError, match=r'config\.members=0'):
    make_folds(fold.config, fold.dataset, tmp_path)


def expected(fold, stage, split):
  """Class probabilities of the members' mean log probabilities, up to a constant."""
  plan = fold.plan(split, ('static',), 16)
  logs = []
  for member in fold.members:
    variables, _ = member.restore_best(stage)
    _, found = prediction.predict(member, stage, [variables], plan, 'alone')
    logs.append(np.log(found['all']))
  assert np.abs(logs[0] - logs[1]).max() > 1e-3, 'else this shows nothing'
  return special.softmax(np.mean(logs, axis=0), axis=1)


def test_the_prediction_is_that_of_the_mean_logits(two):
  members = two.restore_members('multimodal')
  _, found = evaluate.predict(two, members, 'test', {'all': ()})
  np.testing.assert_allclose(found['all'], expected(two, 'multimodal', 'test'), atol=1e-6)
  alone = single_modalities.predict(two, 'static')
  np.testing.assert_allclose(alone, expected(two, 'static', 'test'), atol=1e-6)


def test_the_report_and_the_audit_know_all_members(two):
  metrics = evaluate.evaluate([two])
  runs = {(stage['member'], stage['stage']) for stage in metrics['stages']}
  assert runs == {(member, stage) for member in (0, 1) for stage in STAGES}
  folder = two.workdir / 'eval'
  assert 'of the mean logits of 2 runs' in (folder / 'model_card.md').read_text()
  assert 'Fold 0, member 1' in (folder / 'report.html').read_text()
  audit([two])
  names = [
    each['name'] for each in json.loads((folder / 'audit.json').read_text())['checks']
  ]
  assert {'lineage, fold 0', 'lineage, fold 0, member 1', 'predictions, fold 0'} <= {*names}


def test_a_stage_taken_from_another_run_is_that_of_the_same_member(data, two, tmp_path):
  ablation = make(data, tmp_path, members=2)
  ablation.taken = {'static': two.workdir}
  for mine, theirs in zip(ablation.members, two.members, strict=True):
    assert mine.record('static') == theirs.record('static')
    assert mine.record('multimodal') is None
