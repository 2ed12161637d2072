"""From outputs to predictions: mean predictions and what is explained."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from medm2t_jax.models import link


def _members():
  return np.random.default_rng(0).normal(0, 3, size=(4, 5, 3)).astype(np.float32)


def test_the_ensemble_predicts_the_members_mean_probability():
  members = _members()
  found = special.softmax(np.asarray(link.ensemble_mean(members, 'softmax')), axis=-1)
  np.testing.assert_allclose(found, special.softmax(members, axis=-1).mean(0), rtol=1e-5)
  found = special.expit(np.asarray(link.ensemble_mean(members, 'sigmoid')))
  np.testing.assert_allclose(found, special.expit(members).mean(0), rtol=1e-5)
  numbers = members[..., :1]
  found = link.ensemble_mean(numbers, 'identity')
  np.testing.assert_allclose(found, numbers.mean(0), rtol=1e-6)


def test_certain_members_have_finite_log_odds():
  members = np.array([[[300.0]], [[-300.0]], [[300.0]]], np.float32)
  found = float(link.ensemble_mean(members, 'sigmoid')[0, 0])
  np.testing.assert_allclose(found, special.logit(2 / 3), rtol=1e-5)


def test_what_is_improbable_has_a_gradient():
  outputs, chosen = jnp.array([[0.0, -200.0, -150.0]]), jnp.array([[False, True, False]])
  gradient = jax.grad(lambda x: link.explained(x, chosen, 'softmax').sum())(outputs)
  np.testing.assert_array_equal(gradient, [[-1, 1, 0]])


def test_only_class_scores_are_normalized():
  outputs = _members()[0]
  found = link.normalized(outputs, 'softmax')
  np.testing.assert_allclose(found, special.log_softmax(outputs, axis=-1), rtol=1e-5)
  for name in ('sigmoid', 'identity'):
    np.testing.assert_array_equal(link.normalized(outputs, name), outputs)


def test_what_is_explained():
  outputs = _members()[0]
  chosen = np.zeros(outputs.shape, bool)
  chosen[:, 1] = True
  of = lambda name, which=chosen: np.asarray(link.explained(outputs, which, name))
  np.testing.assert_allclose(of('softmax'), outputs[:, 1] - outputs[:, 0], rtol=1e-5)
  np.testing.assert_array_equal(of('sigmoid'), outputs[:, 1])
  np.testing.assert_array_equal(of('identity'), outputs[:, 0])
  others = np.broadcast_to([False, True, True], outputs.shape)
  expected = special.logsumexp(outputs[:, 1:], axis=1) - outputs[:, 0]
  np.testing.assert_allclose(of('softmax', others), expected, rtol=1e-5)
