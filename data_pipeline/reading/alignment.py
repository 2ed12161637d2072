"""Lines a data set's variables up with a model's: by code and unit, never by position.

What the model does not know is ignored and counted; what the data lack is absent and
masked. An aligned batch is what the model's own data set would have given. `seen_as`
gives a data set whose batches are all aligned.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.format.dataset import Dataset
from data_pipeline.format.schema import (
  ECG_LEADS,
  ECG_MEASUREMENTS,
  ECG_SAMPLES,
  DataError,
  Grid,
  Item,
  Schema,
  Target,
)
from data_pipeline.sources.common.units import unit_key

Batch = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Unmatched:
  """A variable that only one side has.

  Attributes:
    modality: of the variable.
    code: the source's code.
    name: readable.
    reason: why it is not matched.
  """

  modality: str
  code: str
  name: str
  reason: str


def seen_as(dataset: Dataset, schema: Schema) -> Dataset:
  """The data set with the variables of another schema, that of a model.

  Everybody who reads it sees the model's variables; `stored` keeps what the shards hold.
  Its version says so. A data set with the same variables stays as it is.

  Args:
    dataset: of the same task.
    schema: whose modalities, items and static columns are seen. Attributes, observation
      window and all that says whose data they are stay the data set's.

  Raises:
    DataError: the two predict something else, or have no modality in common.
  """
  alignment = Alignment(schema, dataset.schema)
  if not alignment.modalities:
    raise DataError(
      f'{dataset.directory}: has none of the modalities of the model, which are '
      f'{", ".join(schema.modalities)}.'
    )
  if alignment.identical:
    return dataset
  seen = dataclasses.replace(
    dataset.schema,
    events=schema.events,
    grids=schema.grids,
    ecg_terms=schema.ecg_terms,
    static_numeric=schema.static_numeric,
    static_categorical=schema.static_categorical,
  )
  content = json.dumps(seen.to_json(), sort_keys=True)
  digest = hashlib.sha256(content.encode()).hexdigest()
  return dataclasses.replace(
    dataset,
    schema=seen,
    stored=dataset.schema,
    version=f'{dataset.version}-as-{digest[:8]}',
  )


class Alignment:
  """From batches of a data set to batches of a model.

  Attributes:
    model: the model's schema.
    data: the data set's schema.
    modalities: of the data set that the model reads, in the model's order.
    ignored: the data set's variables that the model does not know.
    absent: the model's variables that the data set lacks.
    identical: whether both have the same variables: batches then stay as they are.
    notes: sentences on what else differs, which a reader of predictions must know.
  """

  def __init__(self, model: Schema, data: Schema):
    """Raises DataError if the two predict something else."""
    if _meaning(model.target) != _meaning(data.target) or model.task != data.task:
      raise DataError(
        f'the model predicts {model.task!r} ({_named(model.target)}), the data set is '
        f'prepared for {data.task!r} ({_named(data.target)}). Prepare it with '
        f'--task={model.task}.'
      )
    self.model, self.data = model, data
    self.modalities = tuple(name for name in model.modalities if name in data.modalities)
    self.ignored: list[Unmatched] = []
    self.absent: list[Unmatched] = []
    self._places = {name: self._match(name) for name in model.modalities}
    for name in data.modalities:
      if name not in model.modalities:
        for item in data.variables(name):
          self._ignore(name, item, 'the model has no such modality')
    self.identical = _compared(model) == _compared(data)
    self.notes = _other_differences(model, data)

  def __call__(self, batch: Batch, modalities: Sequence[str] | None = None) -> Batch:
    """The batch in the model's terms.

    Args:
      batch: of the data set, with a leading device axis.
      modalities: of the model, that the result has; None for all of them.
    """
    if self.identical:
      return batch
    devices, rows = batch['row'].shape
    aligned = {name: batch[name] for name in ('label', 'weight', 'row')}
    for name in self.model.modalities if modalities is None else modalities:
      if name not in self.modalities:
        aligned[name] = self._nothing(name, devices, rows)
      elif name == 'static':
        aligned[name] = self._static(batch[name])
      elif name == 'ecg':
        aligned[name] = self._ecg(batch[name])
      elif name in self.model.grids:
        aligned[name] = self._grid(name, batch[name])
      else:
        aligned[name] = self._events(name, batch[name])
    return aligned

  def _match(self, modality: str) -> list[int]:
    """Place in the data set of each of the model's variables of a modality; -1: absent."""
    known = self.model.variables(modality)
    if modality not in self.data.modalities:
      for item in known:
        self._lack(modality, item, 'the data set has no such modality')
      return [-1] * len(known)
    offered = self.data.variables(modality)
    reason = ''
    if modality in self.model.grids:
      steps = (self.model.grids[modality].step_hours, self.data.grids[modality].step_hours)
      if steps[0] != steps[1]:
        reason = f'steps of {steps[1]:g} h, the model has {steps[0]:g} h'
    place_of = {(item.itemid, item.kind): place for place, item in enumerate(offered)}
    places, used = [], set()
    for item in known:
      place = place_of.get((item.itemid, item.kind), -1)
      why = reason or 'the data set has no such variable'
      if place >= 0 and unit_key(offered[place].unit) != unit_key(item.unit):
        why = f'unit {offered[place].unit!r}, the model has {item.unit!r}'
        self._ignore(modality, offered[place], why)
        used.add(place)
        place = -1
      if place < 0 or reason:
        self._lack(modality, item, why)
        place = -1
      places.append(place)
    for place, item in enumerate(offered):
      if place not in places and place not in used:
        self._ignore(modality, item, reason or 'the model does not know it')
    return places

  def _ignore(self, modality: str, item: Item, reason: str) -> None:
    self.ignored.append(Unmatched(modality, item.itemid, item.name, reason))

  def _lack(self, modality: str, item: Item, reason: str) -> None:
    self.absent.append(Unmatched(modality, item.itemid, item.name, reason))

  def _events(self, name: str, events: Batch) -> dict[str, np.ndarray]:
    known, offered = self.model.events[name], self.data.events[name]
    to_model = np.full(len(offered) + 1, -1, np.int32)
    most = max((len(item.categories) for item in offered), default=0)
    category_of = np.full((len(offered) + 1, most + 1), -1, np.int32)
    for place, at in enumerate(self._places[name]):
      if at >= 0:
        to_model[at] = place
        levels = known[place].categories
        for number, category in enumerate(offered[at].categories):
          category_of[at, number] = levels.index(category) if category in levels else -1
    item = to_model[events['item']]
    category = np.where(
      events['category'] >= 0, category_of[events['item'], events['category']], np.int32(-1)
    )
    unknown = (events['category'] >= 0) & (category < 0)
    kept = events['mask'] & (item >= 0) & ~unknown
    # In the order of time without gaps, zeros under false masks, as it would be read.
    order = np.argsort(~kept, axis=-1, kind='stable')
    mask = np.take_along_axis(kept, order, axis=-1)
    arrays = {**events, 'item': item, 'category': category}
    moved = {
      key: np.where(
        mask, np.take_along_axis(array, order, axis=-1), np.zeros((), array.dtype)
      )
      for key, array in arrays.items()
    }
    return {**moved, 'mask': mask}

  def _grid(self, name: str, grid: Batch) -> dict[str, np.ndarray]:
    steps = self.model.grids[name].steps
    places = np.array(self._places[name], np.int64)
    aligned = {}
    for key, array in grid.items():
      # Both end at the prediction time.
      last = array[:, :, max(0, array.shape[2] - steps) :]
      earlier = ((0, 0), (0, 0), (steps - last.shape[2], 0), (0, 0))
      aligned[key] = _chosen(np.pad(last, earlier), places, np.zeros((), array.dtype))
    return aligned

  def _static(self, static: Batch) -> dict[str, np.ndarray]:
    numbers = len(self.model.static_numeric)
    places = np.array(self._places['static'], np.int64)
    numeric, levels = places[:numbers], places[numbers:]
    levels = np.where(levels >= 0, levels - len(self.data.static_numeric), -1)
    categorical = _chosen(static['categorical'], levels, np.int32(-1))
    for place, at in enumerate(levels):
      if at >= 0:
        known = self.model.static_categorical[place].categories
        offered = self.data.static_categorical[at].categories
        to_model = [known.index(one) if one in known else -1 for one in offered]
        table = np.array([*to_model, -1], np.int32)  # the last is of -1
        categorical[..., place] = table[categorical[..., place]]
    return {
      'numeric': _chosen(static['numeric'], numeric, np.float32(0)),
      'numeric_mask': _chosen(static['numeric_mask'], numeric, np.False_),
      'categorical': categorical,
    }

  def _ecg(self, ecg: Batch) -> dict[str, np.ndarray]:
    places = np.array(self._places['ecg'][len(ECG_MEASUREMENTS) :], np.int64)
    terms = places - len(ECG_MEASUREMENTS)
    terms = np.where(places >= 0, terms, -1)
    return {**ecg, 'terms': _chosen(ecg['terms'], terms, np.zeros((), ecg['terms'].dtype))}

  def _nothing(self, name: str, devices: int, rows: int) -> dict[str, np.ndarray]:
    """A modality that no row has."""
    shape = (devices, rows)
    if name == 'static':
      numbers, levels = len(self.model.static_numeric), len(self.model.static_categorical)
      return {
        'numeric': np.zeros((*shape, numbers), np.float32),
        'numeric_mask': np.zeros((*shape, numbers), bool),
        'categorical': np.full((*shape, levels), -1, np.int32),
      }
    if name == 'ecg':
      return _no_recordings(devices, len(self.model.ecg_terms))
    if name in self.model.grids:
      grid = self.model.grids[name]
      cells = (*shape, grid.steps, len(grid.items))
      return {'value': np.zeros(cells, np.float32), 'observed': np.zeros(cells, bool)}
    one = (*shape, 1)
    return {
      'item': np.zeros(one, np.int32),
      'value': np.zeros(one, np.float32),
      'category': np.full(one, -1, np.int32),
      'time': np.zeros(one, np.float32),
      'mask': np.zeros(one, bool),
    }


