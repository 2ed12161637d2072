"""Evaluation: restores the best checkpoint of every fold, predicts, reports.

Our model is restored from checkpoints, without the optimizer state. Validation subjects are
predicted by the first run of a fold, test subjects by its final run. The models it is
compared with (`baselines`) are fitted here, on the same subjects.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.format.dataset import Dataset, Split
from data_pipeline.format.schema import DataError
from data_pipeline.format.subjects import fingerprint
from medm2t_jax.baselines.inputs import Inputs
from medm2t_jax.evaluation import finished, reporting, sections
from medm2t_jax.evaluation.context import Context
from medm2t_jax.evaluation.rows import predictions_table
from medm2t_jax.evaluation.sections.section import Needs, Tested
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


def evaluate(folds: Sequence[Run], *, again: bool = True) -> dict[str, Any]:
  """Writes `eval/` of the workdir: predictions, metrics and the report.

  Args:
    folds: of one experiment, evaluated and pooled.
    again: whether to evaluate again even if an evaluation is up to date.

  Returns:
    The content of metrics.json.

  Raises:
    DataError: a fold's multimodal stage is not complete, or was fitted on subjects that it
      must not have seen; a baseline is unknown; no section is chosen.
  """
  config, dataset = folds[0].config, folds[0].dataset
  if not config.evaluation.sections:
    raise DataError(
      'config.evaluation.sections is empty: there is nothing to evaluate. Remove the '
      'flag, or list sections.'
    )
  results = folds[0].workdir / 'eval'
  made_from = finished.made_from(folds)
  if not again:
    kept = distributed.from_first(lambda: finished.read(results, made_from))
    if kept is not None:
      _LOGGER.info(
        'the evaluation is complete and up to date: %s',
        results / 'report.html',
      )
      return kept
  chosen = sections.chosen(config.evaluation.sections)
  table, given, seconds = _predicted(
    folds, {each.NAME: each.needs(folds) for each in chosen}
  )
  context = Context(
    schema=dataset.schema,
    config=config.to_json(),
    cohort=json.loads((dataset.directory / 'cohort.json').read_text()),
    environment=workdir.environment(),
    trained_on=[_trained_on(fold) for fold in folds],
    stages=_stage_records(folds),
    sections=config.evaluation.sections,
    seconds=seconds,
    dataset_version=dataset.version,
    fold_hashes=dataset.metadata['folds'],
    notes=_notes(dataset, folds, table),
  )

  def write() -> dict[str, Any]:
    _LOGGER.info('writing the report, with %d resamples', config.evaluation.bootstrap)
    metrics = reporting.write_report(
      results, table, context, given, resamples=config.evaluation.bootstrap
    )
    finished.write(results, made_from)
    return metrics

  metrics = distributed.from_first(write)
  _write_models(folds, metrics, (results / 'model_card.md').read_text(encoding='utf-8'))
  return metrics


def _predicted(
  folds: Sequence[Run], needs: Mapping[str, Needs]
) -> tuple[pa.Table, dict[str, Any], dict[str, float]]:
  """Predictions of all folds, the additional inputs of each section, and durations."""
  config, dataset = folds[0].config, folds[0].dataset
  tables = []
  tested: list[dict[str, np.ndarray]] = []
  rows_of: list[np.ndarray] = []
  alone: list[np.ndarray] = []
  given: dict[str, Any] = {name: [] for name, each in needs.items() if each.of_fold}
  seconds = dict.fromkeys(needs, 0.0)

  def timed(name: str, work: Callable[[], Any]) -> Any:
    began = time.monotonic()
    found = work()
    seconds[name] += time.monotonic() - began
    return found

  inputs = [Inputs(fold) for fold in folds]
  for fold, own in zip(folds, inputs, strict=True):
    variables, _ = restore_best(fold, STAGE)
    _LOGGER.info('%s: predicting from the best checkpoint of %s', fold.name, STAGE)
    predictor = steps.predictor(fold.model, STAGE, variables)
    rows, predictions = predict(fold, predictor, 'validation', {_ALL: ()})
    validated = predictions[_ALL]
    if config.blend:
      validated = blend.fit(fold, own, validated)
    tables.append(predictions_table(dataset, fold.fold, 'validation', rows, validated))
    final = fold.final
    variables, _ = restore_best(final, STAGE)
    ours = steps.predictor(final.model, STAGE, variables)
    _LOGGER.info('%s: predicting from the best checkpoint of %s', final.name, STAGE)
    predictor = blend.predictor(fold, ours)
    if config.blend:
      alone.append(predict(final, ours, 'test', {_ALL: ()})[1][_ALL])
    rows, predictions = predict(final, predictor, 'test', _masked(needs))
    tables.append(predictions_table(dataset, final.fold, 'test', rows, predictions[_ALL]))
    rows_of.append(rows)
    tested.append(predictions)
    for name, each in needs.items():
      if each.of_fold is not None:
        _LOGGER.info('%s: predicting for the section %s', final.name, name)
        of_fold = functools.partial(each.of_fold, final, predictor)
        given[name].append(timed(name, of_fold))
  whole = Tested(folds, inputs, rows_of, [each[_ALL] for each in tested], alone)
  for name, each in needs.items():
    if each.of_all is not None:
      given[name] = timed(name, functools.partial(each.of_all, whole))
    if each.without is not None:
      given[name] = {
        scenario: np.concatenate([of_fold[_key(absent)] for of_fold in tested])
        for scenario, absent in each.without.items()
      }
  return pa.concat_tables(tables), given, seconds


def _write_models(folds: Sequence[Run], metrics: dict[str, Any], card: str) -> None:
  """Writes the bundle of each fold: the model that has just been evaluated."""
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
    Rows of the data set's index, ascending (n,), and per scenario their predictions: class
    probabilities (n, c), or numbers (n,).

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


def _masked(needs: Mapping[str, Needs]) -> dict[str, tuple[str, ...]]:
  """All subsets of the modalities that sections need, each once, and the full set."""
  every = [absent for each in needs.values() for absent in (each.without or {}).values()]
  return {_ALL: (), **{_key(absent): absent for absent in every}}


def _key(absent: Sequence[str]) -> str:
  return f'without {", ".join(absent)}' if absent else _ALL


def _trained_on(fold: Run) -> dict[str, int]:
  """Number of subjects that the runs of a fold were trained on."""
  count = lambda run: len(run.splits.subject_hashes('train'))
  return {'fold': fold.fold, 'first': count(fold), 'final': count(fold.final)}


def _stage_records(folds: Sequence[Run]) -> list[dict[str, Any]]:
  return [dataclasses.asdict(record) for record in all_records(folds) if not record.skipped]


def _notes_on_start(fold: Run) -> list[str]:
  """Notes on the bundle that training started from, if any."""
  if fold.start is None:
    return []
  config = fold.config
  trained = {'all': 'all parameters', 'head': 'only its output layers'}[config.adapt]
  notes = [f'Adapted from the trained model {config.start_from_version}: {trained}.']
  keys = fold.start.lineage.seen(fold.start.key_fingerprint).keys()
  if keys != {fingerprint(fold.dataset.subject_key)}:
    notes.append(
      'It is unknown whether that model was trained on test subjects of this run, because '
      'its data has another key of subject hashes.'
    )
  return notes


def _notes(dataset: Dataset, folds: Sequence[Run], table: pa.Table) -> list[str]:
  """What a reader of the report must know first."""
  notes = []
  for record in all_records(folds):
    run = workdir.run_name(record.fold, record.refit).capitalize()
    if record.skipped and not record.refit:  # the first run has the same note
      notes.append(
        f'{run}: the stage {record.stage} was skipped because its modality is missing.'
      )
    notes.extend(f'{run}, {record.stage}: {note}' for note in record.notes)
  notes.extend(_notes_on_start(folds[0]))
  if dataset.schema.condition:
    notes.append(f'All risks are conditional: {dataset.schema.condition}.')
  if dataset.schema.source == 'simulated':
    notes.append('Simulated patients: these metrics say nothing about real ones.')
  tested = table['split'].to_numpy(zero_copy_only=False) == 'test'
  subjects = len(np.unique(table['subject_id'].to_numpy()[tested]))
  if subjects < 100:
    notes.append(
      f'Only {subjects} test subjects: intervals are wide, some metrics undefined.'
    )
  return notes
