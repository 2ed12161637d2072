"""Fitted state: statistics of the training subjects, computed with NumPy.

`fit` makes one pass over the training samples of a fold. The result depends on
those samples only; `into_collection` puts it where the modules of a stage
declared their `fitted` variables (docs/design.md, "Fitted state").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from data_pipeline.format.schema import Item, Schema
from medm2t_jax import targets
from medm2t_jax.modalities import presence
from medm2t_jax.models.events.events_config import NUM_BINS
from medm2t_jax.models.trunk import chunks, columns
from medm2t_jax.models.trunk.columns import ColumnKind

_OF_OUTPUTS = ('offset', 'output_scale')  # variables of every output layer
PERCENTILES = np.arange(5, 100, 10)  # 5, 15, ..., 95: paper section 3.1

# A column that fewer training samples lack says nothing by being there.
FLAGGED_MISSING = 0.02

Batch = Mapping[str, Any]
Statistics = dict[str, dict[str, np.ndarray]]


def fit(
  batches: Iterable[Batch],
  schema: Schema,
  windows: Mapping[str, tuple[str, Sequence[float]]],
  kinds: Sequence[tuple[str, ColumnKind]],
) -> Statistics:
  """Fits all statistics on the samples that `batches` yields.

  Args:
    batches: batches of docs/design.md (leading device axis) with all modalities,
      each training sample once.
    schema: of the data set.
    windows: modality -> ('percentiles' | 'hours', cuts), of `config.model.windows`.
    kinds: (modality, its columns), of the model's config.

  Returns:
    Modality (or 'decoder') -> variable name -> array.

  Raises:
    ValueError: no training sample at all.
  """
  collected, shares = _collect(batches, schema, tuple(kinds))
  labels = collected['label']['label']
  if not len(labels):
    raise ValueError('cannot fit statistics: the training split has no sample')
  statistics: Statistics = {'decoder': _of_outputs(labels, schema)}
  for name, items in schema.events.items():
    statistics[name] = {
      **fit_events(items=items, **collected[name]),
      'time_cuts': _time_cuts(collected[name]['time'], *windows[name]),
    }
  for name in schema.grids:
    statistics[name] = _fit_grid(**collected[name])
  if schema.ecg_terms:
    statistics['ecg'] = {
      **_fit_ecg(**collected['ecg']),
      'time_cuts': _time_cuts(collected['ecg']['time'], *windows['ecg']),
    }
  if 'static' in schema.modalities:
    statistics['static'] = _fit_static(**collected['static'], schema=schema)
  table, start = collected['columns']['columns'], 0
  for name, kind in kinds:
    statistics[name] |= fit_columns(table[:, start : start + kind.count])
    start += kind.count
  for name, share in shares.items():
    statistics[name]['found'] = share
  return statistics


def into_collection(statistics: Statistics, declared: Mapping[str, Any]) -> dict[str, Any]:
  """Arranges `statistics` like the `fitted` collection that a stage declared.

  A variable belongs to the modality that its path names, `offset` and `output_scale` to
  'decoder'.
  `part_weights` are equal, until they are fitted on validation subjects.

  Args:
    statistics: of `fit`.
    declared: the `fitted` collection of `model.init`, arrays or shapes.

  Raises:
    ValueError: a declared variable was not fitted, or has another shape.
  """
  collection = {}
  flat: dict[tuple[str, ...], Any] = dict(traverse_util.flatten_dict(declared))
  for path, variable in flat.items():
    if path[-1] == 'part_weights':
      (parts,) = variable.shape
      collection[path] = np.full(parts, 1 / parts, variable.dtype)
      continue
    owner = 'decoder' if path[-1] in _OF_OUTPUTS else _modality(path, statistics)
    value = statistics[owner].get(path[-1])
    if value is None or value.shape != tuple(variable.shape):
      found = 'nothing' if value is None else f'shape {value.shape}'
      raise ValueError(
        f'fitted variable {"/".join(path)} has shape {tuple(variable.shape)}, '
        f'but {found} was fitted for {owner}/{path[-1]}'
      )
    collection[path] = value.astype(variable.dtype)
  return traverse_util.unflatten_dict(collection)


def _modality(path: Sequence[str], statistics: Statistics) -> str:
  """The modality that a variable path names; the longest name wins."""
  named = [name for name in statistics if any(_names(part, name) for part in path)]
  if not named:
    raise ValueError(f'fitted variable {"/".join(path)} names no modality')
  return max(named, key=len)


def _names(part: str, modality: str) -> bool:
  return part == modality or part.endswith('_' + modality)


def _collect(
  batches: Iterable[Batch], schema: Schema, kinds: tuple[tuple[str, ColumnKind], ...]
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
  """The valid entries of all batches, per modality and field; and which samples have what.

  The second are modality -> share of the samples that have each of its variables.
  """
  parts: dict[tuple[str, str], list[np.ndarray]] = {}
  counts: dict[str, Any] = dict.fromkeys(schema.modalities, 0)

  def add(modality: str, valid: np.ndarray, fields: Mapping[str, np.ndarray]) -> None:
    for field, values in fields.items():
      parts.setdefault((modality, field), []).append(values[valid])

  for batch in batches:
    rows = batch['row'] >= 0
    for name, has in presence.found(batch, schema):
      counts[name] = counts[name] + has.sum(axis=0)
    add('label', rows, {'label': batch['label']})
    add('columns', rows.ravel(), {'columns': np.asarray(columns.table(kinds, batch))})
    for name in schema.events:
      events = batch[name]
      fields = {key: events[key] for key in ('item', 'value', 'category', 'time')}
      add(name, events['mask'], fields)
    for name in schema.grids:
      add(name, rows, batch[name])
    if schema.ecg_terms:
      keys = ('time', 'measurements', 'measurements_mask', 'terms')
      add('ecg', batch['ecg']['mask'], {key: batch['ecg'][key] for key in keys})
    if 'static' in schema.modalities:
      add('static', rows, batch['static'])
  collected: dict[str, dict[str, np.ndarray]] = {}
  for (modality, field), arrays in parts.items():
    collected.setdefault(modality, {})[field] = np.concatenate(arrays)
  samples = max(1, len(collected.get('label', {}).get('label', ())))
  return collected, {name: np.asarray(count) / samples for name, count in counts.items()}


def _of_outputs(labels: np.ndarray, schema: Schema) -> dict[str, np.ndarray]:
  """`offset` (c) and `output_scale` ()."""
  target = targets.of(schema.target)
  return {'offset': target.prior(labels), 'output_scale': np.asarray(target.scale(labels))}


def fit_events(
  item: np.ndarray,
  value: np.ndarray,
  category: np.ndarray,
  time: np.ndarray,
  items: Sequence[Item],
) -> dict[str, np.ndarray]:
  """Knots, mean encodings and the seen items and categories of an event modality.

  Args:
    item: index into `items`, (n,).
    value: numeric value, (n,); ignored where `category` >= 0.
    category: index into the item's categories, -1 for a number, (n,).
    time: not used here; accepted so that an event's fields travel together.
    items: the modality's items.

  Returns:
    `knots` (items, 12), `encoding_mean` (items, 11), `item_seen` (items,),
    `category_seen` (items, most categories).
  """
  del time
  most = max((len(one.categories) for one in items), default=0)
  knots = np.zeros((len(items), NUM_BINS + 1))
  encoding_mean = np.zeros((len(items), NUM_BINS))
  category_seen = np.zeros((len(items), most), bool)
  categorical = category >= 0
  category_seen[item[categorical], category[categorical]] = True
  order = np.argsort(item[~categorical], kind='stable')
  numbers = value[~categorical][order].astype(np.float64)
  ends = np.cumsum(np.bincount(item[~categorical], minlength=len(items)))
  for index, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
    if start == end:
      continue
    values = numbers[start:end]
    # Rounded first: the model compares float32 values with float32 knots.
    inner = np.unique(np.percentile(values, PERCENTILES).astype(np.float32))
    knots[index] = values.max()
    knots[index, 0] = values.min()
    knots[index, 1 : 1 + len(inner)] = inner
    encoding_mean[index] = piecewise_linear(values, knots[index]).mean(axis=0)
  return {
    'knots': knots,
    'encoding_mean': encoding_mean,
    'item_seen': np.bincount(item, minlength=len(items)) > 0,
    'category_seen': category_seen,
  }


def piecewise_linear(values: np.ndarray, knots: np.ndarray) -> np.ndarray:
  """Quantile thermometer: how far each value has filled each piece, (n, pieces).

  Args:
    values: (n,).
    knots: ascending, (pieces + 1,). A piece without width is 0.
  """
  width = np.diff(knots)
  filled = (values[:, None] - knots[:-1]) / np.where(width > 0, width, 1.0)
  return np.where(width > 0, np.clip(filled, 0.0, 1.0), 0.0)


def fit_columns(table: np.ndarray) -> dict[str, np.ndarray]:
  """What `medm2t_jax.models.trunk.chunks` needs of each column.

  Args:
    table: of training samples, NaN where nothing is known, (samples, n).

  Returns:
    `column_knots` (n, 9), `column_mean` (n, 8), `column_center`, `column_scale` and
    `column_flagged` (n,). Of a column without any value all are 0.
  """
  count, places = table.shape[1], np.linspace(0, 100, chunks.PIECES + 1)
  knots, mean = np.zeros((count, len(places))), np.zeros((count, chunks.PIECES))
  center, scale = np.zeros(count), np.zeros(count)
  flagged = np.zeros(count, bool)
  for column in range(count):
    values = table[~np.isnan(table[:, column]), column].astype(np.float64)
    if len(values):
      # Rounded first: the model compares float32 values with float32 knots.
      knots[column] = np.percentile(values, places).astype(np.float32)
      mean[column] = piecewise_linear(values, knots[column]).mean(axis=0)
      center[column], scale[column] = values.mean(), values.std()
      flagged[column] = len(values) < (1 - FLAGGED_MISSING) * len(table)
  return {
    'column_knots': knots,
    'column_mean': mean,
    'column_center': center,
    'column_scale': scale,
    'column_flagged': flagged,
  }


def _time_cuts(time: np.ndarray, kind: str, cuts: Sequence[float]) -> np.ndarray:
  """Cuts between windows, in hours; without any event, zeros."""
  if kind == 'hours':
    return np.asarray(cuts, np.float64)
  if kind != 'percentiles':
    raise ValueError(f"windows are ('percentiles', ...) or ('hours', ...), not {kind!r}")
  return np.percentile(time, cuts) if len(time) else np.zeros(len(cuts))


def _center_and_scale(
  values: np.ndarray, valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Median and interquartile range of each column's valid values; 0 and 1 without any.

  Args:
    values: (n, columns).
    valid: (n, columns) bool.
  """
  center = np.zeros(values.shape[1])
  scale = np.ones(values.shape[1])
  for column in range(values.shape[1]):
    known = values[valid[:, column], column]
    if len(known):
      low, center[column], high = np.percentile(known, (25, 50, 75))
      scale[column] = high - low if high > low else 1.0
  return center, scale


