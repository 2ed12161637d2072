"""What a fold leaves to predict with: its blend, and its bundle."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import optax
import pandas as pd
import pyarrow.parquet as pq
import pytest
from flax import traverse_util
from scipy import special

from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.schema import DataError, Item, Target
from medm2t_jax.baselines import boosted_trees, choosing, logistic_regression
from medm2t_jax.baselines.inputs import Inputs
from medm2t_jax.evaluation import evaluate
from medm2t_jax.experiment import default_data, read
from medm2t_jax.inference import adapting, blend, bundling, predicting, tables
from medm2t_jax.inference.blended import table_of_device
from medm2t_jax.inference.member_predictions import member_predictions, members_of
from medm2t_jax.inference.program import program
from medm2t_jax.inference.trained_model import FORMAT, TrainedModel
from medm2t_jax.models.blend import simple_models
from medm2t_jax.models.blend.weighted_sum import OURS
from medm2t_jax.models.blend.weighted_sum import blend as blended
from medm2t_jax.models.medm2t import MedM2T
from medm2t_jax.runs import workdir
from medm2t_jax.runs.reader import Reader
from medm2t_jax.runs.restoring import restore_best
from medm2t_jax.runs.run import Run, make_runs
from medm2t_jax.training import steps, train
from medm2t_jax.training.starting import initial_state, recipe_of
from tests.support import staging_fixture, static_data
from tests.support.batches import batches_of
from tests.support.xla_flags import xla_flags

NAMES = ('boosted_trees', 'logistic_regression')
MODULES = {'boosted_trees': boosted_trees, 'logistic_regression': logistic_regression}


def make(data, home, **changes):
  config = static_data.config(data)
  config.update(stages='static,multimodal', refit=True, blend=NAMES)
  config.data.buckets = ({'labs': 32},)
  # Encoders beside an ensemble: tests/modalities/toy_kind_test.py.
  config.model.update(size='tiny', trunk='ensemble', ensemble=2, deep='none', fusion='none')
  config.model.windows = {'labs': ('percentiles', (50.0,))}
  config.recipe.multimodal.update(
    batch_size=16, epochs=2, starts_from=('static',), frozen=()
  )
  config.evaluation.update(
    baselines=(),
    bootstrap=20,
    sections=('discrimination', 'baselines', 'calibration', 'card'),
  )
  config.update(changes)
  return Run(read(config), open_dataset(data), 0, home)


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
  expected = np.exp(blended(parts, kept['weights'], np.array(kept['prior']), 'softmax'))
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
  assert set(first.part_weights) == {'ensemble', 'static', 'labs'}
  assert first.part_weights == final.part_weights
  assert len(set(first.part_weights.values())) > 1, 'else nothing was fitted'
  variables, _ = restore_best(fold.final, blend.STAGE)
  fitted = variables['fitted']
  for stage in ('multimodal', 'static'):
    record = fold.record(stage)
    assert record is not None
    expected = [record.part_weights[name] for name in fold.model.part_names(stage)]
    found = fitted[f'additions_{stage}']['part_weights']
    np.testing.assert_array_equal(found, np.float32(expected))


def test_what_the_stages_of_the_modalities_have_learnt_is_not_trained_further(fold):
  whole, _ = restore_best(fold, blend.STAGE)
  alone, _ = restore_best(fold, 'static')
  of_whole = traverse_util.flatten_dict(whole['params']['trunks_static'])
  for leaf, expected in traverse_util.flatten_dict(
    alone['params']['trunks_static']
  ).items():
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


def test_without_a_blend_the_network_predicts(fold):
  without = make(fold.config.data.dir, fold.workdir, blend=())
  ours = restored(without.final)
  assert blend.predictor(without, ours) is ours


@pytest.fixture
def home(fold):
  return fold.workdir


@pytest.fixture
def bundle(fold):
  return fold.workdir / 'fold0' / 'model'


def test_the_runs_own_test_subjects_are_predicted_bit_for_bit(home, bundle, data):
  table = pq.read_table(home / 'eval' / 'predictions.parquet').to_pandas()
  expected = table[(table.split == 'test') & (table.fold == 0)].sort_values('sample_id')
  dataset = open_dataset(data)
  found = predicting.predict(TrainedModel.load(bundle), dataset)
  sample = dataset.index['sample_id'][found.rows]
  # All others were trained on.
  assert sorted(sample) == list(expected.sample_id)
  np.testing.assert_array_equal(
    found.predictions[np.argsort(sample)], expected[['p0', 'p1']].to_numpy()
  )
  assert found.coverage['left_out'] == len(dataset) - len(found.rows)
  assert 'were trained on and are left out' in found.coverage['overlap']


def test_a_fresh_process_needs_nothing_but_the_bundle(bundle, data, tmp_path):
  """On one device; here there are eight."""
  copied, prepared = tmp_path / 'model', tmp_path / 'data'
  shutil.copytree(bundle, copied)
  shutil.copytree(data, prepared)
  out = tmp_path / 'out' / 'predictions.parquet'
  command = ['-m', 'medm2t_jax.predict', f'--model={copied}', f'--data={prepared}']
  done = subprocess.run(
    [sys.executable, *command, f'--out={out}'],
    env={**os.environ, 'XLA_FLAGS': xla_flags(1)},
    capture_output=True,
    text=True,
    check=False,
    cwd=tmp_path,
  )
  assert done.returncode == 0, done.stderr
  summary = json.loads(done.stdout.splitlines()[-1])
  dataset = open_dataset(data)
  expected = predicting.predict(TrainedModel.load(bundle), dataset)
  table = pq.read_table(out).to_pandas()
  assert list(table.columns) == ['sample_id', 'subject_id', 'p0', 'p1']
  np.testing.assert_array_equal(table.sample_id, dataset.index['sample_id'][expected.rows])
  np.testing.assert_allclose(table[['p0', 'p1']], expected.predictions, atol=1e-6)
  assert summary['samples'] == len(table)
  assert json.loads(out.with_name('coverage.json').read_text()) == expected.coverage


def test_the_folds_together_are_an_ensemble_for_new_subjects(home, bundle, data, tmp_path):
  # A second fold, as if it had been trained otherwise.
  one = TrainedModel.load(bundle)
  (member,) = one.members
  params = jax.tree.map(lambda array: 0.9 * array, member.variables['params'])
  changed = dataclasses.replace(member, variables={**member.variables, 'params': params})
  two = dataclasses.replace(one, members=(changed,))
  run = tmp_path / 'run'
  shutil.copytree(home / 'eval', run / 'eval')
  for name, model in (('fold0', one), ('fold1', two)):
    model.save(run / name / 'model')
  both = bundling.of_workdir(run)
  both.save(tmp_path / 'both')
  both = TrainedModel.load(tmp_path / 'both')
  assert both.check() <= 1e-6 and len(both.members) == 2
  dataset = open_dataset(data)
  found = predicting.predict(both, dataset, allow_seen=True)
  each = [predicting.predict(model, dataset, allow_seen=True) for model in (one, two)]
  assert len(found.rows) == len(dataset)
  mean = (each[0].predictions + each[1].predictions) / 2
  np.testing.assert_allclose(found.predictions, mean, rtol=1e-12)


def test_what_a_member_predicts_in_the_place_of_the_ensemble(bundle, data):
  one = TrainedModel.load(bundle)
  (member,) = one.members
  model = dataclasses.replace(one, members=(member, member))
  assert members_of(model) == 4
  dataset = open_dataset(data)
  (batch, *_) = Reader(dataset, model.batching).read_here(
    Reader(dataset, model.batching).plan(np.arange(8), model.schema.names, 8, devices=1),
    model.schema.names,
  )
  batch = jax.tree.map(lambda array: array[0], dict(batch))
  found = jax.jit(member_predictions(model))(batch)
  np.testing.assert_allclose(found.prediction, jax.jit(program(model))(batch), atol=1e-6)
  np.testing.assert_allclose(found.members[:2], found.members[2:], atol=1e-7)
  # The same, part by part, in NumPy.
  apply = functools.partial(MedM2T(one.model_config).apply, stage=blend.STAGE, train=False)
  network = jax.jit(apply)(dict(member.variables), batch)
  normalise = lambda x: x - special.logsumexp(x, axis=-1, keepdims=True)
  addition = member.variables['fitted']['additions_multimodal']
  weights, offset = addition['part_weights'], addition['offset']
  table = table_of_device(one.model_config.columns, batch)
  simple = {
    name: np.asarray(jax.jit(simple_models.outputs)(arrays, table))
    for name, arrays in member.blend['models'].items()
  }
  for place in range(2):
    parts = np.array(network.parts)
    parts[0] = normalise(np.asarray(network.heads[place]))
    ours = normalise(offset + np.tensordot(weights, parts - offset, 1))
    outputs = blended(
      {OURS: ours, **simple}, member.blend['weights'], member.blend['prior'], 'softmax'
    )
    np.testing.assert_allclose(found.members[place], np.exp(outputs), atol=1e-5)
  assert np.abs(found.members[0] - found.members[1]).max() > 1e-3


def test_where_all_subjects_were_seen_nobody_is_predicted(bundle, data):
  model, dataset = TrainedModel.load(bundle), open_dataset(data)
  everyone = frozenset().union(*(dataset.subjects(0, split) for split in ('train', 'test')))
  lineage = dataclasses.replace(model.members[0].lineage, selected_on=everyone)
  member = dataclasses.replace(model.members[0], lineage=lineage)
  with pytest.raises(DataError, match='trained on all of its subjects'):
    predicting.predict(dataclasses.replace(model, members=(member,)), dataset)


def test_without_its_key_an_overlap_is_said_to_be_untested(bundle, data):
  other = dataclasses.replace(open_dataset(data), subject_key='00' * 16)
  found = predicting.predict(TrainedModel.load(bundle), other)
  assert len(found.rows) == len(other)
  assert 'cannot be tested' in found.coverage['overlap']


def test_data_without_what_the_model_needs_are_refused(bundle, tmp_path):
  static = open_dataset(static_data.build(tmp_path))
  model = TrainedModel.load(bundle)
  found = predicting.predict(model, static, allow_seen=True)
  of_labs = [one for one in found.coverage['variables'] if one['modality'] == 'labs']
  assert of_labs and not any(one['samples'] for one in of_labs)
  assert {one['modality'] for one in found.coverage['absent']} == {'labs'}
  assert np.isfinite(found.predictions).all()
  share = found.coverage['coverage']
  with pytest.raises(
    DataError, match=rf'coverage is {share:.2f}, below --min_coverage=0.9'
  ):
    predicting.require_coverage(found, 0.9, static.directory)
  predicting.require_coverage(found, share, static.directory)


def test_another_task_is_refused(bundle, data):
  dataset = open_dataset(data)
  schema = dataclasses.replace(dataset.schema, task='los')
  with pytest.raises(DataError, match=r"predicts 'mortality'.*prepared for 'los'"):
    predicting.predict(
      TrainedModel.load(bundle), dataclasses.replace(dataset, schema=schema)
    )


def test_meds_fields_are_those_of_meds_evaluation(bundle, data, tmp_path):
  dataset, model = open_dataset(data), TrainedModel.load(bundle)
  found = predicting.predict(model, dataset)
  tables.writer('meds', model.schema)(tmp_path / 'p.parquet', dataset, found)
  table = pq.read_table(tmp_path / 'p.parquet')
  assert table.schema.names == [
    'subject_id', 'prediction_time', 'boolean_value', 'predicted_boolean_value',
    'predicted_boolean_probability',
  ]  # fmt: skip
  frame = table.to_pandas()
  np.testing.assert_allclose(
    frame.predicted_boolean_probability, found.predictions[:, 1], atol=1e-7
  )
  assert list(frame.boolean_value) == list(dataset.index['label'][found.rows] == 1)
  three = dataclasses.replace(model.schema, target=Target('multiclass', ('a', 'b', 'c')))
  with pytest.raises(DataError, match='tasks of two classes'):
    tables.writer('meds', three)


def test_samples_without_a_label_are_predicted(bundle, data, tmp_path):
  def without(raw):
    samples = pd.read_parquet(raw / 'samples.parquet')
    samples['label'] = np.nan
    samples.to_parquet(raw / 'samples.parquet')

  other = open_dataset(static_data.build(tmp_path, change=without, events=('labs',)))
  model, labelled = TrainedModel.load(bundle), open_dataset(data)
  found = predicting.predict(model, other, allow_seen=True)
  expected = predicting.predict(model, labelled, allow_seen=True)
  by_sample = lambda dataset, predicted: dict(
    zip(
      dataset.index['sample_id'][predicted.rows], predicted.predictions[:, 1], strict=True
    )
  )
  one, two = by_sample(other, found), by_sample(labelled, expected)
  assert one.keys() == two.keys()
  np.testing.assert_allclose([one[key] for key in two], list(two.values()), atol=1e-6)
  tables.writer('meds', model.schema)(tmp_path / 'p.parquet', other, found)
  assert pq.read_table(tmp_path / 'p.parquet')['boolean_value'].null_count == len(other)


def changed(bundle, tmp_path, change):
  copy = tmp_path / 'copy'
  shutil.copytree(bundle, copy)
  change(copy)
  return copy


def rewrite(path, **fields):
  path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda b: rewrite(b / 'bundle.json', format=FORMAT + 1), 'this code reads'),
    (lambda b: rewrite(b / 'tests.json', more=1), r'tests\.json: was changed'),
    (lambda b: (b / 'members/0/provenance.json').unlink(), 'provenance.json: is missing'),
    (lambda b: shutil.rmtree(b / 'members'), 'is missing'),
    (lambda b: (b / 'more').write_text(''), 'more: was changed or added'),
    (lambda b: (b / 'bundle.json').unlink(), 'not a bundle of a trained model'),
    (lambda b: (b / 'bundle.json').write_text('{'), 'not a bundle of a trained model'),
  ],
)
def test_a_bundle_that_is_not_as_it_was_made_is_refused(bundle, tmp_path, change, message):
  with pytest.raises(DataError, match=message):
    TrainedModel.load(changed(bundle, tmp_path, change))


def test_the_self_test_finds_another_answer(bundle):
  model = TrainedModel.load(bundle)
  wrong = dataclasses.replace(model, answer=model.answer + 1e-3)
  with pytest.raises(DataError, match='self-test of the model failed'):
    wrong.check()


def test_nothing_of_a_patient_is_in_a_bundle(bundle, data):
  """Neither identifiers nor the key that would give them away."""
  dataset = open_dataset(data)
  texts = ''.join(path.read_text() for path in bundle.rglob('*.json'))
  assert dataset.subject_key not in texts
  hashes = json.loads((bundle / 'members/0/provenance.json').read_text())['fitted_on']
  assert all(len(one) == 16 for one in hashes)
  assert not {str(one) for one in dataset.index['subject_id']} & set(hashes)


def test_other_files_are_not_overwritten(bundle, tmp_path):
  (tmp_path / 'notes.txt').write_text('mine')
  with pytest.raises(DataError, match='holds files that are not a bundle'):
    TrainedModel.load(bundle).save(tmp_path)
  assert (tmp_path / 'notes.txt').read_text() == 'mine'


# Starting from a bundle, on other data.


@pytest.fixture(scope='module')
def elsewhere(tmp_path_factory):
  """Other subjects, with the laboratory items in another order and one more."""

  def change(raw):
    samples = pd.read_parquet(raw / 'samples.parquet')
    samples['subject_id'] += 10**6
    samples.to_parquet(raw / 'samples.parquet')
    events = pd.read_parquet(raw / 'events_labs.parquet')
    events['item'] = (len(LABS) - events['item']).astype('int32')
    events.to_parquet(raw / 'events_labs.parquet')

  items = (Item('new', 'unknown to the model'), *reversed(LABS))
  return static_data.build(
    tmp_path_factory.mktemp('elsewhere'), change=change, events=('labs',), items=items
  )


LABS = staging_fixture.SCHEMA.modalities['labs'].items


def beginning(data, bundle, **changes):
  config = make(data, None, start_from=str(bundle), **changes).config
  # It is the model that says which.
  return adapting.begin(config.changed({'data.modalities': ('static', 'more')}))


def begun(data, bundle, home, **changes):
  begins = beginning(data, bundle, refit=False, **changes)
  dataset = default_data.open_or_simulate(begins.config, begins.schema)
  (run,) = make_runs(begins.config, dataset, home, begins.starts)
  return run


@pytest.fixture(scope='module')
def adapted(fold, elsewhere, tmp_path_factory):
  """A fold that has started from the bundle, trained and evaluated."""
  bundle = fold.workdir / 'fold0' / 'model'
  # At the rate of the fold: its compiled steps.
  run = begun(elsewhere, bundle, tmp_path_factory.mktemp('run'), adapt_rate=1.0)
  workdir.claim(run.workdir, run.config, run.dataset.version)
  train.train([run])
  evaluate.evaluate([run])
  return run


def test_training_starts_from_the_model_but_for_the_prior(bundle, elsewhere, tmp_path):
  run = begun(elsewhere, bundle, tmp_path)
  run.config = run.config.changed({'recipe.multimodal.starts_from': ()})
  state, lineage = initial_state(run, blend.STAGE, optax.identity())
  (member,) = TrainedModel.load(bundle).members
  flat = lambda tree: traverse_util.flatten_dict(jax.tree.map(np.asarray, dict(tree)))
  for name in ('params', 'batch_stats'):
    found, given = flat(state.variables[name]), flat(member.variables[name])
    assert found.keys() == given.keys()
    for path, value in found.items():
      np.testing.assert_array_equal(value, given[path], err_msg=str(path))
  prior = run.statistics['decoder']['offset'].astype(np.float32)
  for path, value in flat(state.fitted).items():
    expected = flat(member.variables['fitted'])[path] if path[-1] != 'offset' else prior
    np.testing.assert_array_equal(value, expected, err_msg=str(path))
  earlier = dict(lineage.started_from)
  assert earlier.pop('key_fingerprint') == TrainedModel.load(bundle).key_fingerprint
  assert earlier == member.lineage.to_json()
  # Both institutions hash with one key: the subjects of both are known to be seen.
  assert lineage.fitted_on == member.lineage.fitted_on | run.splits.subject_hashes('train')


def test_before_it_is_trained_it_predicts_as_the_model_does_with_another_prior(
  bundle, elsewhere, tmp_path
):
  """Network and simple models alike; training moves the network from there."""
  run = begun(elsewhere, bundle, tmp_path)
  run.config = run.config.changed({'recipe.multimodal.starts_from': ()})
  state, _ = initial_state(run, blend.STAGE, optax.identity())
  prior = run.statistics['decoder']['offset']
  fitted = {
    'weights': run.start.blend['weights'],
    'prior': np.asarray(prior, np.float32),
    'models': blend._of_start(run.start, prior),
  }
  alone = steps.predictor(run.model, blend.STAGE, state.variables)
  ours = blend.blended(run.model_config, fitted, alone)
  (theirs,) = TrainedModel.load(bundle).predictors
  batch = next(batches_of(run, 'train', run.dataset.schema.names, 16))
  log_odds = lambda predictor: np.diff(np.asarray(predictor(batch)))[batch['row'] >= 0]
  # Its network has the prior of its refit, its blend that of its first run.
  start = run.start
  first, own = start.blend['prior'], start.variables['fitted']['additions_labs']['offset']
  shift = np.diff(prior - first) - start.blend['weights'][OURS] * np.diff(own - first)
  assert abs(shift) > 0.01
  # Nearly: a mean of the members' probabilities is not linear in the prior.
  np.testing.assert_allclose(log_odds(ours), log_odds(theirs) + shift, atol=1e-3)


def test_an_adapted_model_is_a_model_of_both(adapted, bundle, elsewhere, data):
  made = TrainedModel.load(adapted.workdir / 'fold0' / 'model')
  assert made.check() < 1e-6
  own = TrainedModel.load(bundle)
  assert made.schema.variables('labs') == own.schema.variables('labs')
  (seen,), (before,) = made.seen.values(), own.seen.values()
  assert seen > before
  # Predictions of its own test subjects, from data as they were prepared.
  table = pq.read_table(adapted.workdir / 'eval' / 'predictions.parquet').to_pandas()
  expected = table[(table.split == 'test') & (table.fold == 0)].sort_values('sample_id')
  dataset = open_dataset(elsewhere)
  found = predicting.predict(made, dataset)
  sample = dataset.index['sample_id'][found.rows]
  assert sorted(sample) == list(expected.sample_id)
  np.testing.assert_array_equal(
    found.predictions[np.argsort(sample)], expected[['p0', 'p1']].to_numpy()
  )
  assert {one['code'] for one in found.coverage['ignored']} == {'new'}
  # It has learnt, and it is not what it started from.
  start = predicting.predict(own, dataset, allow_seen=True)
  assert not np.allclose(found.predictions, start.predictions[found.rows])
  # Of the former data nobody is predicted who was trained on.
  with_former = predicting.predict(made, open_dataset(data))
  assert with_former.coverage['left_out'] == len(open_dataset(data)) - len(with_former.rows)
  assert with_former.coverage['left_out'] > 0


def test_a_head_alone_is_trained_where_that_is_asked(bundle, elsewhere, tmp_path):
  run = begun(elsewhere, bundle, tmp_path, adapt='head', stages=blend.STAGE)
  run.config = run.config.changed({'recipe.multimodal.starts_from': ()})
  rate = run.config.recipe['multimodal'].learning_rate
  assert recipe_of(run, blend.STAGE).learning_rate == run.config.adapt_rate * rate < rate
  train.train([run])
  variables, _ = restore_best(run, blend.STAGE)
  (member,) = TrainedModel.load(bundle).members
  found = traverse_util.flatten_dict(variables['params'])
  given = traverse_util.flatten_dict(dict(member.variables['params']))
  moved = {path for path in found if not np.array_equal(found[path], given[path])}
  assert moved and all(path[1] in ('head', 'head_bias', 'output') for path in moved)
  assert any(path[0] == 'trunks_multimodal' for path in moved)


def test_subjects_that_the_model_has_seen_are_not_tested_on(bundle, data, tmp_path):
  """The same institution and subjects: other folds would test on whom it was trained."""
  run = begun(data, bundle, tmp_path, folds='1')
  with pytest.raises(DataError, match=r'was trained on .* validation subjects of fold 1'):
    train.train([run])
  assert not (tmp_path / 'fold1').exists()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'start_from_version': '0' * 16}, 'has version'),
    ({'adapt': 'tail'}, 'all, head'),
    ({'adapt_rate': 0.0}, 'above 0'),
    ({'task': 'los'}, "predicts 'mortality', but the experiment predicts 'los'"),
  ],
)
def test_what_does_not_suit_is_refused_at_once(bundle, data, changes, message):
  with pytest.raises(DataError, match=message):
    beginning(data, bundle, **changes)


def test_only_the_main_command_starts_from_a_model(bundle, data, tmp_path):
  config = make(data, tmp_path, start_from=str(bundle)).config
  with pytest.raises(DataError, match=r'only `python -m medm2t_jax\.main`'):
    make_runs(config, open_dataset(data), tmp_path)
