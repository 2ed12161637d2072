"""A data set's variables meet a model's by code and unit."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from data_pipeline.format.modalities import Events, Grid, Static, Waveform
from data_pipeline.format.modalities.base import found_in
from data_pipeline.format.modalities.waveform import ECG_MEASUREMENTS
from data_pipeline.format.schema import Item
from data_pipeline.reading.alignment import Alignment
from tests.support import fake_batch, kinds

MODEL = fake_batch.schema()
LABS = MODEL.modalities['labs'].items


def of_device(batch):
  return jax.tree.map(lambda array: np.asarray(array)[np.newaxis], batch)


def masked(batch):
  """The batch with zeros under false masks, and events in front, as it is read."""
  result = dict(batch)
  for name in kinds.events(MODEL):
    events = batch[name]
    order = np.argsort(~events['mask'], axis=-1, kind='stable')
    mask = np.take_along_axis(events['mask'], order, axis=-1)
    result[name] = {
      key: np.where(mask, np.take_along_axis(array, order, axis=-1), array.dtype.type(0))
      for key, array in events.items()
    } | {'mask': mask}
  grid = batch['vitals']
  value = np.where(grid['observed'], grid['value'], np.float32(0))
  return {**result, 'vitals': {**grid, 'value': value}}


@pytest.fixture
def batch():
  return masked(of_device(fake_batch.batch(6, seed=1)))


def test_the_same_variables_are_the_same_batch(batch):
  other = dataclasses.replace(MODEL, source='another', attributes=('age',))
  alignment = Alignment(MODEL, other)
  assert alignment(batch) is batch
  assert not alignment.ignored and not alignment.absent


def test_order_names_and_further_variables_do_not_matter(batch):
  """The same sample, as a data set with other dictionaries would have it."""
  new = Item('x', 'unknown here')
  labs = (new, *(dataclasses.replace(item, name='?') for item in reversed(LABS)))
  levels = {item.itemid: item.categories for item in LABS}
  labs = tuple(
    dataclasses.replace(item, categories=('new', *reversed(item.categories)))
    if item.categories
    else item
    for item in labs
  )
  signals = tuple(reversed(MODEL.modalities['vitals'].items))
  data = dataclasses.replace(
    MODEL,
    modalities={
      'more': Events((new,)),
      'labs': Events(labs),
      'vitals_categorical': MODEL.modalities['vitals_categorical'],
      'vitals': dataclasses.replace(MODEL.modalities['vitals'], items=signals),
      'ecg': Waveform((*reversed(MODEL.modalities['ecg'].terms), 'another')),
      'static': Static(
        tuple(reversed(MODEL.modalities['static'].numeric)),
        (Item('gender', 'sex', categories=('M', 'X', 'F')),),
      ),
    },
  )
  place = {item.itemid: at for at, item in enumerate(labs)}
  events = batch['labs']
  to_data = np.array([place[item.itemid] for item in LABS], np.int32)
  item = np.where(events['mask'], to_data[events['item']], 0).astype(np.int32)
  category = events['category'].copy()
  for at in np.argwhere(events['mask'] & (events['category'] >= 0)):
    known = levels[LABS[events['item'][tuple(at)]].itemid]
    category[tuple(at)] = len(known) - events['category'][tuple(at)]
  # An event that the model does not know stands before the others.
  first = lambda array, value: np.concatenate(
    [np.full_like(array[..., :1], value), array], axis=-1
  )
  seen = {
    **batch,
    'labs': {
      'item': first(item, 0),
      'value': first(events['value'], 7.0),
      'category': first(category, -1),
      'time': first(events['time'], -1.0),
      'mask': first(events['mask'], True),
    },
    'vitals': {key: array[..., ::-1] for key, array in batch['vitals'].items()},
    'static': {
      'numeric': batch['static']['numeric'][..., ::-1],
      'numeric_mask': batch['static']['numeric_mask'][..., ::-1],
      'categorical': np.array([2, 0, -1], np.int32)[batch['static']['categorical']],
    },
    'ecg': {
      **batch['ecg'],
      'terms': first(batch['ecg']['terms'], 1)[..., ::-1],
    },
  }
  alignment = Alignment(MODEL, data)
  found = alignment(seen)
  count = events['mask'].shape[-1]
  for name in MODEL.modalities:
    for key, array in batch[name].items():
      shown = found[name][key]
      if name == 'labs':
        assert not found[name]['mask'][..., count:].any()
        shown = shown[..., :count]
      np.testing.assert_array_equal(shown, array, err_msg=f'{name} {key}')
  reasons = {(one.modality, one.code): one.reason for one in alignment.ignored}
  assert reasons[('labs', 'x')] == 'the model has no such variable'
  assert reasons[('more', 'x')] == 'the model has no such modality'
  assert ('ecg', 'another') in reasons and not alignment.absent


def test_another_unit_is_not_the_same_variable(batch):
  items = (dataclasses.replace(LABS[0], unit='mg/dL'), *LABS[1:])
  model = kinds.changed(MODEL, 'labs', items=items)
  same = (dataclasses.replace(LABS[0], unit='MG / DL'), *LABS[1:])
  spelt = kinds.changed(MODEL, 'labs', items=same)
  assert not Alignment(model, spelt).absent
  other = (dataclasses.replace(LABS[0], unit='mmol/L'), *LABS[1:])
  data = kinds.changed(MODEL, 'labs', items=other)
  alignment = Alignment(model, data)
  (absent,), (ignored,) = alignment.absent, alignment.ignored
  assert absent.code == ignored.code == LABS[0].itemid
  assert 'mmol/L' in absent.reason and 'mg/dL' in absent.reason
  assert (batch['labs']['item'][batch['labs']['mask']] == 0).any()
  found = alignment(batch)['labs']
  assert not (found['item'][found['mask']] == 0).any()


def test_an_absent_modality_is_masked(batch):
  data = MODEL.only(('static', 'labs'))
  alignment = Alignment(MODEL, data)
  assert alignment.modalities == ('static', 'labs')
  given = {name: batch[name] for name in ('label', 'weight', 'row', 'static', 'labs')}
  found = alignment(given)
  has = dict(found_in(MODEL.modalities, found))
  for name in ('vitals', 'vitals_categorical', 'ecg'):
    assert not has[name].any()
    for key, array in found[name].items():
      assert array.dtype == batch[name][key].dtype
      assert array.ndim == batch[name][key].ndim, f'{name} {key}'
  assert {one.modality for one in alignment.absent} == {
    'vitals', 'vitals_categorical', 'ecg'
  }  # fmt: skip


def test_grids_meet_at_the_prediction_time(batch):
  grid = MODEL.modalities['vitals']
  short = kinds.changed(MODEL, 'vitals', steps=100)
  last = {key: array[:, :, -100:] for key, array in batch['vitals'].items()}
  found = Alignment(MODEL, short)({**batch, 'vitals': last})['vitals']
  np.testing.assert_array_equal(found['value'][:, :, -100:], last['value'])
  assert not found['observed'][:, :, :-100].any()
  cut = Alignment(short, MODEL)(batch)['vitals']
  np.testing.assert_array_equal(cut['value'], last['value'])
  coarse = kinds.replaced(MODEL, vitals=Grid(grid.items, 24, 1.0))
  alignment = Alignment(MODEL, coarse)
  assert len(alignment.absent) == len(grid.items)
  assert 'steps of 1 h' in alignment.absent[0].reason


def test_found_is_what_a_sample_has(batch):
  """A slow oracle, row by row."""
  has = dict(found_in(MODEL.modalities, batch))
  rows = np.flatnonzero(batch['row'][0] >= 0)
  events, ecg = batch['labs'], batch['ecg']
  for at, row in enumerate(rows):
    items = {int(item) for item in events['item'][0, row][events['mask'][0, row]]}
    assert set(np.flatnonzero(has['labs'][at])) == items
    measured = np.zeros(len(ECG_MEASUREMENTS), bool)
    reported = np.zeros(len(MODEL.modalities['ecg'].terms), bool)
    for slot in np.flatnonzero(ecg['mask'][0] & (ecg['owner'][0] == row)):
      measured |= ecg['measurements_mask'][0, slot]
      reported |= ecg['terms'][0, slot] > 0
    np.testing.assert_array_equal(has['ecg'][at], np.concatenate([measured, reported]))
    np.testing.assert_array_equal(
      has['vitals'][at], batch['vitals']['observed'][0, row].any(axis=0)
    )
