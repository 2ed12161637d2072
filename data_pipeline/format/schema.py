"""The sample schema: what one prepared data set contains, in physical units.

A `Schema` is written to `dataset.json` beside the shards and is all that the
model and the input pipeline need to know about the source: item dictionaries,
category lists, ECG term list, static columns. It holds nothing fitted.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_pipeline.format import atomic, modalities
from data_pipeline.format.items import DataError, Item
from data_pipeline.format.modalities import Modality
from data_pipeline.format.modalities.base import table_of

SCHEMA_VERSION = 4
NUM_FOLDS = 5

_NAME = re.compile('[a-z][a-z0-9_]*')
# What a batch and a record hold beside modalities.
_TAKEN = (
  'subject_id', 'sample_id', 'prediction_time', 'label', 'weight', 'fold', 'validates',
  'row', 'multimodal', 'decoder',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Target:
  """What is predicted.

  Attributes:
    kind: 'binary' and 'multiclass': the label is the index of one class. 'multilabel': the
      label is a vector, 1 where that one is true, 0 where it is not, null where it is not
      known. 'regression': the label is a number.
    classes: names of the classes in the order of the index (two of a binary target, the
      second is the event), or of the labels; empty for a regression.
    unit: of a regression, for example 'days'.
    low: least value of a regression's label; None: no limit.
    high: greatest, likewise.
    description: what is predicted, as in 'death in hospital'.
    horizon: until when, as in 'within 30 days of discharge'.
  """

  kind: Literal['binary', 'multiclass', 'multilabel', 'regression']
  classes: tuple[str, ...] = ()
  unit: str = ''
  low: float | None = None
  high: float | None = None
  description: str = ''
  horizon: str = ''

  def __post_init__(self):
    least = {'binary': 2, 'multiclass': 2, 'multilabel': 1, 'regression': 0}[self.kind]
    most = {'binary': 2, 'regression': 0}.get(self.kind, len(self.classes))
    if not least <= len(self.classes) <= most:
      raise DataError(f'a {self.kind} target has not {len(self.classes)} class names')
    if len(set(self.classes)) < len(self.classes):
      raise DataError(f'a {self.kind} target has a class name twice: {self.classes}')

  @property
  def outputs(self) -> int:
    """Number of model outputs, one per class or label, or 1."""
    return max(1, len(self.classes))

  @property
  def label_length(self) -> int:
    """Entries of a label: one per label of a multilabel target, else 1."""
    return len(self.classes) if self.kind == 'multilabel' else 1

  @property
  def numeric(self) -> bool:
    """Whether the label is a number; else predictions are probabilities of classes."""
    return self.kind == 'regression'

  def known(self, label: np.ndarray) -> np.ndarray:
    """Which labels are known at least in part: bool (n,) of labels (n,) or (n, l)."""
    known = np.isfinite(label)
    return np.any(known, axis=tuple(range(1, known.ndim)))

  def accepts(self, label: np.ndarray) -> np.ndarray:
    """Which labels are possible or NaN (unknown): bool, shaped like `label`."""
    if self.numeric:
      low = -np.inf if self.low is None else self.low
      high = np.inf if self.high is None else self.high
      return np.isnan(label) | (np.isfinite(label) & (label >= low) & (label <= high))
    count = 2 if self.kind == 'multilabel' else len(self.classes)
    return np.isnan(label) | np.isin(label, np.arange(count))


@dataclasses.dataclass(frozen=True)
class Schema:
  """Everything that all samples of a data set share.

  Attributes:
    task: its name, for example 'mortality'.
    source: name of the source, for example 'mimic_iv'.
    target: what the label means.
    modalities: name -> the modality, in the order in which models read them.
    attributes: names of the subgroup attributes; never model inputs.
    observation_hours: length of the observation window before the prediction time; None if
      it varies: the whole history, or an admission.
    condition: a fact that holds for every sample but is unknown at its prediction time, so
      that a risk is conditional on it; the end of a sentence, '' if there is none.
  """

  task: str
  source: str
  target: Target
  modalities: Mapping[str, Modality]
  attributes: tuple[str, ...]
  observation_hours: float | None
  condition: str = ''

  def __post_init__(self):
    """Raises DataError for an invalid modality name, and for two ECG modalities."""
    for name in self.modalities:
      if not _NAME.fullmatch(name) or name in _TAKEN:
        raise DataError(
          f'modality {name!r}: a name may have lower-case letters, digits and _; it must '
          f'begin with a letter and be none of {", ".join(_TAKEN)}.'
        )
    tables = [table_of(name, each).name for name, each in self.modalities.items()]
    for table in tables:
      if tables.count(table) > 1 or table == 'samples':
        raise DataError(f'two modalities are staged as {table}.parquet: only one can be.')

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the modalities, in model order."""
    return tuple(self.modalities)

  def variables(self, modality: str) -> tuple[Item, ...]:
    """The variables of a modality."""
    return self.modalities[modality].variables

  def only(self, modalities: Sequence[str]) -> Schema:
    """The schema restricted to these modalities, in model order."""
    kept = {name: each for name, each in self.modalities.items() if name in modalities}
    return dataclasses.replace(self, modalities=kept)

  def to_json(self) -> dict[str, Any]:
    """The schema as JSON values; modalities are a list, because their order matters."""
    fields = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
      if field.name not in ('modalities', 'target')
    }
    as_json: Any = dataclasses.asdict  # of modalities, whose classes are dataclasses
    return {
      'schema_version': SCHEMA_VERSION,
      **fields,
      'target': dataclasses.asdict(self.target),
      'modalities': [
        {'name': name, 'kind': each.kind, **as_json(each)}
        for name, each in self.modalities.items()
      ],
    }

  @classmethod
  def from_json(
    cls,
    fields: Mapping[str, Any],
    *,
    where: Path | str,
    remedy: str = 'Prepare the shards again with `python -m data_pipeline.prepare`.',
  ) -> Schema:
    """Inverse of `to_json`.

    Args:
      fields: from `to_json`.
      where: the file, for the message.
      remedy: advice for another schema version.

    Raises:
      DataError: this code does not read the schema version.
    """
    fields = dict(fields)
    version = fields.pop('schema_version', None)
    if version != SCHEMA_VERSION:
      raise DataError(
        f'{where}: schema version {version}; this code reads {SCHEMA_VERSION}. {remedy}'
      )
    return cls(
      task=fields['task'],
      source=fields['source'],
      target=Target(**{**fields['target'], 'classes': tuple(fields['target']['classes'])}),
      modalities={
        each['name']: modalities.from_json(each, where) for each in fields['modalities']
      },
      attributes=tuple(fields['attributes']),
      observation_hours=fields['observation_hours'],
      condition=fields['condition'],
    )


def write_json(path: Path, value: Any) -> None:
  """Writes `value` as indented JSON, atomically; the last of several writers wins."""
  atomic.write_text(path, json.dumps(value, indent=1, sort_keys=True) + '\n')
