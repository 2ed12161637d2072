"""Predicts any prepared data set with a trained model, and reports its coverage."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
from tqdm import tqdm

from data_pipeline.format.dataset import Dataset
from data_pipeline.format.modalities.base import found_in
from data_pipeline.format.schema import DataError
from data_pipeline.format.subjects import fingerprint, hash_subject
from data_pipeline.reading.alignment import Alignment, seen_as
from medm2t_jax.inference.trained_model import TrainedModel
from medm2t_jax.models.trunk import columns
from medm2t_jax.runs.reader import Batch, Reader
from medm2t_jax.training.prediction import in_order

_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Predicted:
  """Predictions of a data set's samples.

  Attributes:
    rows: of the data set's index, ascending: int64 (n,).
    predictions: class probabilities (n c) or numbers (n,), float64.
    coverage: JSON-able: see `predict`.
  """

  rows: np.ndarray
  predictions: np.ndarray
  coverage: dict[str, Any]


def predict(
  model: TrainedModel,
  dataset: Dataset,
  *,
  allow_seen: bool = False,
) -> Predicted:
  """Predicts every sample of a data set whose subject was not in the model's training.

  `coverage` has: 'coverage', the share of the variables in the training samples that these
  samples have, at most 1; 'samples'; 'left_out', samples of training subjects; 'overlap',
  how the overlap of subjects was tested; 'variables', one entry per variable of the model;
  'ignored', variables unknown to the model, and 'absent', variables that the data set
  lacks, each with the reason; 'notes', sentences on other differences.

  Args:
    model: of the same task.
    dataset: of any source and version.
    allow_seen: whether to predict training subjects too.

  Raises:
    DataError: the task differs, no subject is left to predict, or the data have none of the
      model's modalities.
  """
  alignment = Alignment(model.schema, dataset.schema)
  dataset = seen_as(dataset, model.schema)
  for note in alignment.notes:
    _LOGGER.warning('%s', note)
  rows, overlap = _unseen(model, dataset, allow_seen)
  reader = Reader(dataset, model.batching)
  modalities = model.schema.names
  plan = reader.plan(rows, modalities, model.batch_size)
  found: dict[str, Any] = dict.fromkeys(modalities, 0)
  moments = _Moments(model)
  row: list[np.ndarray] = []
  outputs: dict[str, list[np.ndarray]] = {}
  batches = reader.read_here(plan, modalities)
  for batch in tqdm(batches, desc='predict', total=len(plan), unit='step', leave=False):
    row.append(batch['row'])
    for name, has in found_in(model.schema.modalities, batch):
      found[name] = found[name] + has.sum(axis=0)
    moments.add(batch)
    for number, predictor in enumerate(model.predictors):
      outputs.setdefault(str(number), []).append(np.asarray(predictor(batch)))
  predicted_rows, of_members = in_order(row, outputs, model.schema.target)
  coverage = _coverage(model, alignment, found, moments.drift(), len(rows))
  return Predicted(
    predicted_rows,
    np.mean(list(of_members.values()), axis=0),
    {**coverage, **overlap, 'samples': len(rows), 'left_out': len(dataset) - len(rows)},
  )


def require_coverage(predicted: Predicted, least: float, where: object) -> None:
  """Raises DataError if the coverage of the data at `where` is below `least`."""
  found = predicted.coverage['coverage']
  if found < least:
    raise DataError(
      f'{where}: coverage is {found:.2f}, below --min_coverage={least:g}: too many of the '
      'variables in the training samples are absent. coverage.json beside --out lists '
      'them, with reasons.'
    )


class _Moments:
  """Means of the columns that the ensemble trunk reads, compared with those in training."""

  def __init__(self, model: TrainedModel):
    self._kinds = model.model_config.columns
    self._codes: list[tuple[str, str] | None] = []
    for each in model.model_config.modalities:
      means = each.mean_columns()
      self._codes += [
        (each.name, means[name]) if name in means else None for name in each.column_names()
      ]
    fitted = model.members[0].variables['fitted']
    of = lambda key: [fitted.get(f'chunks_{name}', {}).get(key) for name, _ in self._kinds]
    self._fitted = None
    if all(one is not None for one in of('column_center')):  # a plain decoder has none
      self._fitted = [np.concatenate(of(f'column_{key}')) for key in ('center', 'scale')]
    self._sum = np.zeros(len(self._codes))
    self._count = np.zeros(len(self._codes))

  def add(self, batch: Batch) -> None:
    """Adds the valid rows of a batch."""
    table = np.asarray(columns.table(self._kinds, batch))[batch['row'].ravel() >= 0]
    self._sum += np.nansum(table, axis=0, dtype=np.float64)
    self._count += np.isfinite(table).sum(axis=0)

  def drift(self) -> dict[tuple[str, str], float]:
    """(modality, code) -> difference of the means in standard deviations, for numbers."""
    if self._fitted is None:
      return {}
    center, scale = self._fitted
    result = {}
    for place, code in enumerate(self._codes):
      if code is not None and self._count[place] and scale[place] > 0:
        mean = self._sum[place] / self._count[place]
        difference = float((mean - center[place]) / scale[place])
        result[code] = round(difference, 3)
    return result


def _unseen(
  model: TrainedModel, dataset: Dataset, allow_seen: bool
) -> tuple[np.ndarray, dict[str, str]]:
  """Rows of the index to predict, and a description of the overlap with the training."""
  every = np.arange(len(dataset))
  by_key = model.seen
  known = by_key.pop(fingerprint(dataset.subject_key), None)
  if known is None:
    text = 'cannot be tested: the data set has another key of subject hashes'
    _LOGGER.info('overlap with the training subjects %s', text)
    return every, {'overlap': text}
  rest = ''
  if by_key:  # subjects of models that this one started from
    rest = '; for other training data it cannot be tested (another key)'
  subject, owner = np.unique(dataset.index['subject_id'], return_inverse=True)
  seen = np.array([hash_subject(one, dataset.subject_key) in known for one in subject])
  count = int(seen.sum())
  if allow_seen or not count:
    return every, {'overlap': f'{count} of {len(subject)} subjects were trained on{rest}'}
  rows = every[~seen[owner]]
  if not len(rows):
    raise DataError(
      f'{dataset.directory}: the model was trained on all of its subjects. Give other '
      'data, or predict them anyway with --allow_seen.'
    )
  text = f'{count} of {len(subject)} subjects were trained on and are left out{rest}'
  _LOGGER.info('%s', text)
  return rows, {'overlap': text}


def _coverage(
  model: TrainedModel,
  alignment: Alignment,
  found: dict[str, Any],
  drift: dict[tuple[str, str], float],
  samples: int,
) -> dict[str, Any]:
  entries, had, have = [], 0.0, 0.0
  for name in model.schema.modalities:
    counts = np.broadcast_to(found[name], (len(model.found[name]),))
    known = model.schema.variables(name)
    for item, count, trained in zip(known, counts, model.found[name], strict=True):
      share = int(count) / samples
      had, have = had + trained, have + min(share, trained)
      entries.append(
        {
          'modality': name,
          'code': item.itemid,
          'name': item.name,
          'unit': item.unit,
          'samples': int(count),
          'share': round(share, 4),
          'training_share': round(trained, 4),
          'drift': drift.get((name, item.itemid)),
        }
      )
  return {
    'coverage': round(have / had, 4) if had else 0.0,
    'variables': entries,
    'absent': [dataclasses.asdict(each) for each in alignment.absent],
    'ignored': [dataclasses.asdict(each) for each in alignment.ignored],
    'notes': alignment.notes,
  }
