"""Late addition: the prior, and what each part says beyond it."""

from __future__ import annotations

import jax
import numpy as np
from scipy import special

from medm2t_jax.models.link import normalized
from medm2t_jax.models.trunk.late_addition import LateAddition


def test_parts_are_added_to_the_prior():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, 6, 3)).astype(np.float32)
  parts = np.asarray(normalized(logits, 'softmax'))
  prior = special.log_softmax(np.array([2.0, 0.0, -1.0])).astype(np.float32)
  weights = np.array([0.9, 0.4], np.float32)
  variables = {'fitted': {'offset': prior, 'part_weights': weights}}
  module = LateAddition(outputs=3, parts=2, link='softmax')
  found = jax.jit(lambda x: module.apply(variables, x))(parts)
  scores = prior + 0.9 * (parts[0] - prior) + 0.4 * (parts[1] - prior)
  np.testing.assert_allclose(found, special.log_softmax(scores, axis=-1), atol=1e-5)
  # Parts that say no more than the prior leave it.
  same = np.broadcast_to(prior, (2, 6, 3))
  found = jax.jit(lambda x: module.apply(variables, x))(same)
  np.testing.assert_allclose(found, same[0], atol=1e-6)


def test_numbers_are_added_as_they_are():
  parts = np.array([[[3.0], [5.0]], [[4.0], [2.0]]], np.float32)
  fitted = {'offset': np.float32([4.0]), 'part_weights': np.float32([0.5, 1.0])}
  found = LateAddition(outputs=1, parts=2, link='identity').apply({'fitted': fitted}, parts)
  np.testing.assert_allclose(found, [[3.5], [2.5]])


def test_labels_are_added_as_log_odds():
  parts = np.array([[[3.0, -1.0]], [[4.0, 2.0]]], np.float32)
  fitted = {'offset': np.float32([4.0, 0.0]), 'part_weights': np.float32([0.5, 1.0])}
  module = LateAddition(outputs=2, parts=2, link='sigmoid')
  found = module.apply({'fitted': fitted}, parts)
  np.testing.assert_allclose(found, [[3.5, 1.5]])


def test_one_part_is_the_prediction():
  parts = np.ones((1, 4, 2), np.float32)
  fitted = {'offset': np.zeros(2, np.float32), 'part_weights': np.ones(1, np.float32)}
  found = LateAddition(outputs=2, parts=1, link='softmax').apply({'fitted': fitted}, parts)
  np.testing.assert_array_equal(found, parts[0])
