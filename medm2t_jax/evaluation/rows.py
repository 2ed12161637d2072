"""The predictions table (docs/evaluation.md, "What is written"), checked, as arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipeline.format.dataset import Dataset, Split
from data_pipeline.format.schema import DataError, Schema, Target
from medm2t_jax.training.prediction import prediction_columns

_REMEDY = 'Evaluate again with --mode=eval.'


@dataclasses.dataclass(frozen=True)
class Rows:
  """Predictions of n samples.

  Attributes:
    target: what the label means.
    sample: int64 (n).
    subject: int64 (n).
    fold: int64 (n).
    label: float64 (n): class index, or days.
    prediction: float64 (n c): probabilities; or (n,): days.
    attributes: name -> (n) object, None where unknown.
    present: modality -> bool (n).
  """

  target: Target
  sample: np.ndarray
  subject: np.ndarray
  fold: np.ndarray
  label: np.ndarray
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
      prediction=self.prediction[keep],
      attributes={name: values[keep] for name, values in self.attributes.items()},
      present={name: values[keep] for name, values in self.present.items()},
    )

  def with_prediction(self, prediction: np.ndarray, name: str) -> Rows:
    """The same rows, predicted otherwise.

    Raises:
      DataError: `prediction`, called `name`, has another shape or bad values.
    """
    prediction = np.asarray(prediction, np.float64)
    if prediction.shape != self.prediction.shape:
      raise DataError(
        f'{name}: predictions of shape {prediction.shape}, the test rows need '
        f'{self.prediction.shape}. {_REMEDY}'
      )
    _check_prediction(prediction, name)
    return dataclasses.replace(self, prediction=prediction)

  def positive(self, index: int) -> np.ndarray:
    """bool (n): the label is class `index`."""
    return self.label == index

  @property
  def scored_classes(self) -> tuple[int, ...]:
    """Classes with one-vs-rest figures: all of them, or the second of two."""
    count = len(self.target.classes)
    return (1,) if count == 2 else tuple(range(count))

  def counts(self) -> dict[str, int | None]:
    """{'n', 'subjects', 'events'}, with `events()`."""
    return {
      'n': len(self),
      'subjects': len(np.unique(self.subject)),
      'events': self.events(),
    }

  def events(self) -> int | None:
    """Samples of the second of two classes, or of the rarest of more; None for days."""
    if self.target.numeric:
      return None
    return min(int(self.positive(index).sum()) for index in self.scored_classes)


def predictions_table(
  dataset: Dataset, fold: int, split: Split, rows: np.ndarray, predictions: np.ndarray
) -> pa.Table:
  """Predictions with what the report groups them by: the table of `write_report`.

  Args:
    dataset: that was predicted.
    fold: of the model.
    split: of the rows.
    rows: of the data set's index (n,).
    predictions: class probabilities (n, c), or days (n,).
  """
  chosen = {name: column[rows] for name, column in dataset.index.items()}
  schema = dataset.schema
  columns: dict[str, Any] = {
    'sample_id': chosen['sample_id'],
    'subject_id': chosen['subject_id'],
    'fold': pa.array(np.full(len(rows), fold, np.int32)),
    'split': pa.array([split] * len(rows)),
    'label': chosen['label'],
    **prediction_columns(predictions),
  }
  for name in schema.attributes:
    columns[name] = chosen[name]
  for name in schema.modalities:
    if name != 'static':
      columns[f'present_{name}'] = dataset.lengths(name)[rows] > 0
  return pa.table(columns)


def read_rows(table: pa.Table, schema: Schema) -> tuple[Rows, Rows]:
  """Test rows and validation rows of a predictions table.

  Raises:
    DataError: a column is missing, a value is impossible, a test sample occurs twice,
      or a subject is in both splits of one fold.
  """
  outputs = schema.target.outputs
  days = schema.target.numeric
  predicted = ['prediction'] if days else [f'p{index}' for index in range(outputs)]
  needed = ['sample_id', 'subject_id', 'fold', 'split', 'label', *predicted]
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
  label = column('label', np.float64)
  prediction = np.stack([column(name, np.float64) for name in predicted], axis=-1)
  if schema.target.numeric:
    prediction = prediction[:, 0]
  elif not np.isin(label, np.arange(schema.target.outputs)).all():
    raise DataError(
      f'predictions: a label is not one of the {schema.target.outputs} classes. {_REMEDY}'
    )
  if not np.isfinite(label).all():
    raise DataError(f'predictions: a label is not a finite number. {_REMEDY}')
  _check_prediction(prediction, 'predictions')
  listed = lambda name: np.array([*table[name].to_pylist(), None], object)[:-1]
  return Rows(
    target=schema.target,
    sample=column('sample_id', np.int64),
    subject=column('subject_id', np.int64),
    fold=column('fold', np.int64),
    label=label,
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


def _check_prediction(prediction: np.ndarray, name: str) -> None:
  if not np.isfinite(prediction).all():
    raise DataError(f'{name}: a prediction is not a finite number. {_REMEDY}')
  if prediction.ndim == 2 and len(prediction):
    total = prediction.sum(axis=1)
    if prediction.min() < 0 or np.abs(total - 1).max() > 1e-3:
      raise DataError(f'{name}: probabilities do not sum to 1. {_REMEDY}')
