"""Runs the trials of a sweep: an optuna study in a folder, which can be interrupted.

  DIRECTORY/sweep.json        definition of the sweep
  DIRECTORY/journal.log       optuna's record of the study
  DIRECTORY/trial-0000/       a workdir
  DIRECTORY/trials.jsonl      one line per trial: value, parameters, why it failed
  DIRECTORY/best.json         configuration of the best trial, for configs/replay.py

An interrupted trial continues in its workdir. Suggestions depend only on the sweep's seed,
the trial's number and earlier trials, so an interrupted sweep has the same result as an
uninterrupted one.
"""

from __future__ import annotations

import fnmatch
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from data_pipeline import folders, lock
from data_pipeline.format.atomic import write_text
from data_pipeline.format.schema import DataError, write_json
from medm2t_jax.experiment import Experiment, Sweep
from medm2t_jax.experiment.default_data import open_or_simulate
from medm2t_jax.runs import workdir
from medm2t_jax.runs.run import make_runs
from medm2t_jax.training import selection, stage_training, train

_LOGGER = logging.getLogger(__name__)
_KINDS = ('uniform', 'log_uniform', 'integer', 'choice')


def run(sweep: Sweep, directory: Path) -> dict[str, Any]:
  """Runs all remaining trials.

  Args:
    sweep: definition of the search.
    directory: created if it does not exist.

  Returns:
    The best trial: its number, value, parameters and the path of `best.json`.

  Raises:
    DataError: the sweep is invalid, the directory belongs to or is used by another sweep,
      or no trial could be trained to its end.
    preemption.Preempted: SIGTERM arrived; run it again to continue.
  """
  _check_space(sweep)
  folders.make(directory, '--directory')
  # Two processes would each treat the other's running trial as interrupted.
  with lock.exclusive(directory / 'lock', 'runs this sweep', 'use another --directory'):
    _claim(directory, sweep)
    study = _open_study(sweep, directory)
    while (trial := _next_trial(sweep, study)) is not None:
      try:
        value = _train(_suggested(sweep, trial), sweep.stage, _workdir(directory, trial))
      except (stage_training.TrainingError, DataError) as error:
        _LOGGER.warning('trial %d: %s', trial.number, error)
        trial.set_user_attr('reason', str(error))
        study.tell(trial, state=TrialState.PRUNED)
      else:
        _LOGGER.info('trial %d: %s = %.5g', trial.number, _objective(sweep), value)
        study.tell(trial, value)
      _write_trials(sweep, study, directory)
    return _best(sweep, study, directory)


def _objective(sweep: Sweep) -> str:
  return selection.measured(sweep.experiment.recipe[sweep.stage].select_by)


def _check_space(sweep: Sweep) -> None:
  """Raises DataError for an entry of `space` that does not fit any config value."""
  chosen = sweep.experiment.stages
  if chosen != 'all' and sweep.stage not in chosen.split(','):
    raise DataError(
      f'sweep.stage={sweep.stage!r} is not among experiment.stages={chosen!r}'
    )
  if not sweep.space:
    raise DataError('sweep.space is empty: there is nothing to search')
  for path, kind, *numbers in sweep.space:
    if kind not in _KINDS or len(numbers) != (1 if kind == 'choice' else 2):
      raise DataError(
        f'sweep.space: {(path, kind, *numbers)} must be (path, kind, low, high) or '
        f"(path, 'choice', values); kinds are {', '.join(_KINDS)}"
      )
    for value in numbers[0] if kind == 'choice' else numbers:
      _with_values(sweep.experiment, {path: value})


def _with_values(experiment: Experiment, values: Mapping[str, Any]) -> Experiment:
  """A copy of the experiment with the values at all matching paths.

  Raises:
    DataError: no path matches, or a field does not allow the value.
  """
  paths = list(experiment.paths())
  changes: dict[str, Any] = {}
  for pattern, value in values.items():
    matching = fnmatch.filter(paths, pattern)
    if not matching:
      raise DataError(f'sweep.space: the experiment has no value {pattern!r}')
    changes |= dict.fromkeys(matching, value)
  return experiment.changed(changes, 'sweep.experiment')


