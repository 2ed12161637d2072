"""Sweeps: interrupted and continued, failed trials, and the best one repeated."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from configs import replay
from configs.sweeps import common, los
from configs.sweeps import mortality as mortality_sweep
from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.schema import DataError
from medm2t_jax.experiment import default_data, read, read_sweep
from medm2t_jax.runs import workdir
from medm2t_jax.runs.run import make_runs
from medm2t_jax.training import stage_training, train
from tests.support import static_data

optuna = pytest.importorskip('optuna', reason='the extra `sweeps` is not installed')

from medm2t_jax.studies import sweep_study  # noqa: E402

RATE = ('recipe.static.learning_rate', 'log_uniform', 1e-3, 1e-1)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return static_data.build(tmp_path_factory.mktemp('static'))


def make_sweep(data, *, trials=2, space=(RATE,), **recipe):
  experiment = static_data.config(data, **recipe)
  experiment.refit = True
  return read_sweep(common.sweep(experiment, space, stage='static', trials=trials))


def lines(directory):
  return [
    json.loads(line) for line in (directory / 'trials.jsonl').read_text().splitlines()
  ]


def history(directory):
  record = workdir.read_record(directory, 0, 'static')
  keys = ('train_loss', 'validation_loss', 'validation_auroc')
  return [[epoch[key] for key in keys] for epoch in record.history]


class Killed(Exception):
  """Stands for a process that ends inside a trial."""


@pytest.fixture(scope='module')
def straight(data, tmp_path_factory):
  """A sweep of two trials, run in one go."""
  directory = tmp_path_factory.mktemp('straight')
  best = sweep_study.run(make_sweep(data, select_by='auroc'), directory)
  return directory, best


def test_the_best_trial_is_the_one_with_the_best_validation_metric(straight):
  directory, best = straight
  trials = lines(directory)
  assert [trial['state'] for trial in trials] == ['complete', 'complete']
  for trial in trials:
    reached = max(epoch[2] for epoch in history(directory / trial['workdir']))
    assert trial['validation_auroc'] == reached
    config = json.loads((directory / trial['workdir'] / 'config.json').read_text())
    rate = trial['parameters'][RATE[0]]
    assert config['recipe']['static']['learning_rate'] == rate
    assert 1e-3 <= rate <= 1e-1
  assert trials[0]['parameters'] != trials[1]['parameters']
  assert best['validation_auroc'] == max(trial['validation_auroc'] for trial in trials)
  winner = directory / f'trial-{best["trial"]:04d}' / 'config.json'
  assert (directory / 'best.json').read_bytes() == winner.read_bytes()
  assert not list(directory.glob('trial-*/eval')), 'no test subject was predicted'
  assert not list(directory.glob('trial-*/refit')), 'and none needs to be'


def test_an_interrupted_sweep_ends_as_an_uninterrupted_one(
  data, straight, tmp_path, monkeypatch
):
  expected, best = straight
  write = stage_training.MetricWriter.write

  def write_and_die(self, records):
    write(self, records)
    if 'trial-0001' in str(self._directory):
      raise Killed

  sweep = make_sweep(data, select_by='auroc')
  with monkeypatch.context() as patched:
    patched.setattr(stage_training.MetricWriter, 'write', write_and_die)
    with pytest.raises(Killed):
      sweep_study.run(sweep, tmp_path)
  assert len(lines(tmp_path)) == 1
  found = sweep_study.run(sweep, tmp_path)
  assert lines(tmp_path) == lines(expected)
  assert found['trial'] == best['trial']
  for trial in ('trial-0000', 'trial-0001'):
    assert history(tmp_path / trial) == history(expected / trial)
  # Complete, it is left as it is.
  monkeypatch.setattr(sweep_study, '_train', None)
  assert sweep_study.run(sweep, tmp_path) == found


def test_a_replayed_run_has_the_same_metrics_bit_for_bit(straight, tmp_path):
  directory, best = straight
  config = read(replay.get_config(str(directory / 'best.json')))
  dataset = default_data.open_or_simulate(config)
  train.train(make_runs(config, dataset, tmp_path))
  assert history(tmp_path) == history(directory / f'trial-{best["trial"]:04d}')
  assert (tmp_path / 'refit/fold0/static/done.json').exists()


def test_a_replay_accepts_no_other_data(data, straight):
  config = read(replay.get_config(str(straight[0] / 'best.json')))
  assert config.data.version == open_dataset(data).version
  config = config.changed({'data.version': 'another'})
  with pytest.raises(DataError, match='data version'):
    default_data.open_or_simulate(config)


def test_a_trial_that_fails_is_pruned_with_its_reason(data, tmp_path, monkeypatch):
  space = (('recipe.static.learning_rate', 'choice', (1e30, 1e-2)),)
  sweep = make_sweep(data, space=space, trials=1)
  trained = sweep_study.train.train

  def diverge(folds):
    if folds[0].config.recipe['static'].learning_rate > 1:
      raise stage_training.TrainingError('fold 0, stage static: not finite')
    trained(folds)

  monkeypatch.setattr(sweep_study.train, 'train', diverge)
  directories = [tmp_path / str(seed) for seed in range(6)]
  seen = {}
  for seed, directory in enumerate(directories):
    try:
      sweep_study.run(dataclasses.replace(sweep, seed=seed), directory)
    except DataError as error:
      assert 'none of 1 trials' in str(error) and 'not finite' in str(error)
    (trial,) = lines(directory)
    seen[trial['state']] = trial
    if len(seen) == 2:
      break
  assert seen['pruned']['reason'] == 'fold 0, stage static: not finite'
  assert seen['pruned']['validation_loss'] is None
  assert math.isfinite(seen['complete']['validation_loss'])


def test_a_directory_belongs_to_one_sweep_and_one_process(data, tmp_path):
  sweep = make_sweep(data)
  (tmp_path / 'sweep.json').write_text(
    json.dumps(make_sweep(data, space=(RATE, RATE)).to_fields())
  )
  with pytest.raises(DataError, match='another sweep'):
    sweep_study.run(sweep, tmp_path)
  with (tmp_path / 'lock').open('w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(DataError, match='another process'):
      sweep_study.run(sweep, tmp_path)


@pytest.mark.parametrize(
  ('space', 'message'),
  [
    ((), 'empty'),
    ((('recipe.static.rate', 'uniform', 0.0, 1.0),), "no value 'recipe.static.rate'"),
    ((('recipe.static.learning_rate', 'normal', 0.0, 1.0),), 'uniform, log_uniform'),
    ((('recipe.static.learning_rate', 'uniform', 0.0),), 'low, high'),
    (
      (('recipe.static.epochs', 'choice', (1, 'two')),),
      "static.epochs='two': must be a whole number",
    ),
  ],
)
def test_a_space_that_does_not_suit_is_refused(data, tmp_path, space, message):
  with pytest.raises(DataError, match=message):
    sweep_study.run(make_sweep(data, space=space), tmp_path / 'sweep')
  assert not (tmp_path / 'sweep').exists()


def test_the_objective_is_of_a_stage_that_is_trained(data, tmp_path):
  for stage in ('multimodal', 'statics'):
    with pytest.raises(DataError, match=r'sweep\.stage'):
      sweep_study.run(dataclasses.replace(make_sweep(data), stage=stage), tmp_path)


def test_values_that_match_change_together_and_tuples_stay_tuples():
  sweep = make_sweep(
    '',
    space=(
      ('recipe.*.learning_rate', 'log_uniform', 1e-5, 1e-2),
      ('recipe.static.class_weights', 'choice', ((), (0.1, 0.9))),
      ('recipe.static.epochs', 'integer', 3, 5),
    ),
  )
  before = sweep.experiment.to_fields()
  study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
  for _ in range(5):
    trial = study.ask()
    config = sweep_study._suggested(sweep, trial)
    rates = {recipe.learning_rate for recipe in config.recipe.values()}
    assert rates == {trial.params['recipe.*.learning_rate']}
    assert config.recipe['static'].class_weights in ((), (0.1, 0.9))
    assert 3 <= config.recipe['static'].epochs <= 5
  assert sweep.experiment.to_fields() == before


@pytest.mark.parametrize('module', [mortality_sweep, los])
@pytest.mark.parametrize('variant', [None, 'small'])
def test_the_sweeps_that_come_along_are_well_described(module, variant):
  sweep_study._check_space(read_sweep(module.get_config(variant)))


def test_a_wrong_command_is_one_clear_line():
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'medm2t_jax.sweep',
      '--sweep=configs/sweeps/los.py',
      '--sweep.trails=1',
    ],
    cwd=Path(__file__).resolve().parents[2],
    capture_output=True,
    text=True,
    check=False,
    timeout=120,
  )
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert done.stderr.startswith('error: ') and 'Did you mean "trials"' in done.stderr
