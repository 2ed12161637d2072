"""One row of summary statistics a sample, after HAIM (Soenksen et al. 2022).

Per numeric item of an event modality and per signal of a grid: first, last, least,
greatest and mean value, variance, slope over time (per hour), number of observations
and hours since the last one. Per categorical item: which category came last, how often
each came, hours since the last. ECG: last value and mean of each measurement, which
terms were ever reported, number of recordings, hours since the last. Static columns as
they are, categories one-hot. NaN where there is nothing to summarise; nothing is fitted.

Letters: n samples, o observations, c cells (an item of a sample that was observed).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data_pipeline.schema import ECG_MEASUREMENTS, Item, Schema
from medm2t_jax.baselines import reading
from medm2t_jax.baselines.reading import Batch, Observations

STATISTICS = (
    'first', 'last', 'min', 'max', 'mean', 'variance', 'slope', 'count',
    'hours_since_last',
)  # fmt: skip
_OF_MEASUREMENTS = ('last', 'mean')


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """Summary statistics of n samples.

  Attributes:
    row: rows of the data set's index, ascending, int64 (n).
    label: float64 (n).
    value: float32 (n columns), NaN where missing.
    names: of the columns: 'modality/itemid/statistic' and the like.
  """

  row: np.ndarray
  label: np.ndarray
  value: np.ndarray
  names: tuple[str, ...]

  def of_modalities(self, modalities: Sequence[str]) -> np.ndarray:
    """The columns of some modalities, float32 (n some)."""
    wanted = [name.split('/')[0] in modalities for name in self.names]
    return self.value[:, wanted]


def summarise(batches: Iterable[Batch], schema: Schema) -> Table:
  """The table of all samples of some batches (`reading.batches`)."""
  rows, labels, values, names = [], [], [], ()
  for batch in batches:
    columns = _columns(batch, schema)
    names = tuple(columns)
    valid = batch['row'] >= 0
    rows.append(batch['row'][valid].astype(np.int64))
    labels.append(batch['label'][valid].astype(np.float64))
    values.append(np.stack(list(columns.values()), axis=1, dtype=np.float32)[valid])
  row = np.concatenate(rows)
  order = np.argsort(row)
  return Table(
    row[order], np.concatenate(labels)[order], np.concatenate(values)[order], names
  )


def _columns(batch: Batch, schema: Schema) -> dict[str, np.ndarray]:
  """Name -> column (n) of every statistic, in the order of the schema."""
  samples = len(batch['row'])
  columns: dict[str, np.ndarray] = {}
  if 'static' in schema.modalities:
    columns |= _static(batch['static'], schema)
  for name, items in [
    *schema.events.items(),
    *((name, grid.items) for name, grid in schema.grids.items()),
  ]:
    found = numeric_statistics(reading.numbers(batch, schema, name), (samples, len(items)))
    for index, item in enumerate(items):
      if not item.categories:
        for statistic in STATISTICS:
          columns[f'{name}/{item.itemid}/{statistic}'] = found[statistic][:, index]
    if name in schema.events:
      columns |= _categorical(name, reading.categories(batch, name), items, samples)
  if 'ecg' in schema.modalities:
    columns |= _ecg(batch, schema, samples)
  return columns


def numeric_statistics(
  observed: Observations, shape: tuple[int, int]
) -> Mapping[str, np.ndarray]:
  """Each of `STATISTICS` as float64 (n, items).

  A variance is 0 and a slope NaN where all observations have one time; a count is 0
  and all else NaN where there is none.

  Args:
    observed: numbers, those of an item of a sample in the order of their times.
    shape: samples, items.
  """
  key, value, time = _by_cell(observed, shape[1])
  start = np.flatnonzero(np.diff(key, prepend=-1))
  count = np.diff(start, append=len(key))
  end = start + count - 1
  total = lambda values: np.add.reduceat(values, start) if len(start) else values
  mean, mean_time = total(value) / count, total(time) / count
  deviation = value - np.repeat(mean, count)
  since = time - np.repeat(mean_time, count)
  several = time[end] > time[start]
  spread = np.where(several, total(since**2), 1.0)
  cells = {
    'first': value[start],
    'last': value[end],
    'min': np.minimum.reduceat(value, start) if len(start) else value,
    'max': np.maximum.reduceat(value, start) if len(start) else value,
    'mean': mean,
    'variance': total(deviation**2) / count,
    'slope': np.where(several, total(since * deviation) / spread, np.nan),
    'count': count,
    'hours_since_last': -time[end],
  }
  result = {}
  for name, values in cells.items():
    table = np.full(shape[0] * shape[1], 0.0 if name == 'count' else np.nan)
    table[key[start]] = values
    result[name] = table.reshape(shape)
  return result


def _by_cell(
  observed: Observations, items: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Key of the cell, value and time of the observations, cell by cell, each (o)."""
  key = observed.sample * items + observed.item
  order = np.argsort(key, kind='stable')
  return key[order], observed.value[order], observed.time[order]


def _categorical(
  modality: str, observed: Observations, items: Sequence[Item], samples: int
) -> dict[str, np.ndarray]:
  key, value, time = _by_cell(observed, len(items))
  end = np.flatnonzero(np.diff(key, append=-1))
  last = np.full((samples, len(items)), -1.0)
  hours = np.full((samples, len(items)), np.nan)
  last.reshape(-1)[key[end]] = value[end]
  hours.reshape(-1)[key[end]] = -time[end]
  columns = {}
  for index, item in enumerate(items):
    own = observed.item == index
    for level, category in enumerate(item.categories):
      name = f'{modality}/{item.itemid}={category}'
      of_level = observed.sample[own & (observed.value == level)]
      columns[f'{name}/last'] = last[:, index] == level
      columns[f'{name}/count'] = np.bincount(of_level, minlength=samples)
    if item.categories:
      columns[f'{modality}/{item.itemid}/hours_since_last'] = hours[:, index]
  return columns


def _ecg(batch: Batch, schema: Schema, samples: int) -> dict[str, np.ndarray]:
  ecg = batch['ecg']
  owner, time = ecg['owner'][ecg['mask']], ecg['time'][ecg['mask']]
  found = numeric_statistics(
    reading.numbers(batch, schema, 'ecg'), (samples, len(ECG_MEASUREMENTS))
  )
  columns = {
    f'ecg/{measurement}/{statistic}': found[statistic][:, index]
    for index, measurement in enumerate(ECG_MEASUREMENTS)
    for statistic in _OF_MEASUREMENTS
  }
  reported = np.zeros((samples, len(schema.ecg_terms)), bool)
  np.logical_or.at(reported, owner, ecg['terms'][ecg['mask']] > 0)
  for index, term in enumerate(schema.ecg_terms):
    columns[f'ecg/{term}/ever'] = reported[:, index]
  latest = np.full(samples, -np.inf)
  np.maximum.at(latest, owner, time.astype(np.float64))
  columns['ecg/recordings'] = np.bincount(owner, minlength=samples)
  columns['ecg/hours_since_last'] = np.where(np.isfinite(latest), -latest, np.nan)
  return columns


def _static(static: Batch, schema: Schema) -> dict[str, np.ndarray]:
  columns = {}
  for index, item in enumerate(schema.static_numeric):
    known = static['numeric_mask'][:, index]
    columns[f'static/{item.itemid}'] = np.where(known, static['numeric'][:, index], np.nan)
  for index, item in enumerate(schema.static_categorical):
    level = static['categorical'][:, index]
    for position, category in enumerate(item.categories):
      columns[f'static/{item.itemid}={category}'] = np.where(
        level >= 0, level == position, np.nan
      )
  return columns
