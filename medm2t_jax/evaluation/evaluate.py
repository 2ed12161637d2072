"""Evaluation: restores the best checkpoint of every fold, predicts, reports.

Our model is restored from checkpoints, without the optimizer state. Validation subjects are
predicted by the first run of a fold, test subjects by its final run. The models it is
compared with (`baselines`) are fitted here, on the same subjects.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

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
from medm2t_jax.inference.blended import AloneAndBlended
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
PREDICTIONS = 'predictions'  # among the seconds of the sections: what they share
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
  seconds = dict.fromkeys((PREDICTIONS, *needs), 0.0)

  @contextlib.contextmanager
  def timed(name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[name] += time.monotonic() - began

  inputs = [Inputs(fold) for fold in folds]
  given: dict[str, Any] = {name: [] for name, each in needs.items() if each.of_fold}
  tables: list[pa.Table] = []
  tests: list[_Test] = []
  for fold, own in zip(folds, inputs, strict=True):
    with timed(PREDICTIONS):
      tables.append(_validation(fold, own))
      test = _test(fold, needs)
    tables.append(test.table)
    tests.append(test)
    for name, each in needs.items():
      if each.of_fold is not None:
        _LOGGER.info('%s: predicting for the section %s', fold.final.name, name)
        with timed(name):
          given[name].append(each.of_fold(fold.final, test.predictor))
  of_all = lambda name: [each.predictions[name] for each in tests]
  alone = of_all(blend.ALONE) if blend.ALONE in tests[0].predictions else []
  whole = Tested(folds, inputs, [each.rows for each in tests], of_all(_ALL), alone)
  for name, each in needs.items():
    if each.of_all is not None:
      with timed(name):
        given[name] = each.of_all(whole)
    if each.without is not None:
      given[name] = {
        scenario: np.concatenate(of_all(_key(absent)))
        for scenario, absent in each.without.items()
      }
  return pa.concat_tables(tables), given, seconds


def _validation(fold: Run, inputs: Inputs) -> pa.Table:
  """What the first run of a fold predicts for its validation samples; fits its blend."""
  variables, _ = restore_best(fold, STAGE)
  _LOGGER.info('%s: predicting from the best checkpoint of %s', fold.name, STAGE)
  predictor = steps.predictor(fold.model, STAGE, variables)
  rows, predictions = predict(fold, predictor, 'validation', {_ALL: ()})
  validated = predictions[_ALL]
  if fold.config.blend:
    validated = blend.fit(fold, inputs, validated)
  return predictions_table(fold.dataset, fold.fold, 'validation', rows, validated)


class _Test(NamedTuple):
  """The test samples of a fold: their index rows (n), predictions by name, all as table."""

  table: pa.Table
  rows: np.ndarray
  predictions: dict[str, np.ndarray]
  predictor: Predictor


def _test(fold: Run, needs: Mapping[str, Needs]) -> _Test:
  """Predicts the test samples as all sections need them: one pass over the records."""
  final = fold.final
  variables, _ = restore_best(final, STAGE)
  ours = steps.predictor(final.model, STAGE, variables)
  _LOGGER.info('%s: predicting from the best checkpoint of %s', final.name, STAGE)
  both = None
  if any(each.alone for each in needs.values()):
    both = blend.with_alone(fold, ours)
  predictor = blend.predictor(fold, ours) if both is None else lambda batch: both(batch)[1]
  rows, predictions = predict(final, predictor, 'test', _masked(needs), both)
  table = predictions_table(fold.dataset, final.fold, 'test', rows, predictions[_ALL])
  return _Test(table, rows, predictions, predictor)


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
  both: AloneAndBlended | None = None,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """Predicts every sample of a split, once per scenario.

  Args:
    fold: of the checkpoint.
    predictor: of the multimodal stage.
    split: 'validation' or 'test'.
    scenarios: name -> modalities to treat as absent; of none in the first.
    both: where given, the first scenario is predicted by it, and `blend.ALONE` is what
      the network says alone.

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
  names, dropped = list(scenarios), list(scenarios.values())
  if both is not None:
    names, dropped = [blend.ALONE, *names], dropped[1:]

  def outputs_of(batch: Batch) -> Iterator[Any]:
    if both is not None:
      yield from both(batch)
    for drop in dropped:
      yield predictor({**batch, **{name: of(name).without(batch[name]) for name in drop}})

  return prediction.predict_each(fold, STAGE, outputs_of, plan, split, names)


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