def _claim(directory: Path, sweep: Sweep) -> None:
  """Writes sweep.json, or checks that it matches; only `trials` may differ."""
  path = directory / 'sweep.json'
  ours = sweep.to_json()
  if path.exists():
    theirs = json.loads(path.read_text())
    if theirs | {'trials': 0} != ours | {'trials': 0}:
      raise DataError(
        f'{path} belongs to another sweep. Use another --directory, or the same sweep; '
        'only sweep.trials may change.'
      )
  write_json(path, ours)


def _open_study(sweep: Sweep, directory: Path) -> optuna.Study:
  optuna.logging.set_verbosity(optuna.logging.WARNING)
  select_by = sweep.experiment.recipe[sweep.stage].select_by
  return optuna.create_study(
    storage=JournalStorage(JournalFileBackend(str(directory / 'journal.log'))),
    study_name='sweep',
    load_if_exists=True,
    direction='maximize' if selection.higher_is_better(select_by) else 'minimize',
  )


def _next_trial(sweep: Sweep, study: optuna.Study) -> Trial | None:
  """The interrupted trial if there is one, else a new one; None when all are done."""
  trials = study.get_trials(deepcopy=False)
  running = [trial for trial in trials if trial.state == TrialState.RUNNING]
  number = running[0].number if running else len(trials)
  study.sampler = optuna.samplers.TPESampler(seed=sweep.seed + number)
  if running:
    _LOGGER.info('trial %d continues', number)
    return Trial(study, running[0]._trial_id)
  return study.ask() if number < sweep.trials else None


def _suggested(sweep: Sweep, trial: Trial) -> Experiment:
  """The experiment with this trial's values."""
  values = {}
  for path, kind, *numbers in sweep.space:
    if kind == 'choice':
      # As text, because a value may be a tuple, which optuna does not store.
      choices = {json.dumps(choice): choice for choice in numbers[0]}
      values[path] = choices[trial.suggest_categorical(path, list(choices))]
    elif kind == 'integer':
      values[path] = trial.suggest_int(path, *numbers)
    else:
      values[path] = trial.suggest_float(path, *numbers, log=kind == 'log_uniform')
  return _with_values(sweep.experiment, values)


def _train(config: Experiment, stage: str, directory: Path) -> float:
  """Trains a trial and returns its objective; predicts no test subject.

  Only the first run of each fold is trained; replaying the best trial includes the refit.
  """
  dataset = open_or_simulate(config)
  folds = make_runs(config.changed({'refit': False}), dataset, directory)
  workdir.claim(directory, config, dataset.version)
  train.train(folds)
  values = []
  for fold in folds:
    record = fold.record(stage)
    assert record is not None  # it has been trained
    if record.skipped:
      raise DataError(f'stage {stage!r} was skipped: {record.skipped}')
    best = record.history[record.best_epoch - 1]
    values.append(best[selection.measured(config.recipe[stage].select_by)])
  return float(np.mean(values))


def _workdir(directory: Path, trial: Trial | FrozenTrial) -> Path:
  return directory / f'trial-{trial.number:04d}'


def _write_trials(sweep: Sweep, study: optuna.Study, directory: Path) -> None:
  """Writes trials.jsonl, and best.json if any trial is complete."""
  lines = [
    {
      'trial': trial.number,
      'state': trial.state.name.lower(),
      _objective(sweep): trial.value,
      'parameters': trial.params,
      'reason': trial.user_attrs.get('reason', ''),
      'workdir': _workdir(directory, trial).name,
    }
    for trial in study.get_trials(deepcopy=False)
  ]
  write_text(directory / 'trials.jsonl', ''.join(json.dumps(line) + '\n' for line in lines))
  if any(trial.state == TrialState.COMPLETE for trial in study.get_trials(deepcopy=False)):
    best = _workdir(directory, study.best_trial) / 'config.json'
    write_text(directory / 'best.json', best.read_text(encoding='utf-8'))


def _best(sweep: Sweep, study: optuna.Study, directory: Path) -> dict[str, Any]:
  trials = study.get_trials(deepcopy=False)
  if not any(trial.state == TrialState.COMPLETE for trial in trials):
    reasons = [trial.user_attrs['reason'] for trial in trials]
    raise DataError(
      f'{directory}: none of {len(trials)} trials could be trained to its end; the first '
      f'for this reason: {reasons[0] if reasons else "sweep.trials is 0"}'
    )
  best = study.best_trial
  return {
    'trial': best.number,
    _objective(sweep): best.value,
    'parameters': best.params,
    'workdir': str(_workdir(directory, best)),
    'config': str(directory / 'best.json'),
  }
