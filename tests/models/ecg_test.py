"""Owner pooling, the report's mean embedding, scaling and crop of the signal."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from medm2t_jax.models.ecg import (
  EcgEncoder,
  FeaturesView,
  TextView,
  pool_by_owner,
)
from tests.support import fake_batch

CONFIG = fake_batch.config().modality('ecg').config
ECG = fake_batch.batch(samples=1250)['ecg']
VALID = np.array([True] * 5 + [False])


def test_pooling_takes_the_mean_of_each_owner_and_window():
  rng = np.random.default_rng(0)
  vectors = rng.normal(size=(9, 4)).astype(np.float32)
  owner = np.array([2, 0, 2, 2, 0, 3, 3, 0, 0])
  window = np.array([1, 0, 1, 0, 1, 1, 1, 1, 0])
  mask = np.array([True] * 7 + [False] * 2)
  pooled, count = pool_by_owner(
    jnp.asarray(vectors), jnp.asarray(owner), jnp.asarray(window), jnp.asarray(mask), 4, 2
  )
  for row in range(4):
    for one in range(2):
      members = mask & (owner == row) & (window == one)
      assert float(count[row, one]) == members.sum()
      expected = vectors[members].mean(axis=0) if members.any() else np.zeros(4)
      np.testing.assert_allclose(pooled[row, one], expected, atol=1e-6)


def test_report_is_the_mean_of_seen_terms():
  view = TextView(dataclasses.replace(CONFIG, text_mlp=()))
  mask = ECG['mask']
  shapes = jax.eval_shape(
    lambda: view.init(jax.random.key(0), ECG, mask, train=False, attend_over='summary')
  )
  variables = fake_batch.variables(shapes)
  variables['fitted']['term_seen'][2] = False
  out = view.apply(variables, ECG, mask, train=False, attend_over='summary')
  table = variables['params']['term_table']
  for m in range(len(mask)):
    terms = [t for t in np.flatnonzero(ECG['terms'][m]) if t != 2]
    assert out.present[m] == bool(mask[m] and terms)
    if terms:
      np.testing.assert_allclose(out.summary[m], table[terms].mean(axis=0), atol=1e-5)


def test_an_absent_measurement_has_no_influence():
  view = FeaturesView(CONFIG)
  run = lambda ecg: view.apply(
    variables, ecg, ecg['mask'], train=False, attend_over='summary'
  )
  shapes = jax.eval_shape(
    lambda: view.init(
      jax.random.key(0), ECG, ECG['mask'], train=False, attend_over='summary'
    )
  )
  variables = fake_batch.variables(shapes)
  sentinel = np.where(ECG['measurements_mask'], ECG['measurements'], 29999)
  other = run({**ECG, 'measurements': sentinel.astype(np.float32)})
  np.testing.assert_array_equal(other.summary, run(ECG).summary)
  assert not other.present[0]  # The first recording has no measurement at all.


def test_signal_is_read_in_millivolts_from_the_middle():
  config = dataclasses.replace(CONFIG, signal_plan=((4, 20),), signal_mlp=6)
  encoder = EcgEncoder(config)
  shapes = jax.eval_shape(
    lambda: encoder.init(
      jax.random.key(0), 'signal', ECG, VALID, train=False, method='view'
    )
  )
  variables = fake_batch.variables(shapes)
  run = jax.jit(
    lambda ecg: encoder.apply(variables, 'signal', ecg, VALID, train=False, method='view')
  )
  scaled = {**ECG, 'signal': ECG['signal'] * np.int16(2), 'gain': ECG['gain'] * 2}
  edges = ECG['signal'].copy()
  edges[:, :305], edges[:, 945:] = 1000, 1000
  for other in (scaled, {**ECG, 'signal': edges}):
    np.testing.assert_allclose(run(other).summary, run(ECG).summary, atol=1e-5)
