"""The blend of a fold: who fits it, what it predicts, what it refuses."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from flax import traverse_util

from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.schema import DataError
from medm2t_jax.baselines import boosted_trees, choosing, logistic_regression
from medm2t_jax.baselines.inputs import Inputs
from medm2t_jax.evaluation import evaluate
from medm2t_jax.inference import blend
from medm2t_jax.runs import workdir
from medm2t_jax.runs.restoring import restore_best
from medm2t_jax.runs.run import Run
from medm2t_jax.training import steps, train
from medm2t_jax.training.blend_weights import blend as blended
from tests.support import static_data

NAMES = ('boosted_trees', 'logistic_regression')
MODULES = {'boosted_trees': boosted_trees, 'logistic_regression': logistic_regression}


def make(data, home, **changes):
  config = static_data.experiment(data)
  config.update(stages='all', refit=True, blend=NAMES)
  config.data.buckets = ({'labs': 32},)
  config.model.update(trunk='ensemble', ensemble=2)
  config.model.windows = {'labs': ('percentiles', (50.0,))}
  for stage in ('static', 'labs', 'multimodal'):
    config.recipe[stage].update(batch_size=16, epochs=2)
  config.evaluation.update(
    baselines=(), bootstrap=20, robustness=False, explained=0, explained_globally=0
  )
  config.update(changes)
  return Run(config.lock(), open_dataset(data), 0, home)


@pytest.fixture(autouse=True, scope='module')
def _small_trees():
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(boosted_trees._FIXED, 'max_iter', 20)
    patch.setitem(boosted_trees._FIXED, 'min_samples_leaf', 5)
    yield


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return static_data.build(tmp_path_factory.mktemp('data'), events=('labs',))


@pytest.fixture(scope='module')
def fold(data, tmp_path_factory):
  """A fold that is trained and evaluated."""
  fold = make(data, tmp_path_factory.mktemp('run'))
  workdir.claim(fold.workdir, fold.config, fold.dataset.version)
  train.train([fold])
  evaluate.evaluate([fold])
  return fold


def restored(run):
  variables, _ = restore_best(run, blend.STAGE)
  return steps.predictor(run.model, blend.STAGE, variables)


def log(probability):
  return np.log(np.maximum(probability, 1e-15))


def test_the_compiled_blend_is_the_weighted_sum_of_its_parts(fold):
  final = fold.final
  ours = restored(final)
  predictor = blend.predictor(fold, ours)
  rows, found = evaluate.predict(final, predictor, 'test', {'all': ()})
  _, alone = evaluate.predict(final, ours, 'test', {'all': ()})
  inputs = Inputs(fold)
  np.testing.assert_array_equal(rows, inputs.summaries['test'].row)
  parts = {blend.OURS: log(alone['all'])}
  for name in NAMES:
    fitted = MODULES[name].fitted(inputs).final
    value = inputs.summaries['test'].value
    parts[name] = log(choosing.predict(fitted, value, inputs.target))
  kept = json.loads((fold.workdir / 'fold0' / 'blend' / 'blend.json').read_text())
  assert set(kept['weights']) == {blend.OURS, *NAMES}
  expected = np.exp(blended(parts, kept['weights'], np.array(kept['prior'])))
  np.testing.assert_allclose(found['all'], expected, rtol=1e-4, atol=1e-6)
  assert not np.allclose(found['all'], alone['all'], atol=1e-3)


def test_the_report_predicts_with_the_blend_and_shows_each_alone(fold):
  metrics = json.loads((fold.workdir / 'eval' / 'metrics.json').read_text())
  assert [each['name'] for each in metrics['baselines']] == [blend.ALONE]
  page = (fold.workdir / 'eval' / 'report.html').read_text()
  head = page.split('<main>')[0]
  assert 'a blend of the network, boosted trees and logistic regression' in head
  assert 'The network alone' in head


def test_the_weights_of_the_parts_are_fitted_once_and_used_by_both_runs(fold):
  first, final = (run.record(blend.STAGE) for run in fold.runs)
  assert first is not None and final is not None
  assert set(first.part_weights) == {'ensemble', 'deep', 'static', 'labs'}
  assert first.part_weights == final.part_weights
  assert len(set(first.part_weights.values())) > 1, 'else nothing was fitted'
  variables, _ = restore_best(fold.final, blend.STAGE)
  fitted = variables['fitted']
  for stage in ('multimodal', 'labs'):
    record = fold.record(stage)
    assert record is not None
    expected = [record.part_weights[name] for name in fold.model.part_names(stage)]
    found = fitted[f'additions_{stage}']['part_weights']
    np.testing.assert_array_equal(found, np.float32(expected))


def test_what_the_stages_of_the_modalities_have_learnt_is_not_trained_further(fold):
  whole, _ = restore_best(fold, blend.STAGE)
  for stage in ('static', 'labs'):
    alone, _ = restore_best(fold, stage)
    for path in (f'trunks_{stage}', f'decoders_{stage}', f'encoders_{stage}'):
      of_whole = traverse_util.flatten_dict(whole['params'][path])
      for leaf, expected in traverse_util.flatten_dict(alone['params'][path]).items():
        np.testing.assert_array_equal(of_whole[leaf], expected)


def test_test_subjects_have_no_part_in_the_weights(fold, monkeypatch, tmp_path):
  """Neither do they in what the final baselines have learnt."""
  kept = json.loads((fold.workdir / 'fold0' / 'blend' / 'blend.json').read_text())
  with np.load(fold.workdir / 'fold0' / 'blend' / 'arrays.npz') as arrays:
    expected = dict(arrays)
  other = make(fold.config.data.dir, tmp_path)
  for run, source in zip(other.runs, fold.runs, strict=True):
    for stage in train.chosen_stages(run):
      record = source.record(stage)
      assert record is not None
      workdir.write_record(run.workdir, record)
  inputs = Inputs(other)
  tests = inputs.summaries['test']
  tests.value[:] = 1e6
  tests.label[:] = 1 - tests.label
  _, validated = evaluate.predict(fold, restored(fold), 'validation', {'all': ()})
  blend.fit(other, inputs, validated['all'])
  found = json.loads((tmp_path / 'fold0' / 'blend' / 'blend.json').read_text())
  assert found['weights'] == kept['weights']
  with np.load(tmp_path / 'fold0' / 'blend' / 'arrays.npz') as arrays:
    jax.tree.map(np.testing.assert_array_equal, dict(arrays), expected)


def test_a_blend_of_something_else_is_not_used(fold):
  ours = restored(fold.final)
  path = fold.workdir / 'fold0' / 'blend' / 'blend.json'
  kept = path.read_text()
  other = json.loads(kept)
  other['made_from']['model'][0][0] += 1  # another step of the first run
  path.write_text(json.dumps(other))
  try:
    with pytest.raises(DataError, match=r'no blend of this model.*--mode=eval'):
      blend.predictor(fold, ours)
  finally:
    path.write_text(kept)
  assert blend.predictor(fold, ours) is not ours


def test_an_unknown_baseline_is_one_clear_error(data, tmp_path):
  fold = make(data, tmp_path, blend=('forest',))
  with pytest.raises(DataError, match=r"config\.blend.*'forest'.*boosted_trees"):
    evaluate.require_known(fold.config)


def test_without_a_blend_the_network_predicts(fold):
  without = make(fold.config.data.dir, fold.workdir, blend=())
  ours = restored(without.final)
  assert blend.predictor(without, ours) is ours
