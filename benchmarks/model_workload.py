"""Synthetic batches with the paper's numbers of events and recordings.

Mortality and LOS: 88 laboratory events and 28 categorical vitals in 24 h, an ECG in 47 %
of the stays, 1.35 recordings each. CVD: every sample has an ECG, 1.7 recordings each.
PhysioNet 2012: 430 events in 48 h, no ECG. The values are random, because times do not
depend on them.
"""

from __future__ import annotations

import zlib
from typing import Any

import jax
import numpy as np

from configs import common
from data_pipeline.ecg.report_terms import terms
from data_pipeline.format.modalities import Events, Grid, Modality, Static, Waveform
from data_pipeline.format.modalities.waveform import ECG_MEASUREMENTS
from data_pipeline.format.schema import Item, Schema, Target
from data_pipeline.sources.common.items import items, static_items

Batch = dict[str, Any]

EVENTS = {'labs': 88, 'vitals_categorical': 28, 'events': 430}  # on average
# The first bucket of the configs that holds this number of events.
PADDED_EVENTS = {'labs': 128, 'vitals_categorical': 64, 'events': 512}
ECG_SHARE = {'cvd': 1.0, 'mortality': 0.47, 'los': 0.47}
RECORDINGS = {'cvd': 1.7, 'mortality': 1.35, 'los': 1.35}  # of those who have any
ECG_STAGE_ROWS = 48  # rows of the stages of single recordings: 65 or 82 recordings
SEGMENT_STAGE_ROWS = 8
SAMPLE_ROWS = common.ENSEMBLE_RECIPE['batch_size']
SAMPLES = 1250


def schema(task: str) -> Schema:
  """The schema of MIMIC-IV for this task, or that of 'physionet2012'."""
  if task == 'physionet2012':
    from data_pipeline.sources import physionet2012  # it imports DuckDB

    return physionet2012.schema('mortality')
  icu = task != 'cvd'
  static = static_items('icu' if icu else 'core')
  target = {
    'cvd': Target('multiclass', ('none', 'CHD', 'stroke', 'HF')),
    'mortality': Target('binary', ('survived', 'died')),
    'los': Target('regression', unit='days', low=0.0),
  }[task]
  modalities: dict[str, Modality] = {
    'static': Static(
      tuple(item for item in static if not item.categories),
      tuple(item for item in static if item.categories),
    ),
    'labs': Events(items('labs' if icu else 'cvd_labs')),
  }
  if icu:
    modalities['vitals_categorical'] = Events(items('vitals_categorical'))
    modalities['vitals'] = Grid(items('vitals'), 240, 0.1)
  return Schema(
    task=task,
    source='mimic_iv',
    target=target,
    modalities={**modalities, 'ecg': Waveform(tuple(terms()))},
    attributes=(),
    observation_hours=24.0 if icu else None,
  )


def rows_of(stage: str) -> int:
  """Batch size of a stage."""
  if stage.startswith('ecg_'):
    return ECG_STAGE_ROWS
  return SEGMENT_STAGE_ROWS if '_segments_' in stage else SAMPLE_ROWS


def batch(task: str, stage: str, rows: int, capacity: float, events: float = 1.0) -> Batch:
  """A batch of docs/design.md, "The batch", without the device axis.

  Args:
    task: of `schema`.
    stage: an ECG stage has a recording in every row.
    rows: batch size, without padding.
    capacity: capacity for packed recordings, per real recording.
    events: factor on the numbers of events.
  """
  rng = np.random.default_rng(0)
  names = schema(task)
  outputs = names.target.outputs
  days = rng.exponential(4, rows)
  label = rng.integers(outputs, size=rows) if outputs > 1 else days
  made: Batch = {
    'label': label.astype(np.float32),
    'weight': np.ones(rows, np.float32),
    'row': np.arange(rows, dtype=np.int32),
  }
  for name, each in names.modalities.items():
    if isinstance(each, Static):
      made[name] = _static(rng, each, rows)
    elif isinstance(each, Events):
      mean, padded = (round(events * of[name]) for of in (EVENTS, PADDED_EVENTS))
      made[name] = _events(rng, each.items, rows, mean, padded)
    elif isinstance(each, Grid):
      observed = rng.random((rows, each.steps, len(each.items))) < 0.15
      value = rng.normal(0, 2, observed.shape).astype(np.float32) * observed
      made[name] = {'value': value, 'observed': observed}
    elif isinstance(each, Waveform):
      share = ECG_SHARE[task] if stage == 'multimodal' else 1.0
      owners = np.arange(max(1, round(share * rows)))
      extra = round((RECORDINGS[task] - 1) * len(owners))
      owner = np.sort(np.concatenate([owners, rng.choice(owners, extra)])).astype(np.int32)
      made[name] = _ecg(rng, len(each.terms), owner, round(capacity * len(owner)))
  return made


