"""Trains, predicts and compares the ablations of an experiment.

An ablation is a run in its own workdir, `W/ablations/NAME`. As long as everything that a
stage depends on is unchanged, the stage of the full run in W is used and not trained
again, under the leak rules of every checkpoint. Runs of further seeds are in
`W/ablations/seed{s}/{full,NAME}`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline import folders
from data_pipeline.format.schema import DataError
from medm2t_jax.baselines import cache, single_modalities
from medm2t_jax.evaluation import evaluate
from medm2t_jax.evaluation.rows import predictions_table, read_rows
from medm2t_jax.experiment import Experiment
from medm2t_jax.experiment.default_data import only, open_or_simulate
from medm2t_jax.experiment.validation import folds_of
from medm2t_jax.report.text import duration
from medm2t_jax.runs import workdir
from medm2t_jax.runs.restoring import restore_best
from medm2t_jax.runs.run import Run, make_runs
from medm2t_jax.studies import ablation_table as reporting
from medm2t_jax.studies.ablations import Ablation, declared
from medm2t_jax.training import stage_training, steps, train
from medm2t_jax.training.starting import recipe_of, sources_of

_LOGGER = logging.getLogger(__name__)
_FOLDER = 'ablations'


def run(
  config: Experiment,
  directory: Path,
  names: Sequence[str] = (),
  seeds: Sequence[int] = (),
) -> dict[str, Any]:
  """Trains all incomplete runs, including the full model, and writes the table.

  Args:
    config: of the full model.
    directory: its workdir; created if it does not exist.
    names: ablations to run; empty for all that apply.
    seeds: training seeds over which metrics are averaged; empty for that of the config.

  Returns:
    The content of `ablations.json`.

  Raises:
    DataError: an ablation is unknown, the experiment is wrong, or another process works on
      one of the folds here.
    stage_training.TrainingError: a loss of the full model is not finite.
    preemption.Preempted: SIGTERM arrived; run it again to continue.
  """
  chosen_folds = folds_of(config)
  if config.stages != 'all' and evaluate.STAGE not in config.stages.split(','):
    raise DataError(
      f'config.stages={config.stages!r}: ablations are compared by the stage '
      f'{evaluate.STAGE!r}'
    )
  folders.make(directory, '--workdir')
  (directory / _FOLDER).mkdir(exist_ok=True)
  with workdir.held(directory, chosen_folds):
    return _Study(config, directory, names, seeds or (config.seed,)).run()


def definition(fold: Run, stage: str) -> str:
  """Everything that the training of a stage depends on, as JSON.

  Stages with the same definition have the same best checkpoint.
  """
  return json.dumps(_definition(fold, stage), sort_keys=True, default=str)


def _definition(fold: Run, stage: str) -> dict[str, Any]:
  config, model = fold.config, fold.model_config
  modality, recipe = model.stages[stage].modality, recipe_of(fold, stage)
  data = {
    key: value for key, value in config.data.to_fields().items() if key != 'modalities'
  }
  part: Any = dataclasses.asdict(model)
  if modality is not None:
    of = model.modality(modality)
    part = of.definition(model.stages[stage].part)
    if model.stages[stage].of_samples:  # other stages have no trunk
      part |= {'trunk': (model.ensemble, of.columns), 'deep': model.deep}
  return {
    'stage': stage,
    'fold': fold.fold,
    'seed': config.seed,
    'augmentation': config.augmentation,
    'data': data,
    'data_version': fold.dataset.version,
    'modalities': fold.modalities_of(stage),
    'model': {'outputs': model.outputs, 'dtype': model.dtype, 'part': part},
    'recipe': {
      key: value for key, value in recipe.to_fields().items() if key != 'starts_from'
    },
    'starts_from': [_definition(fold, name) for name in sources_of(fold, stage)],
  }


class _Study:
  """The full runs, one per seed, and the ablations in progress."""

  def __init__(
    self, config: Experiment, directory: Path, names: Sequence[str], seeds: Sequence[int]
  ):
    self._config = config
    self._directory = directory
    self._seeds = tuple(dict.fromkeys(seeds))
    self._dataset = open_or_simulate(config)
    self._full = {seed: self._folds(None, seed) for seed in self._seeds}
    first = self._full[self._seeds[0]]
    everything = declared(config, self._dataset.schema)
    known = [ablation.name for ablation in everything]
    for name in names:
      if name not in known:
        raise DataError(f'--ablations: unknown {name!r}; known: {", ".join(known)}')
    chosen = [each for each in everything if not names or each.name in names]
    self._left_out = {each.name: each.reason for each in chosen if each.reason}
    self._ablations: list[Ablation] = []
    for ablation in chosen:
      if ablation.name in self._left_out:
        continue
      fold = self._folds(ablation, self._seeds[0])[0]
      if definition(fold, evaluate.STAGE) == definition(first[0], evaluate.STAGE):
        self._left_out[ablation.name] = 'the experiment already has this setting'
      else:
        self._ablations.append(ablation)

  def run(self) -> dict[str, Any]:
    comparison = self._comparison()
    started, expected, spent = time.perf_counter(), 0.0, 0.0
    costs = [self._cost(ablation) for ablation in self._ablations]
    summary = self._write(comparison)
    for number, ablation in enumerate(self._ablations):
      try:
        runs = [self._train(self._folds(ablation, seed)) for seed in self._seeds]
      except stage_training.TrainingError as error:
        _LOGGER.warning('%s: %s', ablation.name, error)
        self._left_out[ablation.name] = f'it could not be trained: {error}'
        summary = self._write(comparison)
        continue
      comparison.add(self._describe(ablation), runs)
      summary = self._write(comparison)
      spent, expected = time.perf_counter() - started, expected + costs[number]
      left = spent / expected * sum(costs[number + 1 :]) if expected else 0.0
      _LOGGER.info(
          'ablation %d of %d, %s: %s; about %s left',
          number + 1, len(self._ablations), ablation.name, comparison.verdict(),
          duration(left),
      )  # fmt: skip
    return summary

  def _comparison(self) -> reporting.Ablations:
    """Trains and predicts the full model with every seed."""
    runs = [self._train(self._full[seed]) for seed in self._seeds]
    tables, at = [], 0
    for fold in self._full[self._seeds[0]]:
      rows = fold.splits.rows('test')
      predicted = runs[0][at : at + len(rows)]
      tables.append(predictions_table(fold.dataset, fold.fold, 'test', rows, predicted))
      at += len(rows)
    test, _ = read_rows(pa.concat_tables(tables), self._dataset.schema)
    return reporting.Ablations(test, runs, self._config.evaluation.bootstrap)

  def _folds(self, ablation: Ablation | None, seed: int) -> list[Run]:
    """The folds of a run; stages equal to those of the full run are taken from it."""
    config = self._config.changed({'seed': seed})
    directory = self._directory
    if seed != self._config.seed:
      directory = directory / _FOLDER / f'seed{seed}' / 'full'
    if ablation:
      config = config.changed(ablation.changes)
      parent = directory / _FOLDER if seed == self._config.seed else directory.parent
      directory = parent / ablation.name
    dataset = self._dataset
    if config.data.modalities:
      dataset = only(dataset, tuple(config.data.modalities))
    runs = make_runs(config, dataset, directory)
    if not ablation:
      return runs
    return [
      Run(
        config,
        dataset,
        run.fold,
        directory,
        taken=dict.fromkeys(_same_stages(run, original), original.workdir),
      )
      for run, original in zip(runs, self._full[seed], strict=True)
    ]

  def _train(self, folds: list[Run]) -> np.ndarray:
    """Trains all incomplete stages; returns the test predictions, fold after fold."""
    workdir.claim(folds[0].workdir, folds[0].config, folds[0].dataset.version)
    train.train(folds)
    return np.concatenate([_test_predictions(fold) for fold in folds])

  def _cost(self, ablation: Ablation) -> float:
    """Seconds that the full run took for the stages to train; 0 if complete."""
    seconds = 0.0
    for seed in self._seeds:
      runs = lambda folds: [run for fold in folds for run in fold.runs]
      pairs = zip(runs(self._folds(ablation, seed)), runs(self._full[seed]), strict=True)
      for run, full in pairs:
        for stage in train.chosen_stages(run):
          known = run.record(stage) is None and stage in full.model_config.stages
          record = full.record(stage) if known else None
          seconds += record.seconds if record else 0.0
    return seconds

  def _describe(self, ablation: Ablation) -> dict[str, Any]:
    fold = self._folds(ablation, self._seeds[0])[0]
    stages = train.chosen_stages(fold)
    return {
      'name': ablation.name,
      'group': ablation.group,
      'question': ablation.question,
      'changes': json.loads(json.dumps(dict(ablation.changes))),
      'trained': [stage for stage in stages if stage not in fold.taken],
      'taken': [stage for stage in stages if stage in fold.taken],
    }

  def _write(self, comparison: reporting.Ablations) -> dict[str, Any]:
    schema = self._dataset.schema
    return comparison.write(
      self._directory / _FOLDER,
      {
        'task': schema.task,
        'source': schema.source,
        'data_version': self._dataset.version,
        'folds': list(folds_of(self._config)),
        'seeds': list(self._seeds),
        'left_out': dict(self._left_out),
        'to_run': [
          each.name
          for each in self._ablations
          if each.name not in (*comparison.names, *self._left_out)
        ],
      },
    )


def _same_stages(fold: Run, full: Run) -> list[str]:
  """Stages before the last that are the same in the full run."""
  known = full.model_config.stages
  return [
    stage
    for stage in fold.model_config.stages
    if stage != evaluate.STAGE
    and stage in known
    and definition(fold, stage) == definition(full, stage)
  ]


def _test_predictions(fold: Run) -> np.ndarray:
  """Test predictions of the final run, kept in the workdir, in the order of the index."""
  settings = single_modalities.settings(fold, evaluate.STAGE)
  made_from = cache.identity(fold, evaluate.STAGE, settings)
  found = cache.read(fold, evaluate.STAGE, made_from)
  if found is not None:
    return found
  variables, _ = restore_best(fold.final, evaluate.STAGE)
  predictor = steps.predictor(fold.final.model, evaluate.STAGE, variables)
  _, predictions = evaluate.predict(fold.final, predictor, 'test', {'all': ()})
  cache.write(fold, evaluate.STAGE, made_from, predictions['all'])
  return predictions['all']
