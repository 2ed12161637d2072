"""Ablations: interrupted and continued, stages reused, differences, what applies where."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn import metrics

from configs import cvd, los, mortality, physionet2012
from configs.common import FROZEN_ENCODERS
from data_pipeline.format.schema import DataError
from medm2t_jax.experiment import default_data, read
from medm2t_jax.experiment.model_config import model_config
from medm2t_jax.models.medm2t import MedM2T
from medm2t_jax.runs import workdir
from medm2t_jax.runs.restoring import restore_best
from medm2t_jax.runs.run import Run, make_runs
from medm2t_jax.studies import ablation_study
from medm2t_jax.studies.ablations import declared
from medm2t_jax.training import train
from tests.support import fake_batch, kinds, static_data

NAMES = ('only_static', 'windows_1')
LEFT_OUT = ('without_ecg', 'without_labs', 'htaf_windows_12')
RESAMPLES = 40


class Killed(Exception):
  """Stands for a process that ends inside an ablation."""


def experiment(data):
  config = static_data.config(data)
  config.data.buckets = ({'labs': 32},)
  config.model.windows = {'labs': ('percentiles', (50.0,))}
  config.model.update(size='tiny', sequence='mean_last', fusion='none')
  config.update(stages='all', refit=True)
  config.evaluation.bootstrap = RESAMPLES
  for stage in ('static', 'labs', 'multimodal'):
    config.recipe[stage].update(batch_size=16, epochs=1)
  return read(config)


def trained_stages(monkeypatch, *, until=None):
  """Records (workdir, stage) of what is trained, of a refit too; dies at `until`."""
  recorded, original = [], train.train_stage

  def record(fold, stage):
    home = fold.workdir.parent.name + '/refit' if fold.refit else fold.workdir.name
    recorded.append((home, stage))
    if recorded[-1] == until:
      raise Killed
    original(fold, stage)

  monkeypatch.setattr(train, 'train_stage', record)
  return recorded


@pytest.fixture(scope='module')
def study(tmp_path_factory):
  """A study that was interrupted and continued."""
  data = static_data.build(tmp_path_factory.mktemp('data'), events=('labs',))
  config, directory = experiment(data), tmp_path_factory.mktemp('W')
  with pytest.MonkeyPatch.context() as patch:
    before = trained_stages(patch, until=('windows_1', 'multimodal'))
    with pytest.raises(Killed):
      ablation_study.run(config, directory, (*NAMES, *LEFT_OUT))
  partial = json.loads((directory / 'ablations/ablations.json').read_text())
  with pytest.MonkeyPatch.context() as patch:
    after = trained_stages(patch)
    result = ablation_study.run(config, directory, (*NAMES, *LEFT_OUT))
  return config, directory, (before, partial, after, result)


def test_only_what_differs_is_trained_and_an_interrupted_study_goes_on(study):
  _, directory, (before, partial, after, result) = study
  assert before == [
    *((directory.name, stage) for stage in ('static', 'labs', 'multimodal')),
    *((f'{directory.name}/refit', stage) for stage in ('static', 'labs', 'multimodal')),
    ('only_static', 'multimodal'),  # its stage is the full run's
    ('only_static/refit', 'multimodal'),
    ('windows_1', 'labs'),
    ('windows_1', 'multimodal'),
  ]
  assert [each['name'] for each in partial['ablations']] == ['only_static']
  assert partial['to_run'] == ['windows_1']
  assert after == [
    ('windows_1', 'multimodal'),
    ('windows_1/refit', 'labs'),
    ('windows_1/refit', 'multimodal'),
  ]
  assert [each['name'] for each in result['ablations']] == list(NAMES)
  assert result['to_run'] == []
  first, second = result['ablations']
  assert (first['taken'], first['trained']) == (['static'], ['multimodal'])
  assert (second['taken'], second['trained']) == (['static'], ['labs', 'multimodal'])
  assert not (directory / 'ablations/windows_1/fold0/static').exists()


def test_a_finished_study_trains_and_predicts_nothing(study, monkeypatch):
  config, directory, (_, _, _, result) = study
  monkeypatch.setattr(train, 'train_stage', None)
  monkeypatch.setattr(ablation_study.evaluate, 'predict', None)
  assert ablation_study.run(config, directory, (*NAMES, *LEFT_OUT)) == result


def test_what_does_not_apply_is_named_with_its_reason(study):
  _, directory, (_, _, _, result) = study
  assert result['left_out'] == {
    'without_ecg': 'the data set has no ecg',
    'without_labs': 'with two modalities, this is only_static',
    'htaf_windows_12': 'the data set has no grid of signals',
  }
  for name in ('ablations.md', 'ablations.html'):
    text = (directory / 'ablations' / name).read_text()
    for left_out in LEFT_OUT:
      assert left_out.replace('_', r'\_' if name.endswith('md') else '_') in text


def test_segments_longer_than_the_grid_do_not_apply():
  config = read(mortality.get_config('small'))
  schema = fake_batch.schema('mortality')
  schema = kinds.changed(schema, 'vitals', steps=24)
  reasons = {
    each.name: each.reason
    for each in declared(config, schema)
    if each.name.startswith('htaf_windows')
  }
  assert {name for name, reason in reasons.items() if reason} == {
    name for name in reasons if '48' in name
  }
  assert set(reasons.values()) == {'', 'the grid has only 24 steps'}
  assert {len(name.split('_')) - 2 for name in reasons} == {1, 2, 3}


def test_differences_are_those_of_an_independent_computation(study):
  config, directory, (_, _, _, result) = study
  dataset = default_data.open_or_simulate(config)
  rows = dataset.rows(0, 'test')
  label, subject = dataset.index['label'][rows], dataset.index['subject_id'][rows]

  def score(folder):
    table = pq.read_table(folder / 'fold0/baselines/multimodal.parquet')
    assert table['sample_id'].to_pylist() == dataset.index['sample_id'][rows].tolist()
    return table['p1'].to_numpy()

  full = score(directory)
  distinct, index = np.unique(subject, return_inverse=True)
  for entry in result['ablations']:
    other = score(directory / 'ablations' / entry['name'])
    assert np.abs(other - full).max() > 1e-4
    difference = lambda weight, other=other: (
      metrics.roc_auc_score(label, other, sample_weight=weight)
      - metrics.roc_auc_score(label, full, sample_weight=weight)
    )
    rng, draws = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
      drawn = rng.integers(len(distinct), size=len(distinct))
      draws.append(difference(np.bincount(drawn, minlength=len(distinct))[index]))
    found = entry['differences']['auroc']
    assert found['value'] == pytest.approx(difference(np.ones(len(rows))), abs=1e-9)
    low, high = np.quantile(draws, [0.025, 0.975])
    assert (found['low'], found['high']) == pytest.approx((low, high), abs=1e-9)
    assert entry['by_seed']['auroc'] == [found['value']]


def ablated(config, name, tmp_path, **options):
  """The run of an ablation in a folder of its own."""
  dataset = default_data.open_or_simulate(config)
  ablation = next(each for each in declared(config, dataset.schema) if each.name == name)
  config = config.changed(ablation.changes)
  dataset = default_data.open_or_simulate(config)
  return Run(config, dataset, int(config.folds), tmp_path, **options)


def test_a_stage_that_is_taken_is_what_training_it_would_have_given(study, tmp_path):
  config, directory, _ = study
  fold = ablated(config, 'only_static', tmp_path)
  train.train_stage(fold, 'static')
  trained, _ = restore_best(fold, 'static')
  fold = ablated(config, 'only_static', tmp_path, taken={'static': directory})
  taken, _ = restore_best(fold, 'static')
  jax.tree.map(np.testing.assert_array_equal, trained['params'], taken['params'])


def test_a_taken_stage_that_saw_held_out_subjects_is_refused(study, tmp_path):
  config, directory, _ = study
  foreign = tmp_path / 'foreign'
  shutil.copytree(directory / 'fold0/static', foreign / 'fold1/static')
  config = config.changed({'folds': '1'})
  fold = ablated(config, 'only_static', tmp_path, taken={'static': foreign})
  with pytest.raises(DataError, match=r'was fitted on .* subjects of fold 1'):
    restore_best(fold, 'static')


def test_wrong_requests_are_named(study):
  config, directory, _ = study
  with pytest.raises(DataError, match=r'unknown .without_lab.; known: only_static'):
    ablation_study.run(config, directory, ['without_lab'])
  with pytest.raises(DataError, match='compared by the stage'):
    ablation_study.run(config.changed({'stages': 'labs'}), directory)
  with (
    workdir.held(directory, [0]),
    pytest.raises(DataError, match=r'fold0\.lock: another process works on fold 0.*since'),
  ):
    ablation_study.run(config, directory)
  with pytest.raises(DataError, match=r'has no .lab.'):
    default_data.open_or_simulate(config.changed({'data.modalities': ('lab',)}))


def test_a_wrong_seed_is_one_clear_line():
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'medm2t_jax.ablate'),
      *('--config=configs/mortality.py:small', '--seeds=0,one'),
    ],
    cwd=Path(__file__).resolve().parents[2],
    capture_output=True,
    text=True,
    check=False,
    timeout=120,
  )
  assert done.returncode == 1
  assert done.stderr.strip().splitlines()[-1].startswith('error: --seeds=0,one')


EXPERIMENTS = {'cvd': cvd, 'mortality': mortality, 'los': los}


@pytest.mark.parametrize(
  ('task', 'variant'), [('cvd', 'small'), ('mortality', 'small,published')]
)
def test_every_ablation_builds_and_changes_the_model_or_its_training(task, variant):
  full = read(EXPERIMENTS[task].get_config(variant))
  full = full.changed({'model.sequence': 'mean_last'})  # quickly traced
  schema, batch = fake_batch.schema(task), fake_batch.batch(rows=3, task=task)
  if task == 'mortality':  # its grid; ECGs are those of cvd
    schema = schema.only(('static', 'labs', 'vitals'))
  absent = {*fake_batch.schema(task).names} - {*schema.names}

  def model_of(config, schema):
    model = model_config(task, config.model, schema)
    if 'ecg' not in model.names:
      return model
    return fake_batch.with_sizes(model, 'ecg', signal_plan=((4, 20),))

  def parameters(config, schema):
    """The parameter tree as shapes; only traced."""
    model = MedM2T(model_of(config, schema))
    shapes = jax.eval_shape(
      lambda: model.init(jax.random.key(0), batch, stage='multimodal', train=False)
    )
    return jax.tree.map(lambda leaf: leaf.shape, shapes['params'])

  def built_by_another_case(name):
    """Modalities more or less, other windows; of mortality only what its grid adds."""
    of_modalities = name.startswith(('only_', 'without_')) and name.endswith(schema.names)
    of_windows = name.startswith('htaf_windows') and name != 'htaf_windows_3_6_12'
    return of_modalities or of_windows or (task == 'mortality' and name in of_cvd)

  of_cvd = {
    each.name
    for each in declared(read(cvd.get_config('small')), fake_batch.schema('cvd'))
    if not each.reason
  }
  expected = parameters(full, schema)
  names = set()
  for ablation in declared(full, schema):
    if any(ablation.reason == f'the data set has no {name}' for name in absent):
      continue
    if ablation.reason:
      accumulates = ablation.name == 'without_accumulation'
      if task == 'cvd':
        assert accumulates or ablation.group == 'Dense signals'
      else:  # the published form has no ensemble
        assert ablation.group == 'Trunk'
      continue
    names.add(ablation.name)
    config = full.changed(ablation.changes)
    chosen = schema.only(config.data.modalities or schema.names)
    if ablation.name.startswith('windows'):  # windows of events have no parameters
      assert model_of(config, chosen) != model_of(full, schema), ablation.name
      continue
    if ablation.name == 'without_pretraining':
      assert config.recipe['multimodal'].starts_from == ()
    else:
      assert model_of(config, chosen) != model_of(full, schema), ablation.name
    if model_of(config, chosen) == model_of(full, schema):
      continue
    if built_by_another_case(ablation.name):
      continue
    found = parameters(config, chosen)
    if ablation.name == 'without_pretraining':
      assert (found == expected) == (full.model.trunk == 'decoder')
      continue
    same = ('shared_encoder_after', 'without_accumulation', 'without_modality_dropout')
    assert (found == expected) == (ablation.name in same), ablation.name
  assert {f'only_{name}' for name in schema.modalities} <= names
  assert {'without_attention', 'windows_10', 'published_events'} <= names
  assert ('without_accumulation' in names) == (task == 'mortality')
  assert ('without_deep_network' in names) == (task == 'cvd')


def test_the_ablations_for_length_of_stay_are_the_models_of_mortality_but_for_the_output():
  models = {}
  # What the small models for mortality have of their own.
  head = {path: v for path, v in FROZEN_ENCODERS.items() if path.startswith('model.')}
  for task in ('los', 'mortality'):
    full = read(EXPERIMENTS[task].get_config('small,published'))
    schema = fake_batch.schema(task)
    full = full.changed(head)
    models[task] = {}
    for ablation in declared(full, schema):
      assert bool(ablation.reason) == (ablation.group == 'Trunk')
      if ablation.reason:
        continue
      config = full.changed(ablation.changes)
      chosen = schema.only(config.data.modalities or schema.names)
      built = model_config(task, config.model, chosen)
      assert built.outputs == {'los': 1, 'mortality': 2}[task]
      models[task][ablation.name] = dataclasses.replace(built, outputs=0, link='softmax')
  assert models['los'] == models['mortality']


def test_segment_stages_do_not_depend_on_what_is_built_on_them(folder, tmp_path):
  base = read(mortality.get_config('small'))
  base = base.changed({'data.dir': str(folder / 'out'), 'model.segment_lengths': (2, 4)})
  base = base.changed({'data.modalities': ('static', 'vitals')})
  dataset = default_data.open_or_simulate(base)
  same = lambda values, stage: (
    ablation_study.definition(make_runs(base.changed(values), dataset, tmp_path)[0], stage)
    == ablation_study.definition(make_runs(base, dataset, tmp_path)[0], stage)
  )
  levels = lambda name: {'model.grid_levels': name}
  assert same(levels('micro'), 'vitals_segments_2')
  assert not same(levels('micro'), 'vitals')
  assert not same(levels('macro'), 'vitals_segments_2')
  assert same({'model.segment_lengths': (2,)}, 'vitals_segments_2')
  assert same({'model.fusion': 'none'}, 'vitals')
  assert not same({'model.fusion': 'none'}, 'multimodal')
  for values in ({'seed': 1}, {'recipe.static.epochs': 7}, {'data.max_recordings': 1}):
    assert not same(values, 'static')
    assert not same(values, 'multimodal')


def test_without_attention_the_decoder_reads_the_vectors_alone():
  for fusion, vectors in (('none', 3), ('add', 6), ('concat', 9)):
    config = fake_batch.config('cvd', fusion=fusion)
    model, batch = MedM2T(config), fake_batch.batch(rows=3, task='cvd')
    shapes = jax.eval_shape(
      lambda model=model, batch=batch: model.init(
        jax.random.key(0), batch, stage='multimodal', train=False
      )
    )
    widths = {
      leaf.shape[0]
      for leaf in jax.tree.leaves(shapes['params']['decoders_multimodal'])
      if leaf.ndim == 2
    }
    assert vectors * config.fusion.width in widths
    assert ('bimodal' in shapes['params']['fusion']) == (fusion != 'none')


def test_an_experiment_that_is_so_already_is_no_ablation():
  config = read(physionet2012.get_config('small'))
  schema = kinds.replaced(
    fake_batch.schema().only(('static', 'vitals')),
    events=fake_batch.schema().modalities['labs'],
  )
  reasons = {each.name: each.reason for each in declared(config, schema)}
  assert 'statistics' in reasons['without_accumulation']
  assert not reasons['without_micro_level'] and not reasons['windows_3']
  end_to_end = read(physionet2012.get_config('small,end_to_end'))
  reasons = {each.name: each.reason for each in declared(end_to_end, schema)}
  assert reasons['without_pretraining'] == 'the experiment has no pretraining'
