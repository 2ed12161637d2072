"""Aligns the variables of a data set with those of a model, by code and unit.

Variables unknown to the model are ignored and reported; variables that the data lack are
absent and masked. An aligned batch has the format of the model's own data set. `seen_as`
returns a data set whose batches are all aligned.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.format.dataset import Dataset
from data_pipeline.format.items import DataError, Item
from data_pipeline.format.modalities import base
from data_pipeline.format.schema import Schema, Target
from data_pipeline.sources.common.units import unit_key

Batch = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Unmatched:
  """A variable that only one of data set and model has.

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

  All readers see the model's variables; `stored` keeps the schema of the shards. The
  version records this. A data set with the same variables is returned unchanged.

  Args:
    dataset: of the same task.
    schema: whose modalities, items and static columns are used. Attributes, observation
      window and the source stay those of the data set.

  Raises:
    DataError: the targets differ, or there is no common modality.
  """
  alignment = Alignment(schema, dataset.schema)
  if not alignment.modalities:
    raise DataError(
      f'{dataset.directory} has none of the modalities of the model, which are '
      f'{", ".join(schema.modalities)}.'
    )
  if alignment.identical:
    return dataset
  seen = dataclasses.replace(dataset.schema, modalities=schema.modalities)
  content = json.dumps(seen.to_json(), sort_keys=True)
  digest = hashlib.sha256(content.encode()).hexdigest()
  return dataclasses.replace(
    dataset,
    schema=seen,
    stored=dataset.schema,
    version=f'{dataset.version}-as-{digest[:8]}',
  )


class Alignment:
  """Converts batches of a data set to batches of a model.

  Attributes:
    model: the model's schema.
    data: the data set's schema.
    modalities: of the data set that the model reads, in the model's order.
    ignored: the data set's variables that the model does not have.
    absent: the model's variables that the data set does not have.
    identical: whether both have the same variables; batches are then unchanged.
    notes: sentences on other differences, which a reader of predictions must know.
  """

  def __init__(self, model: Schema, data: Schema):
    """Matches the variables; raises DataError if the targets differ."""
    if _meaning(model.target) != _meaning(data.target) or model.task != data.task:
      raise DataError(
        f'the model predicts {model.task!r} ({_named(model.target)}), but the data set is '
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
    """Converts a batch to the model's variables.

    Args:
      batch: of the data set, with a leading device axis.
      modalities: of the model, to include in the result; None for all of them.
    """
    if self.identical:
      return batch
    devices, rows = batch['row'].shape
    aligned = {name: batch[name] for name in ('label', 'weight', 'row')}
    for name in self.model.modalities if modalities is None else modalities:
      of_model = self.model.modalities[name]
      if not self._is_read(name):
        aligned[name] = base.nothing(of_model, (devices, rows))
      else:
        of_data, places = self.data.modalities[name], self._places[name]
        aligned[name] = of_model.aligned(of_data, places, batch[name])
    return aligned

  def _is_read(self, name: str) -> bool:
    """Whether both have the modality, with the same kind."""
    both = name in self.modalities
    return both and self._kinds_differ(name) == ''

  def _kinds_differ(self, name: str) -> str:
    model, data = self.model.modalities[name], self.data.modalities[name]
    if type(model) is type(data):
      return ''
    return f'its kind is {data.kind}; the model has {model.kind}'

  def _match(self, modality: str) -> list[int]:
    """Index in the data set of each of the model's variables of a modality; -1: absent."""
    known = self.model.variables(modality)
    if modality not in self.data.modalities:
      for item in known:
        self._lack(modality, item, 'the data set has no such modality')
      return [-1] * len(known)
    offered = self.data.variables(modality)
    reason = self._kinds_differ(modality) or self.model.modalities[modality].difference(
      self.data.modalities[modality]
    )
    place_of = {(item.itemid, item.kind): place for place, item in enumerate(offered)}
    places, used = [], set()
    for item in known:
      place = place_of.get((item.itemid, item.kind), -1)
      why = reason or 'the data set has no such variable'
      if place >= 0 and unit_key(offered[place].unit) != unit_key(item.unit):
        why = f'unit {offered[place].unit!r}; the model has {item.unit!r}'
        self._ignore(modality, offered[place], why)
        used.add(place)
        place = -1
      if place < 0 or reason:
        self._lack(modality, item, why)
        place = -1
      places.append(place)
    for place, item in enumerate(offered):
      if place not in places and place not in used:
        self._ignore(modality, item, reason or 'the model has no such variable')
    return places

  def _ignore(self, modality: str, item: Item, reason: str) -> None:
    self.ignored.append(Unmatched(modality, item.itemid, item.name, reason))

  def _lack(self, modality: str, item: Item, reason: str) -> None:
    self.absent.append(Unmatched(modality, item.itemid, item.name, reason))


def _other_differences(model: Schema, data: Schema) -> list[str]:
  windows = [one.observation_hours for one in (model, data)]
  if windows[0] == windows[1]:
    return []
  of_model, of_data = (f'{w:g} h' if w else 'whole history' for w in windows)
  return [
    f'The model was trained on the {of_model} before the prediction time; this data '
    f'set has the {of_data}.'
  ]


def _compared(schema: Schema) -> dict[str, Any]:
  return {
    name: (
      modality.kind,
      [(item.itemid, unit_key(item.unit), item.categories) for item in modality.variables],
      modality.sizes,
    )
    for name, modality in schema.modalities.items()
  }


def _meaning(target: Target) -> tuple[Any, ...]:
  """The properties of a target in which model and data set must agree."""
  return target.kind, target.classes, target.unit


def _named(target: Target) -> str:
  return ', '.join(target.classes) or target.unit or target.kind
