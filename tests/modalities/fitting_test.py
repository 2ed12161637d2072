"""Fitted state: against NumPy and pandas, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from data_pipeline.format.schema import Item
from medm2t_jax.modalities import fitting
from medm2t_jax.modalities.columns import piecewise_linear
from medm2t_jax.modalities.events import fit_events

_ITEMS = (
  Item('1', 'lactate', 'mmol/L'),
  Item('2', 'mostly zero'),
  Item('3', 'rhythm', categories=('SR', 'AF', 'VT')),
  Item('4', 'never measured'),
)


def _events(rng: np.random.Generator, n: int = 400) -> dict[str, np.ndarray]:
  item = rng.integers(0, 3, n).astype(np.int32)
  value = rng.lognormal(0, 1, n).astype(np.float32)
  value[(item == 1) & (rng.random(n) < 0.6)] = 0.0
  category = np.where(item == 2, rng.integers(0, 2, n), -1).astype(np.int32)
  value[item == 2] = 0.0
  return {'item': item, 'value': value, 'category': category}


def test_bins_are_those_of_pandas_cut():
  events = _events(np.random.default_rng(0))
  fitted = fit_events(**events, items=_ITEMS)
  for item in (0, 1):
    values = events['value'][events['item'] == item]
    knots = fitted['knots'][item]
    edges = np.unique(np.percentile(values, np.arange(5, 100, 10)).astype(np.float32))
    expected = pd.cut(values, [-np.inf, *edges, np.inf], labels=False)
    found = (values[:, None] > knots[1:-1]).sum(axis=1)
    np.testing.assert_array_equal(found, expected)


def test_zero_inflated_item_keeps_its_cut_at_zero():
  events = _events(np.random.default_rng(1))
  knots = fit_events(**events, items=_ITEMS)['knots'][1]
  assert knots[0] == knots[1] == 0 < knots[2]


def test_piecewise_linear_is_a_thermometer():
  knots = np.array([0.0, 1.0, 1.0, 3.0])
  found = piecewise_linear(np.array([-5.0, 0.5, 1.0, 2.0, 9.0]), knots)
  expected = [[0, 0, 0], [0.5, 0, 0], [1, 0, 0], [1, 0, 0.5], [1, 0, 1]]
  np.testing.assert_allclose(found, expected)


def test_encoding_mean_centres_the_training_values():
  events = _events(np.random.default_rng(2))
  fitted = fit_events(**events, items=_ITEMS)
  values = events['value'][events['item'] == 0]
  centred = piecewise_linear(values, fitted['knots'][0]) - fitted['encoding_mean'][0]
  np.testing.assert_allclose(centred.mean(axis=0), 0, atol=1e-9)


def test_only_what_was_seen_counts_as_seen():
  fitted = fit_events(**_events(np.random.default_rng(3)), items=_ITEMS)
  np.testing.assert_array_equal(fitted['item_seen'], [True, True, True, False])
  np.testing.assert_array_equal(fitted['category_seen'][2], [True, True, False])
  assert not fitted['category_seen'][[0, 1, 3]].any()


def test_collection_follows_what_modules_declare():
  statistics = {
    'decoder': {'offset': np.zeros(2)},
    'vitals': {'center': np.ones(8)},
    'vitals_categorical': {'time_cuts': np.arange(23.0)},
  }
  declared = {
    'encoders_vitals': {'micro': {'center': np.zeros(8, np.float32)}},
    'encoders_vitals_categorical': {'time_cuts': np.zeros(23, np.float32)},
    'decoders_vitals': {'offset': np.zeros(2, np.float32)},
  }
  collection = fitting.into_collection(statistics, declared)
  np.testing.assert_array_equal(
    collection['encoders_vitals']['micro']['center'], np.ones(8)
  )
  assert collection['encoders_vitals_categorical']['time_cuts'].dtype == np.float32
  with pytest.raises(ValueError, match='shape'):
    fitting.into_collection(statistics, {'encoders_vitals': {'center': np.zeros(7)}})