def fitted(collection: Batch) -> Batch:
  """Plausible values for a `fitted` collection of the same tree and shapes.

  A variable has the same values in every stage that declares it.
  """

  def value(path: Any, leaf: Any) -> np.ndarray:
    where = jax.tree_util.keystr(path, simple=True, separator='/')
    name, shape = where.rpartition('/')[2], np.shape(leaf)
    rng = np.random.default_rng(zlib.crc32(where.encode()))
    if name.endswith(('_seen', '_flagged')):
      return np.ones(shape, bool)
    if name == 'output_scale':  # 1 for classes, and for days
      return np.ones(shape, np.float32)
    if name == 'time_cuts':
      made = np.linspace(-24, 0, shape[0] + 2)[1:-1]
    elif name.endswith('knots'):
      made = np.sort(rng.normal(0, 1.5, shape), axis=-1)
    elif name.endswith('scale'):
      made = rng.uniform(0.5, 2, shape)
    elif name.endswith(('center', 'offset')):
      made = rng.normal(0, 0.5, shape)
    else:  # means of thermometers, weights of parts
      made = rng.uniform(0.2, 0.8, shape)
    return made.astype(np.float32)

  return jax.tree_util.tree_map_with_path(value, collection)


def _static(rng: np.random.Generator, static: Static, rows: int) -> Batch:
  mask = rng.random((rows, len(static.numeric))) < 0.9
  numeric = rng.normal(0, 1, mask.shape) * mask
  levels = np.array([len(column.categories) for column in static.categorical])
  return {
    'numeric': numeric.astype(np.float32),
    'numeric_mask': mask,
    'categorical': rng.integers(0, levels, (rows, len(levels))).astype(np.int32),
  }


def _events(
  rng: np.random.Generator, variables: tuple[Item, ...], rows: int, mean: int, length: int
) -> Batch:
  used = rng.integers(2 * mean - length, length + 1, rows)
  mask = np.arange(length) < used[:, np.newaxis]
  counts = np.array([len(item.categories) for item in variables])
  item = rng.integers(len(variables), size=(rows, length))
  text = counts[item] > 0
  category = np.where(text, rng.integers(0, 2, item.shape), -1)
  value = np.where(text, 0, rng.normal(0, 2, item.shape))
  time = np.sort(rng.uniform(-24, 0, item.shape), axis=1)
  keep = lambda x, dtype: np.where(mask, x, 0).astype(dtype)
  return {
    'item': keep(item, np.int32),
    'value': keep(value, np.float32),
    'category': keep(category, np.int32),
    'time': keep(time, np.float32),
    'mask': mask,
  }


def _ecg(rng: np.random.Generator, terms: int, owner: np.ndarray, capacity: int) -> Batch:
  real, padding = len(owner), capacity - len(owner)
  pad = lambda x: np.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1))
  measured = rng.random((real, len(ECG_MEASUREMENTS))) < 0.9
  values = rng.normal(0, 1, measured.shape) * measured
  return {
    'signal': pad(rng.integers(-500, 500, (real, SAMPLES, 12)).astype(np.int16)),
    'gain': pad(np.full(real, 200, np.float32)),
    'time': pad(rng.uniform(-24, 0, real).astype(np.float32)),
    'measurements': pad(values.astype(np.float32)),
    'measurements_mask': pad(measured),
    'terms': pad((rng.random((real, terms)) < 0.03).astype(np.uint8)),
    'owner': pad(owner),
    'mask': pad(np.ones(real, bool)),
  }