def _fit_grid(value: np.ndarray, observed: np.ndarray) -> dict[str, np.ndarray]:
  signals = value.shape[-1]
  center, scale = _center_and_scale(
    value.reshape(-1, signals), observed.reshape(-1, signals).astype(bool)
  )
  return {'center': center, 'scale': scale}


def _fit_ecg(
  time: np.ndarray,
  measurements: np.ndarray,
  measurements_mask: np.ndarray,
  terms: np.ndarray,
) -> dict[str, np.ndarray]:
  del time
  center, scale = _center_and_scale(measurements, measurements_mask)
  return {
    'measurement_center': center,
    'measurement_scale': scale,
    'term_seen': np.asarray(terms.any(axis=0)),
  }


def _fit_static(
  numeric: np.ndarray, numeric_mask: np.ndarray, categorical: np.ndarray, schema: Schema
) -> dict[str, np.ndarray]:
  center, scale = _center_and_scale(numeric, numeric_mask)
  columns = schema.static_categorical
  most = max((len(column.categories) for column in columns), default=0)
  level_seen = np.zeros((len(columns), most), bool)
  for index in range(len(columns)):
    level_seen[index, np.unique(categorical[categorical[:, index] >= 0, index])] = True
  return {'center': center, 'scale': scale, 'level_seen': level_seen}