def _other_differences(model: Schema, data: Schema) -> list[str]:
  windows = [one.observation_hours for one in (model, data)]
  if windows[0] == windows[1]:
    return []
  of_model, of_data = (f'{w:g} h' if w else 'whole history' for w in windows)
  return [
    f'The model was trained on the {of_model} before the prediction time, these data have '
    f'the {of_data}.'
  ]


def _compared(schema: Schema) -> dict[str, Any]:
  shape = lambda grid: (grid.steps, grid.step_hours) if isinstance(grid, Grid) else ()
  return {
    name: (
      [(item.itemid, unit_key(item.unit), item.categories) for item in items],
      shape(schema.grids.get(name)),
      len(schema.static_numeric) if name == 'static' else 0,
    )
    for name, items in ((name, schema.variables(name)) for name in schema.modalities)
  }


def _chosen(array: np.ndarray, places: np.ndarray, missing: Any) -> np.ndarray:
  """Columns of the last axis in another order; `missing` where a place is -1."""
  if not len(places):
    return np.zeros((*array.shape[:-1], 0), array.dtype)
  if not array.shape[-1]:
    return np.full((*array.shape[:-1], len(places)), missing, array.dtype)
  return np.where(places >= 0, array[..., places], missing)


def _no_recordings(devices: int, terms: int) -> dict[str, np.ndarray]:
  measured = (devices, 1, len(ECG_MEASUREMENTS))
  return {
    'signal': np.zeros((devices, 1, ECG_SAMPLES, len(ECG_LEADS)), np.int16),
    'gain': np.zeros((devices, 1), np.float32),
    'time': np.zeros((devices, 1), np.float32),
    'measurements': np.zeros(measured, np.float32),
    'measurements_mask': np.zeros(measured, bool),
    'terms': np.zeros((devices, 1, terms), np.uint8),
    'owner': np.zeros((devices, 1), np.int32),
    'mask': np.zeros((devices, 1), bool),
  }


def _meaning(target: Target) -> tuple[Any, ...]:
  """What a model and a data set have to agree in; descriptions may differ."""
  return target.kind, target.classes, target.unit


def _named(target: Target) -> str:
  return ', '.join(target.classes) or target.unit or target.kind
