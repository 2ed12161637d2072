"""Check: the fitted state depends only on the training subjects of its run.

The state is fitted again while all other subjects, by the keyed hashes of dataset.json,
have absurd values. It must equal the checkpoint's state. In a refit, validation subjects
are training subjects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from data_pipeline.format.schema import Schema
from data_pipeline.format.subjects import hash_subject
from medm2t_jax.audit.check import Check
from medm2t_jax.modalities import fitting
from medm2t_jax.runs import checkpoint, fitted_state
from medm2t_jax.runs.reader import Batch
from medm2t_jax.runs.run import Run

_ABSURD = 1e9
# Means of float64 sums, whose last bits depend on how samples are split into batches and
# devices; everything else must be equal bit for bit.
_MEANS = ('encoding_mean', 'offset')
_TOLERANCE = 1e-6


def fit_again(run: Run) -> fitting.Statistics:
  """Fits a run's state again, with absurd values for all but its training subjects."""
  trains = run.splits.subject_hashes('train')
  key = run.dataset.subject_key
  subjects, owner = np.unique(run.dataset.index['subject_id'], return_inverse=True)
  training = np.array([hash_subject(subject, key) in trains for subject in subjects])
  held_out = ~training[owner]

  def poisoned(batch: Batch) -> Batch:
    rows = held_out[batch['row']] & (batch['row'] >= 0)
    return poison(batch, rows, run.dataset.schema)

  reader = dataclasses.replace(run.reader, change=poisoned)
  return fitted_state.fit(
    reader, run.splits, run.model_config, run.config.evaluation.batch_size
  )


def check(
  fold: Run,
  variables: Mapping[str, Any],
  lineage: checkpoint.Lineage,
  again: fitting.Statistics,
) -> list[Check]:
  """Compares the checkpoint's fitted state, and checks the subjects that it has seen.

  Args:
    fold: of the checkpoint.
    variables: of its multimodal stage.
    lineage: of the checkpoint.
    again: from `fit_again`.
  """
  return [_state(fold, variables['fitted'], again), _lineage(fold, lineage)]


def _state(fold: Run, saved: Mapping[str, Any], again: fitting.Statistics) -> Check:
  expected = fitting.into_collection(again, saved)
  if fold.start:
    expected = fold.start.fitted(expected)
  fitted_again = traverse_util.flatten_dict(expected)
  # Fitted after training, on validation subjects.
  fitted_again = {
    path: leaf for path, leaf in fitted_again.items() if path[-1] != 'part_weights'
  }
  ours = {
    path: np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(dict(saved)).items()
  }
  different, largest = [], 0.0
  for path, expected in dict[Any, Any](fitted_again).items():
    found = ours[path].astype(np.float64)
    difference = np.abs(found - expected.astype(np.float64))
    difference = float((difference / np.maximum(1.0, np.abs(found))).max(initial=0.0))
    largest = max(largest, difference)
    if difference > (_TOLERANCE if path[-1] in _MEANS else 0.0):
      different.append('/'.join(path))
  listed = f': {", ".join(different)}' if different else ''
  return Check(
    f'fitted state, {fold.name}',
    not different,
    largest,
    f'{len(different)} of {len(ours)} fitted arrays of the checkpoint differ from those '
    'fitted again with absurd values for all but the training subjects (measured: '
    f'the largest relative difference){listed}',
  )


def _lineage(fold: Run, lineage: checkpoint.Lineage) -> Check:
  index = fold.dataset.index['subject_id']
  held_out = np.concatenate([fold.splits.rows('validation'), fold.splits.rows('test')])
  tests = index[fold.splits.rows('test')]
  key = fold.dataset.subject_key
  hashes = lambda subjects: {hash_subject(subject, key) for subject in np.unique(subjects)}
  leaked = lineage.fitted_on & hashes(index[held_out])
  leaked |= lineage.selected_on & hashes(tests)
  return Check(
    f'lineage, {fold.name}',
    not leaked,
    len(leaked),
    f'{len(leaked)} held-out subjects are among the {len(lineage.fitted_on)} that the '
    'checkpoint and the stages before it were fitted on, or test subjects among the '
    f'{len(lineage.selected_on)} that its best step was chosen by',
  )


def poison(batch: Batch, rows: np.ndarray, schema: Schema) -> dict[str, Any]:
  """The batch with every value of some rows observed and absurd.

  Args:
    batch: of docs/design.md.
    rows: bool (d b).
    schema: of the batch.
  """
  changed: dict[str, Any] = dict(batch)
  label = batch['label']  # (d b), or (d b l) for a multilabel target
  changed['label'] = np.where(
    rows.reshape(rows.shape + (1,) * (label.ndim - 2)), np.float32(0), label
  )
  for name, modality in schema.modalities.items():
    arrays, where = batch[name], rows
    if modality.layout == 'packed':
      where = np.take_along_axis(rows, arrays['owner'], axis=1) & arrays['mask']
    if not where.any():
      continue
    absurd = {key: each.absurd for key, each in modality.arrays.items()}
    changed[name] = {
      key: np.where(
        where.reshape(where.shape + (1,) * (array.ndim - 2)),
        _absurd(array, absurd.get(key, 0)),
        array,
      )
      for key, array in arrays.items()
    }
  return changed


def _absurd(array: np.ndarray, otherwise: int) -> np.generic:
  """A value of the array's type that no record has and that is a safe index."""
  if array.dtype == bool:
    return np.True_
  return array.dtype.type(_ABSURD if array.dtype.kind == 'f' else otherwise)
