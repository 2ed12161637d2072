"""Evaluation: restores the best checkpoint of every fold, predicts, reports.

Our model comes from checkpoints alone, and the optimizer state is not read. Validation
subjects are predicted by the first run of a fold, test subjects by its final one. What it
is compared with (`baselines`) is fitted here, on the same subjects.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.format.dataset import Dataset, Split
from data_pipeline.format.schema import DataError
from data_pipeline.format.subjects import fingerprint
from medm2t_jax import baselines
from medm2t_jax.baselines.inputs import Inputs
from medm2t_jax.evaluation import explain, finished, reporting, robustness
from medm2t_jax.evaluation.rows import predictions_table
from medm2t_jax.inference import blend, bundling
from medm2t_jax.models.medm2t import MULTIMODAL
from medm2t_jax.runs import workdir
from medm2t_jax.runs.hosts import distributed
from medm2t_jax.runs.reader import Batch
from medm2t_jax.runs.restoring import restore_best
from medm2t_jax.runs.run import Run, all_records
from medm2t_jax.training import prediction, steps
from medm2t_jax.training.steps import Predictor

_LOGGER = logging.getLogger(__name__)

STAGE = MULTIMODAL
_ALL = 'all modalities'
# Of more modalities there are too many subsets to predict them all.
MOST_IN_SUBSETS = 5


def evaluate(folds: Sequence[Run], *, again: bool = True) -> dict[str, Any]:
  """Writes `eval/` of the workdir: predictions, metrics and the report.

  Args:
    folds: of one experiment, evaluated and pooled.
    again: also where there is an evaluation that was made from the same.

  Returns:
    The content of metrics.json.

  Raises:
    DataError: a fold's multimodal stage is not complete, or was fitted on subjects
      that it must not have seen; an unknown baseline.
  """
  config, dataset = folds[0].config, folds[0].dataset
  results = folds[0].workdir / 'eval'
  made_from = finished.made_from(folds)
  if not again:
    kept = distributed.from_first(lambda: finished.read(results, made_from))
    if kept is not None:
      _LOGGER.info(
        'the evaluation is complete and nothing that it was made from has changed: %s',
        results / 'report.html',
      )
      return kept
  tables = []
  tests: dict[str, list[np.ndarray]] = {}
  tested: list[tuple[np.ndarray, np.ndarray]] = []
  damaged: list[list[reporting.DamageCurve]] = []
  measured = config.evaluation.robustness
  scenarios = modality_scenarios(dataset.schema.names, every_subset=measured)
  inputs = [Inputs(fold) for fold in folds]
  alone: list[np.ndarray] = []
  for fold, given in zip(folds, inputs, strict=True):
    variables, _ = restore_best(fold, STAGE)
    _LOGGER.info('%s: predicting from the best checkpoint of %s', fold.name, STAGE)
    predictor = steps.predictor(fold.model, STAGE, variables)
    rows, predictions = predict(fold, predictor, 'validation', {_ALL: ()})
    validated = predictions[_ALL]
    if config.blend:
      validated = blend.fit(fold, given, validated)
    tables.append(predictions_table(dataset, fold.fold, 'validation', rows, validated))
    final = fold.final
    variables, _ = restore_best(final, STAGE)
    ours = steps.predictor(final.model, STAGE, variables)
    _LOGGER.info('%s: predicting from the best checkpoint of %s', final.name, STAGE)
    predictor = blend.predictor(fold, ours)
    if config.blend:
      alone.append(predict(final, ours, 'test', {_ALL: ()})[1][_ALL])
    rows, predictions = predict(final, predictor, 'test', {_ALL: (), **scenarios})
    tables.append(predictions_table(dataset, final.fold, 'test', rows, predictions[_ALL]))
    tested.append((rows, predictions[_ALL]))
    for name in scenarios:
      tests.setdefault(name, []).append(predictions[name])
    if measured:
      _LOGGER.info('%s: predicting from damaged input', final.name)
      share = max(1, config.evaluation.robustness_samples // len(folds))
      damaged.append(robustness.damaged_predictions(final, predictor, share))
  compared, left_out = baselines.predict(folds, inputs)
  if alone:
    compared = {blend.ALONE: np.concatenate(alone), **compared}
  explanation = explain.explain(folds, *zip(*tested, strict=True))
  table = pa.concat_tables(tables)
  context = reporting.Context(
    schema=dataset.schema,
    config=config.to_json(),
    cohort=json.loads((dataset.directory / 'cohort.json').read_text()),
    environment=workdir.environment(),
    trained_on=[_trained_on(fold) for fold in folds],
    stages=_stage_records(folds),
    scenarios={name: np.concatenate(parts) for name, parts in tests.items()},
    baselines=compared,
    baselines_left_out=left_out,
    damage=robustness.pooled(damaged) if damaged else (),
    explanation=explanation,
    dataset_version=dataset.version,
    fold_hashes=dataset.metadata['folds'],
    notes=_notes(dataset, folds, table),
  )

  def write() -> dict[str, Any]:
    _LOGGER.info('writing the report, with %d resamples', config.evaluation.bootstrap)
    metrics = reporting.write_report(
      results, table, context, resamples=config.evaluation.bootstrap
    )
    finished.write(results, made_from)
    return metrics

  metrics = distributed.from_first(write)
  _write_models(folds, metrics, (results / 'model_card.md').read_text(encoding='utf-8'))
  return metrics


def _write_models(folds: Sequence[Run], metrics: dict[str, Any], card: str) -> None:
  """Writes the bundle of each fold: what has just been evaluated."""
  for fold in folds:
    model = bundling.of_fold(fold, bundling.own_tests(metrics), card)
    folder = bundling.folder_of(fold.workdir, fold.fold)
    distributed.from_first(lambda model=model, folder=folder: model.save(folder))
    _LOGGER.info('%s: the trained model is in %s', fold.name, folder)


def predict(
  fold: Run,
  predictor: Predictor,
  split: Split,
  scenarios: Mapping[str, tuple[str, ...]],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """Predicts every sample of a split, once per scenario.

  Args:
    fold: of the checkpoint.
    predictor: of the multimodal stage.
    split: 'validation' or 'test'.
    scenarios: name -> modalities to treat as absent.

  Returns:
    Rows of the data set's index, ascending (n,), and per scenario their predictions:
    class probabilities (n, c), or days (n,).

  Raises:
    DataError: the split has no sample.
  """
  modalities, of = fold.model_config.names, fold.model_config.modality
  plan = fold.plan(split, modalities, fold.config.evaluation.batch_size)
  if not len(plan):
    raise DataError(f'fold {fold.fold}: the {split} split has no sample')

  def versions(batch: Batch) -> Iterator[Batch]:
    for drop in scenarios.values():
      yield {**batch, **{name: of(name).without(batch[name]) for name in drop}}

  return prediction.predict(
    fold, STAGE, predictor, plan, split, names=tuple(scenarios), versions=versions
  )


def modality_scenarios(
  modalities: tuple[str, ...], every_subset: bool
) -> dict[str, tuple[str, ...]]:
  """Name -> modalities to drop.

  Args:
    modalities: of the data set.
    every_subset: all subsets but the empty and the whole one, or, of more than
      `MOST_IN_SUBSETS` modalities, each alone, each pair and each left out; if false,
      each alone and each left out.
  """
  count = len(modalities)
  sizes = dict.fromkeys((1, count - 1))
  if every_subset:
    sizes = dict.fromkeys((1, 2, count - 1))
    if count <= MOST_IN_SUBSETS:
      sizes = dict.fromkeys(range(1, count))
  return {
    _scenario_name(given, modalities): tuple(
      name for name in modalities if name not in given
    )
    for size in sizes
    if 0 < size < count
    for given in itertools.combinations(modalities, size)
  }


def _scenario_name(given: tuple[str, ...], modalities: tuple[str, ...]) -> str:
  if len(given) == 1:
    return f'only {given[0]}'
  if len(given) == len(modalities) - 1:
    return f'without {next(name for name in modalities if name not in given)}'
  return ' + '.join(given)


def _trained_on(fold: Run) -> dict[str, int]:
  """How many subjects the runs of a fold have trained on."""
  count = lambda run: len(run.splits.subject_hashes('train'))
  return {'fold': fold.fold, 'first': count(fold), 'final': count(fold.final)}


def _stage_records(folds: Sequence[Run]) -> list[dict[str, Any]]:
  return [dataclasses.asdict(record) for record in all_records(folds) if not record.skipped]


def _notes_on_start(fold: Run) -> list[str]:
  """What training started from, where that is a trained model."""
  if fold.start is None:
    return []
  config = fold.config
  trained = {'all': 'all parameters', 'head': 'its output layers alone'}[config.adapt]
  notes = [f'Adapted from the trained model {config.start_from_version}: {trained}.']
  keys = fold.start.lineage.seen(fold.start.key_fingerprint).keys()
  if keys != {fingerprint(fold.dataset.subject_key)}:
    notes.append(
      'Whether that model has seen subjects who are tested here cannot be known: it comes '
      'from data with another key of subject hashes.'
    )
  return notes


def _notes(dataset: Dataset, folds: Sequence[Run], table: pa.Table) -> list[str]:
  """What a reader of the report must know first."""
  notes = []
  for record in all_records(folds):
    run = workdir.run_name(record.fold, record.refit).capitalize()
    if record.skipped and not record.refit:  # whose first run says it
      notes.append(f'{run}: the stage {record.stage} was skipped, its modality is missing.')
    notes.extend(f'{run}, {record.stage}: {note}' for note in record.notes)
  notes.extend(_notes_on_start(folds[0]))
  if dataset.schema.condition:
    notes.append(f'Every risk here is conditional: {dataset.schema.condition}.')
  if dataset.schema.source == 'simulated':
    notes.append('Simulated patients: these figures say nothing about real ones.')
  tested = table['split'].to_numpy(zero_copy_only=False) == 'test'
  subjects = len(np.unique(table['subject_id'].to_numpy()[tested]))
  if subjects < 100:
    notes.append(
      f'Only {subjects} test subjects: intervals are wide, some figures undefined.'
    )
  return notes
