"""Chunks: fitted on training samples alone, neutral where nothing is known."""

from __future__ import annotations

import itertools

import jax
import numpy as np

from medm2t_jax.modalities.columns import fit_columns
from medm2t_jax.models.trunk.chunks import PIECES, SIZE, Chunks
from medm2t_jax.models.trunk.columns import StaticColumns


def chunks_of(value, known, fitted, gate=None):
  """Chunks of a table of numbers, by the module."""
  arrays = {
    'numeric': value,
    'numeric_mask': known,
    'categorical': np.zeros((len(value), 0), np.int32),
  }
  if gate is not None:
    arrays |= {'numeric_gate': gate, 'categorical_gate': arrays['categorical'] * 1.0}
  module = Chunks(StaticColumns(value.shape[1], ()))
  cast = {
    name: array if array.dtype == bool else array.astype(np.float32)
    for name, array in fitted.items()
  }
  return np.asarray(
    jax.jit(lambda given: module.apply({'fitted': cast}, given, len(value)))(arrays)
  )


def table(seed=0, rows=400):
  rng = np.random.default_rng(seed)
  value = rng.lognormal(size=(rows, 4)).astype(np.float32)
  value[:, 2] = rng.integers(0, 2, rows)  # a category, one-hot
  known = rng.random(value.shape) < [1.0, 0.7, 0.99, 0.0]
  return np.where(known, value, 0), known


def filled(x, knots):
  """How far a number has filled each piece between the knots."""
  return [
    min(max((x - low) / (high - low), 0), 1) if high > low else 0
    for low, high in itertools.pairwise(knots)
  ]


def test_a_chunk_equals_its_definition():
  value, known = table()
  fitted = fit_columns(np.where(known, value, np.nan))
  found = chunks_of(value, known, fitted)
  assert found.shape == (*value.shape, SIZE)
  for column in range(3):
    of_training = value[known[:, column], column].astype(np.float64)
    knots = np.quantile(of_training, np.linspace(0, 1, PIECES + 1)).astype(np.float32)
    for row in range(20):
      expected = np.zeros(SIZE)
      if known[row, column]:
        x = value[row, column]
        center = np.mean([filled(each, knots) for each in of_training], axis=0)
        expected[:PIECES] = np.array(filled(x, knots)) - center
        z = (x - of_training.mean()) / of_training.std()
        expected[PIECES] = 0.5 * np.clip(z, -5, 5)
        expected[PIECES + 1] = column == 1  # of the others nearly all are known
      np.testing.assert_allclose(found[row, column], expected, rtol=1e-4, atol=1e-5)


def test_what_no_training_sample_had_and_what_is_not_known_is_zero():
  value, known = table()
  fitted = fit_columns(np.where(known, value, np.nan))
  now_known = np.ones_like(known)
  found = chunks_of(value + 1, now_known, fitted)
  np.testing.assert_array_equal(found[:, 3], 0)
  assert np.abs(found[:, :3]).min(axis=1).max() > 0
  np.testing.assert_array_equal(chunks_of(value, ~now_known, fitted), 0)


def test_the_mean_chunk_of_training_samples_is_neutral():
  value, known = table()
  fitted = fit_columns(np.where(known, value, np.nan))
  content = chunks_of(value, known, fitted)[..., :PIECES]
  np.testing.assert_allclose(content.mean(axis=0), 0, atol=1e-5)


def test_a_closed_gate_leaves_that_something_was_known():
  value, known = table()
  fitted = fit_columns(np.where(known, value, np.nan))
  plain = chunks_of(value, known, fitted)
  gate = np.full(value.shape, 0.25, np.float32)
  found = chunks_of(value, known, fitted, gate)
  np.testing.assert_allclose(found[..., :-1], 0.25 * plain[..., :-1], rtol=1e-6)
  np.testing.assert_array_equal(found[..., -1], plain[..., -1])
