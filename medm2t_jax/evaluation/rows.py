"""The predictions table (docs/evaluation.md, "What is written") as checked arrays."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.format.dataset import Dataset, Split
from data_pipeline.format.schema import DataError, Schema, Target
from medm2t_jax import targets
from medm2t_jax.training.prediction import prediction_columns

_REMEDY = 'Evaluate again with --mode=eval.'


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
  """A binary outcome: one class against the rest, or one label.

  Attributes:
    name: of the class or label.
    index: its column of the predictions.
    row: indices of the m samples in which it is known, ascending (m).
    probability: float64 (m).
    positive: bool (m).
  """

  name: str
  index: int
  row: np.ndarray
  probability: np.ndarray
  positive: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
  """Predictions of n samples.

  Attributes:
    target: what the label means.
    sample: int64 (n).
    subject: int64 (n).
    fold: int64 (n).
    label: float64 (n), or (n l) for a multilabel target, NaN if unknown.
    weight: float64 (n), above 0; 1 if samples have no weights.
    prediction: float64: probabilities (n c) or numbers (n,).
    attributes: name -> (n) object, None if unknown.
    present: modality -> bool (n).
  """

  target: Target
  sample: np.ndarray
  subject: np.ndarray
  fold: np.ndarray
  label: np.ndarray
  weight: np.ndarray
  prediction: np.ndarray
  attributes: Mapping[str, np.ndarray]
  present: Mapping[str, np.ndarray]

  def __len__(self) -> int:
    return len(self.label)

  def take(self, keep: np.ndarray) -> Rows:
    """The rows where `keep`, bool (n), is true."""
    return dataclasses.replace(
      self,
      sample=self.sample[keep],
      subject=self.subject[keep],
      fold=self.fold[keep],
      label=self.label[keep],
      weight=self.weight[keep],
      prediction=self.prediction[keep],
      attributes={name: values[keep] for name, values in self.attributes.items()},
      present={name: values[keep] for name, values in self.present.items()},
    )

  def with_prediction(self, prediction: np.ndarray, name: str) -> Rows:
    """The same rows with another prediction.

    Raises:
      DataError: `prediction`, called `name`, has another shape or bad values.
    """
    prediction = np.asarray(prediction, np.float64)
    if prediction.shape != self.prediction.shape:
      raise DataError(
        f'{name}: predictions have shape {prediction.shape}, but the test rows need '
        f'{self.prediction.shape}. {_REMEDY}'
      )
    _check_prediction(prediction, self.target, name)
    return dataclasses.replace(self, prediction=prediction)

  @functools.cached_property
  def outcomes(self) -> tuple[Outcome, ...]:
    """The outcomes with metrics: every class (of two only the second), or every label."""
    kind = targets.of(self.target)
    true = kind.is_true(self.label)
    found = []
    for index in kind.scored:
      row = np.flatnonzero(~np.isnan(true[:, index]))
      positive = true[row, index] == 1
      name, probability = self.target.classes[index], self.prediction[row, index]
      found.append(Outcome(name, index, row, probability, positive))
    return tuple(found)

  def prevalence(self, outcome: Outcome) -> float:
    """Weighted share of an outcome among the samples in which it is known."""
    return float(np.average(outcome.positive, weights=self.weight[outcome.row]))

  def of_outcome(self, outcome: Outcome) -> dict[str, int | None]:
    """`counts` of the samples in which an outcome is known."""
    return {
      'n': len(outcome.row),
      'subjects': len(np.unique(self.subject[outcome.row])),
      'events': int(outcome.positive.sum()),
    }

  def counts(self) -> dict[str, int | None]:
    """{'n', 'subjects', 'events'}, with `events()`."""
    return {
      'n': len(self),
      'subjects': len(np.unique(self.subject)),
      'events': self.events(),
    }

  def events(self) -> int | None:
    """Number of samples of the second of two classes, else of the rarest class or label.

    None for numbers.
    """
    return min((int(each.positive.sum()) for each in self.outcomes), default=None)


def predictions_table(
  dataset: Dataset, fold: int, split: Split, rows: np.ndarray, predictions: np.ndarray
) -> pa.Table:
  """The table of `write_report`: predictions with the attributes of subgroups.

  Args:
    dataset: that was predicted.
    fold: of the model.
    split: of the rows.
    rows: of the data set's index (n,).
    predictions: probabilities (n, c), or numbers (n,).
  """
  chosen = {name: column[rows] for name, column in dataset.index.items()}
  schema = dataset.schema
  columns: dict[str, Any] = {
    'sample_id': chosen['sample_id'],
    'subject_id': chosen['subject_id'],
    'fold': pa.array(np.full(len(rows), fold, np.int32)),
    'split': pa.array([split] * len(rows)),
    'label': _label_column(chosen['label']),
    'weight': chosen['weight'],
    **prediction_columns(predictions),
  }
  for name in schema.attributes:
    columns[name] = chosen[name]
  for name in dataset.counted:
    columns[f'present_{name}'] = dataset.lengths(name)[rows] > 0
  return pa.table(columns)


def read_rows(table: pa.Table, schema: Schema) -> tuple[Rows, Rows]:
  """Test rows and validation rows of a predictions table.

  Raises:
    DataError: a column is missing, a value is impossible, a test sample occurs twice,
      or a subject is in both splits of one fold.
  """
  outputs = schema.target.outputs
  predicted = [f'p{index}' for index in range(outputs)]
  if schema.target.numeric:
    predicted = ['prediction']
  needed = ['sample_id', 'subject_id', 'fold', 'split', 'label', 'weight', *predicted]
  for name in needed:
    if name not in table.column_names:
      raise DataError(f'predictions: column {name} is missing. {_REMEDY}')
    if table[name].null_count:
      raise DataError(f'predictions: column {name} has empty cells. {_REMEDY}')
  unknown = set(table['split'].to_pylist()) - {'test', 'validation'}
  if unknown:
    raise DataError(
      f'predictions: split is {sorted(unknown)[0]!r}, not test or validation. {_REMEDY}'
    )
  of = lambda name: pa.array([each == name for each in table['split'].to_pylist()])
  test = _rows(table.filter(of('test')), schema, predicted)
  validation = _rows(table.filter(of('validation')), schema, predicted)
  if not len(test):
    raise DataError(f'predictions: no row of the test split. {_REMEDY}')
  if len(np.unique(test.sample)) != len(test):
    raise DataError(f'predictions: a sample is tested more than once. {_REMEDY}')
  for fold in np.unique(test.fold):
    shared = np.intersect1d(
      test.subject[test.fold == fold], validation.subject[validation.fold == fold]
    )
    if len(shared):
      raise DataError(
        f'predictions: {len(shared)} subjects of fold {fold} are in both test and '
        'validation. Prepare the shards again with `python -m data_pipeline.prepare`.'
      )
  return test, validation


def _rows(table: pa.Table, schema: Schema, predicted: list[str]) -> Rows:
  column = lambda name, dtype: table[name].to_numpy().astype(dtype)
  prediction = np.stack([column(name, np.float64) for name in predicted], axis=-1)
  if schema.target.numeric:
    prediction = prediction[:, 0]
  label = _labels(table['label'], schema.target)
  weight = column('weight', np.float64)
  if not ((weight > 0) & np.isfinite(weight)).all():
    raise DataError(f'predictions: a weight is not a number above 0. {_REMEDY}')
  _check_prediction(prediction, schema.target, 'predictions')
  listed = lambda name: np.array([*table[name].to_pylist(), None], object)[:-1]
  return Rows(
    target=schema.target,
    sample=column('sample_id', np.int64),
    subject=column('subject_id', np.int64),
    fold=column('fold', np.int64),
    label=label,
    weight=weight,
    prediction=prediction,
    attributes={
      name: listed(name) for name in schema.attributes if name in table.column_names
    },
    present={
      name: column(f'present_{name}', bool)
      for name in schema.modalities
      if f'present_{name}' in table.column_names
    },
  )


def _label_column(label: np.ndarray) -> pa.Array:
  """Labels (n), or a list of several, null if unknown."""
  if label.ndim == 1:
    return pa.array(label)
  flat = pa.array(label.ravel(), from_pandas=True)
  return pa.FixedSizeListArray.from_arrays(flat, label.shape[1])


def _labels(column: pa.ChunkedArray, target: Target) -> np.ndarray:
  """Labels (n) or (n l), float64.

  Raises:
    DataError: a label is invalid for the target, or completely unknown.
  """
  if target.kind == 'multilabel':
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    label = flat.astype(np.float64).reshape(len(column), -1)
  else:
    label = column.to_numpy().astype(np.float64)
  if not target.known(label).all():
    raise DataError(f'predictions: a label is not a finite number. {_REMEDY}')
  if not target.accepts(label).all():
    raise DataError(
      f'predictions: a label is not one that a {target.kind} target has. {_REMEDY}'
    )
  return label


def _check_prediction(prediction: np.ndarray, target: Target, name: str) -> None:
  if not np.isfinite(prediction).all():
    raise DataError(f'{name}: a prediction is not a finite number. {_REMEDY}')
  if target.numeric or not len(prediction):
    return
  if prediction.min() < 0 or prediction.max() > 1 + 1e-3:
    raise DataError(f'{name}: a probability is not between 0 and 1. {_REMEDY}')
  if targets.of(target).link == 'softmax' and np.abs(prediction.sum(1) - 1).max() > 1e-3:
    raise DataError(f'{name}: probabilities do not sum to 1. {_REMEDY}')
