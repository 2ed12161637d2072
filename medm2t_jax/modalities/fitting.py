"""Fitted state: statistics of the training subjects, computed with NumPy.

`fit` makes one pass over the training samples of a fold. The result depends only on
those samples; `into_collection` arranges it as the modules of a stage declare their
`fitted` variables (docs/design.md, "Fitted state").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from data_pipeline.format.modalities.base import found_in
from data_pipeline.format.schema import Target
from medm2t_jax import targets
from medm2t_jax.modalities.base import Modality
from medm2t_jax.modalities.columns import fit_columns
from medm2t_jax.models.trunk import columns

Batch = Mapping[str, Any]
Statistics = dict[str, dict[str, np.ndarray]]

_OF_OUTPUTS = ('offset', 'output_scale')  # variables of every output layer
# Top-level modules with the variables of a modality.
_HOMES = ('encoders', 'chunks')


def fit(
  batches: Iterable[Batch], modalities: Sequence[Modality], target: Target
) -> Statistics:
  """Fits all statistics on the samples that `batches` yields.

  Args:
    batches: of docs/design.md (leading device axis) with all modalities, each training
      sample once.
    modalities: of the model.
    target: what the label means.

  Returns:
    Modality (or 'decoder') -> variable name -> array.

  Raises:
    ValueError: there is no training sample.
  """
  collected, shares = _collect(batches, modalities)
  labels, weights = collected['label']['label'], collected['label']['weight']
  if not len(labels):
    raise ValueError('cannot fit statistics: the training split has no sample')
  statistics: Statistics = {'decoder': _of_outputs(labels, weights, target)}
  table, start = collected['columns']['columns'], 0
  for each in modalities:
    fitted, stop = each.fit(collected[each.name]), start + each.columns.count
    fitted |= fit_columns(table[:, start:stop])
    statistics[each.name] = {**fitted, 'found': shares[each.name]}
    start = stop
  return statistics


def into_collection(statistics: Statistics, declared: Mapping[str, Any]) -> dict[str, Any]:
  """Arranges `statistics` like the `fitted` collection that a stage declared.

  A variable belongs to the modality that its path begins with, `offset` and `output_scale`
  to 'decoder'. `part_weights` are equal until they are fitted on validation subjects.

  Args:
    statistics: from `fit`.
    declared: the `fitted` collection of `model.init`, arrays or shapes.

  Raises:
    ValueError: a declared variable was not fitted, or has another shape.
  """
  collection = {}
  flat: dict[tuple[str, ...], Any] = dict(traverse_util.flatten_dict(declared))
  owner_of = {f'{home}_{name}': name for name in statistics for home in _HOMES}
  for path, variable in flat.items():
    if path[-1] == 'part_weights':
      (parts,) = variable.shape
      collection[path] = np.full(parts, 1 / parts, variable.dtype)
      continue
    owner = 'decoder' if path[-1] in _OF_OUTPUTS else owner_of.get(path[0])
    if owner is None:
      raise ValueError(f'fitted variable {"/".join(path)} names no modality')
    value = statistics[owner].get(path[-1])
    if value is None or value.shape != tuple(variable.shape):
      found = 'nothing' if value is None else f'shape {value.shape}'
      raise ValueError(
        f'fitted variable {"/".join(path)} has shape {tuple(variable.shape)}, '
        f'but {found} was fitted for {owner}/{path[-1]}'
      )
    collection[path] = value.astype(variable.dtype)
  return traverse_util.unflatten_dict(collection)


def _collect(
  batches: Iterable[Batch], modalities: Sequence[Modality]
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
  """The valid entries of all batches, per modality and field; and presence of variables.

  The second result is modality -> share of the samples that have each of its variables.
  """
  kinds = tuple((each.name, each.columns) for each in modalities)
  parts: dict[tuple[str, str], list[np.ndarray]] = {}
  counts: dict[str, Any] = {each.name: 0 for each in modalities}

  def add(modality: str, valid: np.ndarray, fields: Mapping[str, np.ndarray]) -> None:
    for field, values in fields.items():
      parts.setdefault((modality, field), []).append(values[valid])

  for batch in batches:
    rows = batch['row'] >= 0
    add('label', rows, {'label': batch['label'], 'weight': batch['weight']})
    add('columns', rows.ravel(), {'columns': np.asarray(columns.table(kinds, batch))})
    for name, has in found_in({each.name: each.spec for each in modalities}, batch):
      counts[name] = counts[name] + has.sum(axis=0)
    for each in modalities:
      arrays = batch[each.name]
      valid = rows if each.spec.layout == 'fixed' else arrays['mask']
      read = (key for key, feature in each.spec.arrays.items() if not feature.heavy)
      fields = {key: arrays[key] for key in read if key in arrays}
      add(each.name, valid, fields)
  collected: dict[str, dict[str, np.ndarray]] = {}
  for (modality, field), arrays in parts.items():
    collected.setdefault(modality, {})[field] = np.concatenate(arrays)
  samples = max(1, len(collected.get('label', {}).get('label', ())))
  return collected, {name: np.asarray(count) / samples for name, count in counts.items()}


def _of_outputs(
  labels: np.ndarray, weights: np.ndarray, target: Target
) -> dict[str, np.ndarray]:
  """`offset` (c) and `output_scale` ()."""
  of = targets.of(target)
  return {'offset': of.prior(labels, weights), 'output_scale': np.asarray(of.scale(labels))}
