"""The sample schema: what one prepared data set contains, in physical units.

A `Schema` is written to `dataset.json` beside the shards and is all that the
model and the input pipeline need to know about the source: item dictionaries,
category lists, ECG term list, static columns. It holds nothing fitted.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

SCHEMA_VERSION = 4
NUM_FOLDS = 5

ECG_LEADS = ('I', 'II', 'III', 'aVR', 'aVL', 'aVF', 'V1', 'V2', 'V3', 'V4', 'V5', 'V6')
ECG_SAMPLING_RATE = 125  # Hz, after conditioning
ECG_SAMPLES = 1250  # 10 s
ECG_MEASUREMENTS = (
    'rr_interval', 'p_onset', 'p_end', 'qrs_onset', 'qrs_end', 't_end',
    'p_axis', 'qrs_axis', 't_axis',
)  # fmt: skip


class DataError(Exception):
  """Bad input. The message names the file, row or key, and the remedy."""


@dataclasses.dataclass(frozen=True)
class Item:
  """One variable of a modality.

  Attributes:
    itemid: the source's own code, for example '50813' (MIMIC-IV) or 'HR'.
    name: a readable label.
    unit: physical unit after conversion, '' where there is none.
    categories: the known categories; empty for a numeric item.
    low: physiologic lower limit; a value below it is missing. None: no limit.
    high: physiologic upper limit, likewise.
  """

  itemid: str
  name: str
  unit: str = ''
  categories: tuple[str, ...] = ()
  low: float | None = None
  high: float | None = None

  @property
  def kind(self) -> Literal['numeric', 'categorical']:
    return 'categorical' if self.categories else 'numeric'


@dataclasses.dataclass(frozen=True)
class Grid:
  """A regularly sampled modality: `steps` cells of `step_hours`, one column an item."""

  items: tuple[Item, ...]
  steps: int
  step_hours: float


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
    horizon: until when, as in '30 days after discharge'.
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
    """Number of model outputs: one per class or label, or 1."""
    return max(1, len(self.classes))

  @property
  def label_length(self) -> int:
    """Entries of a label: one per label of a multilabel target, else 1."""
    return len(self.classes) if self.kind == 'multilabel' else 1

  @property
  def numeric(self) -> bool:
    """Whether the label is a number; else predictions are probabilities of classes."""
    return self.kind == 'regression'

  def accepts(self, label: np.ndarray) -> np.ndarray:
    """bool, of the shape of `label`: it is possible, or NaN, which is not known."""
    if self.numeric:
      low = -np.inf if self.low is None else self.low
      high = np.inf if self.high is None else self.high
      return np.isnan(label) | (np.isfinite(label) & (label >= low) & (label <= high))
    count = 2 if self.kind == 'multilabel' else len(self.classes)
    return np.isnan(label) | np.isin(label, np.arange(count))


@dataclasses.dataclass(frozen=True)
class Schema:
  """Everything that is the same for all samples of a data set.

  Attributes:
    task: 'cvd', 'cvd_all', 'mortality' or 'los'.
    source: name of the source, for example 'mimic_iv'.
    target: what the label means.
    events: event modality -> its items; `item` in a sample indexes this tuple.
    grids: grid modality -> its grid.
    ecg_terms: SNOMED CT terms of report lines; empty where there is no ECG.
    static_numeric: static columns with a value.
    static_categorical: static columns with a category.
    attributes: names of the subgroup attributes; never model inputs.
    observation_hours: length of the observation window before the prediction
      time, None when it is the whole history.
    condition: what is true of every sample and not yet known at its prediction time, so
      that a risk is conditional on it; a sentence's end, '' where there is nothing.
  """

  task: str
  source: str
  target: Target
  events: Mapping[str, tuple[Item, ...]]
  grids: Mapping[str, Grid]
  ecg_terms: tuple[str, ...]
  static_numeric: tuple[Item, ...]
  static_categorical: tuple[Item, ...]
  attributes: tuple[str, ...]
  observation_hours: float | None
  condition: str = ''

  @property
  def modalities(self) -> tuple[str, ...]:
    """Modalities in model order: static, events, grids, ecg."""
    static = ('static',) if self.static_numeric or self.static_categorical else ()
    ecg = ('ecg',) if self.ecg_terms else ()
    return (*static, *self.events, *self.grids, *ecg)

  def variables(self, modality: str) -> tuple[Item, ...]:
    """The variables of a modality; of ECGs their measurements and terms."""
    if modality == 'static':
      return (*self.static_numeric, *self.static_categorical)
    if modality == 'ecg':
      names = (*ECG_MEASUREMENTS, *self.ecg_terms)
      return tuple(Item(name, name) for name in names)
    return self.grids[modality].items if modality in self.grids else self.events[modality]

  def only(self, modalities: Sequence[str]) -> Schema:
    """The schema with these modalities alone, in model order."""
    static = 'static' in modalities
    return dataclasses.replace(
      self,
      events={name: each for name, each in self.events.items() if name in modalities},
      grids={name: each for name, each in self.grids.items() if name in modalities},
      ecg_terms=self.ecg_terms if 'ecg' in modalities else (),
      static_numeric=self.static_numeric if static else (),
      static_categorical=self.static_categorical if static else (),
    )

  def to_json(self) -> dict[str, Any]:
    return {'schema_version': SCHEMA_VERSION, **dataclasses.asdict(self)}

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
      fields: of `to_json`.
      where: the file, for the message.
      remedy: what to do about another schema version.

    Raises:
      DataError: the schema version is not the one that this code reads.
    """
    fields = dict(fields)
    version = fields.pop('schema_version', None)
    if version != SCHEMA_VERSION:
      raise DataError(
        f'{where}: schema version {version}, this code reads {SCHEMA_VERSION}. {remedy}'
      )
    items = lambda rows: tuple(_item(row) for row in rows)
    return cls(
      task=fields['task'],
      source=fields['source'],
      target=Target(**{**fields['target'], 'classes': tuple(fields['target']['classes'])}),
      events={name: items(rows) for name, rows in fields['events'].items()},
      grids={
        name: Grid(items(grid['items']), grid['steps'], grid['step_hours'])
        for name, grid in fields['grids'].items()
      },
      ecg_terms=tuple(fields['ecg_terms']),
      static_numeric=items(fields['static_numeric']),
      static_categorical=items(fields['static_categorical']),
      attributes=tuple(fields['attributes']),
      observation_hours=fields['observation_hours'],
      condition=fields['condition'],
    )


def _item(row: Mapping[str, Any]) -> Item:
  return Item(**{**row, 'categories': tuple(row['categories'])})


def write_json(path: Path, value: Any) -> None:
  """Writes `value` as indented JSON, atomically; of several writers the last wins."""
  partial = path.with_name(f'{path.name}.{uuid.uuid4().hex[:8]}.partial')
  partial.write_text(json.dumps(value, indent=1, sort_keys=True) + '\n')
  partial.replace(path)
