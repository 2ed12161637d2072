"""Evaluation: restores the best checkpoint of every fold, predicts, reports.

Our model comes from checkpoints alone, and the optimizer state is not read. What it is
compared with (`baselines`) is fitted here, on training subjects.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import special
from tqdm import tqdm

from data_pipeline import planning
from data_pipeline.dataset import Dataset, Split
from data_pipeline.schema import DataError
from medm2t_jax import baselines, distributed, parallel, reporting, workdir
from medm2t_jax.fold import Batch, Fold
from medm2t_jax.models import medm2t

_LOGGER = logging.getLogger(__name__)

STAGE = 'multimodal'
_ALL = 'all modalities'
SPLITS: tuple[Split, ...] = ('validation', 'test')


def evaluate(folds: Sequence[Fold]) -> dict[str, Any]:
  """Writes `eval/` of the workdir: predictions, metrics and the report.

  Args:
    folds: of one experiment, evaluated and pooled.

  Returns:
    The content of metrics.json.

  Raises:
    DataError: a fold's multimodal stage is not complete, or was fitted on subjects
      that it must not have seen; an unknown baseline.
  """
  config, dataset = folds[0].config, folds[0].dataset
  baselines.require_known(config)
  tables = []
  tests: dict[str, list[np.ndarray]] = {}
  scenarios = modality_scenarios(dataset.schema.modalities)
  for fold in folds:
    variables, _ = fold.restore_best(STAGE)
    _LOGGER.info('fold %d: restored the best checkpoint of %s', fold.index, STAGE)
    for split in SPLITS:
      given = scenarios if split == 'test' else {}
      rows, predictions = predict(fold, variables, split, {_ALL: (), **given})
      tables.append(_table(fold, split, rows, predictions[_ALL]))
      for name in given:
        tests.setdefault(name, []).append(predictions[name])
  compared, left_out = baselines.predict(folds)
  table = pa.concat_tables(tables)
  context = reporting.Context(
    schema=dataset.schema,
    config=json.loads(config.to_json_best_effort()),
    cohort=json.loads((dataset.directory / 'cohort.json').read_text()),
    environment=workdir.environment(),
    stages=_stage_records(folds),
    scenarios={name: np.concatenate(parts) for name, parts in tests.items()},
    baselines=compared,
    baselines_left_out=left_out,
    dataset_version=dataset.version,
    fold_hashes=dataset.metadata['folds'],
    notes=_notes(dataset, folds, table),
  )
  return distributed.from_first(
    lambda: reporting.write_report(
      folds[0].workdir / 'eval', table, context, resamples=config.evaluation.bootstrap
    )
  )


def predict(
  fold: Fold,
  variables: Mapping[str, Any],
  split: Split,
  scenarios: Mapping[str, tuple[str, ...]],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """Predicts every sample of a split, once per scenario.

  Args:
    fold: of the checkpoint.
    variables: of the multimodal stage.
    split: 'validation' or 'test'.
    scenarios: name -> modalities to treat as absent.

  Returns:
    Rows of the data set's index, ascending (n,), and per scenario their predictions:
    class probabilities (n, c), or days (n,).

  Raises:
    DataError: the split has no sample.
  """
  modalities = fold.dataset.schema.modalities
  step = parallel.predict_step(fold.model, STAGE)
  plan = fold.plan(split, modalities, fold.config.evaluation.batch_size)
  if not len(plan):
    raise DataError(f'fold {fold.index}: the {split} split has no sample')
  return predict_plan(fold, step, variables, plan, modalities, scenarios, name=split)


def predict_plan(
  fold: Fold,
  step: Callable[[Mapping[str, Any], Batch], Any],
  variables: Mapping[str, Any],
  plan: planning.Plan,
  modalities: tuple[str, ...],
  scenarios: Mapping[str, tuple[str, ...]],
  *,
  name: str,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """`predict` for the rows of a plan.

  Args:
    fold: of the checkpoint.
    step: of `parallel.predict_step`.
    variables: of the step's stage.
    plan: steps of `modalities`.
    modalities: those that the step's stage reads.
    scenarios: name -> modalities to treat as absent.
    name: of what is predicted, for the progress bar.
  """
  rows: list[np.ndarray] = []
  outputs: dict[str, list[np.ndarray]] = {name: [] for name in scenarios}
  progress = tqdm(
    fold.read(plan, modalities),
    desc=f'fold {fold.index} {name}',
    total=len(plan),
    unit='step',
    leave=False,
    disable=not distributed.is_first(),
  )
  for batch in progress:
    rows.append(batch['row'])
    for scenario, drop in scenarios.items():
      given = dict(batch)
      for modality in drop:
        given[modality] = medm2t.without(modality, batch[modality])
      outputs[scenario].append(np.asarray(step(variables, given)))
  row = distributed.gather(np.concatenate(rows, axis=1)).ravel()
  order = np.argsort(row, kind='stable')
  order = order[np.count_nonzero(row < 0) :]  # padding comes first
  predictions = {}
  for scenario, parts in outputs.items():
    logits = distributed.gather(np.concatenate(parts, axis=1))
    logits = logits.reshape(len(row), -1)[order].astype(np.float64)
    if fold.dataset.schema.target.kind == 'classes':
      predictions[scenario] = special.softmax(logits, axis=1)
    else:
      predictions[scenario] = logits[:, 0]
  return row[order], predictions


def modality_scenarios(modalities: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
  """Name -> modalities to drop: each modality alone, and each left out."""
  if len(modalities) < 2:
    return {}
  alone = {
    f'only {name}': tuple(other for other in modalities if other != name)
    for name in modalities
  }
  left_out = {f'without {name}': (name,) for name in modalities}
  return alone | (left_out if len(modalities) > 2 else {})


def _table(fold: Fold, split: str, rows: np.ndarray, predictions: np.ndarray) -> pa.Table:
  """Predictions with what the report groups them by."""
  dataset = fold.dataset
  chosen = {name: column[rows] for name, column in dataset.index.items()}
  schema = dataset.schema
  columns: dict[str, Any] = {
    'sample_id': chosen['sample_id'],
    'subject_id': chosen['subject_id'],
    'fold': pa.array(np.full(len(rows), fold.index, np.int32)),
    'split': pa.array([split] * len(rows)),
    'label': chosen['label'],
  }
  if schema.target.kind == 'classes':
    for index in range(schema.target.outputs):
      columns[f'p{index}'] = pa.array(predictions[:, index])
  else:
    columns['prediction'] = pa.array(predictions)
  for name in schema.attributes:
    columns[name] = chosen[name]
  for name in schema.modalities:
    if name != 'static':
      columns[f'present_{name}'] = chosen[f'n_{name}'] > 0
  return pa.table(columns)


def _stage_records(folds: Sequence[Fold]) -> list[dict[str, Any]]:
  return [dataclasses.asdict(record) for record in _records(folds) if not record.skipped]


def _records(folds: Sequence[Fold]) -> list[workdir.StageRecord]:
  records = [
    fold.record(stage) for fold in folds for stage in medm2t.stages(fold.model_config)
  ]
  return [record for record in records if record is not None]


def _notes(dataset: Dataset, folds: Sequence[Fold], table: pa.Table) -> list[str]:
  """What a reader of the report must know first."""
  notes = []
  for record in _records(folds):
    if record.skipped:
      notes.append(
        f'Fold {record.fold}: the stage {record.stage} was skipped, '
        'its modality is missing.'
      )
    notes.extend(f'Fold {record.fold}, {record.stage}: {note}' for note in record.notes)
  if dataset.schema.source == 'simulated':
    notes.append('Simulated patients: these figures say nothing about real ones.')
  tested = table['split'].to_numpy(zero_copy_only=False) == 'test'
  subjects = len(np.unique(table['subject_id'].to_numpy()[tested]))
  if subjects < 100:
    notes.append(
      f'Only {subjects} test subjects: intervals are wide, some figures undefined.'
    )
  return notes
