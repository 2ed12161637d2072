"""Losses of multilabel targets, against torch and optax."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy import special
from torch import nn

from data_pipeline.format.schema import DataError, Target
from medm2t_jax.experiment import Recipe
from medm2t_jax.experiment.validation import require_recipe
from medm2t_jax.training import losses

LABELS = Target('multilabel', ('shock', 'sepsis', 'stroke', 'pneumonia', 'arrest'))


def recipe(**changes):
  return Recipe(8, 1e-3, **changes)


def _labels():
  """Log odds and labels of which some are not known, one row without any."""
  rng = np.random.default_rng(2)
  log_odds = rng.normal(0, 2, size=(13, 5)).astype(np.float32)
  label = rng.integers(-1, 2, size=(13, 5)).astype(np.float32)
  label[3] = -1
  return log_odds, label


@pytest.mark.parametrize('weights', [(), (3.0, 0.5, 1.0, 2.0, 10.0)])
def test_the_loss_is_torchs_over_the_known_labels(weights):
  log_odds, label = _labels()
  truth, known = torch.tensor(label), torch.tensor(label >= 0)
  loss = losses.make_loss(recipe(class_weights=weights), LABELS)
  inputs = torch.tensor(log_odds, requires_grad=True)
  each = nn.functional.binary_cross_entropy_with_logits(
    inputs,
    truth.clamp(min=0),
    pos_weight=torch.tensor(weights) if weights else None,
    reduction='none',
  )
  expected = (each * known).sum(1) / known.sum(1).clamp(min=1)
  expected.sum().backward()
  found = loss.each(log_odds, label)
  np.testing.assert_allclose(found, expected.detach(), rtol=1e-4, atol=1e-6)
  slope = jax.grad(lambda x: loss.each(x, label).sum())(log_odds)
  np.testing.assert_allclose(slope, inputs.grad, rtol=1e-4, atol=1e-6)
  ones = np.ones(13, np.float32)
  np.testing.assert_array_equal(loss.weigh(label, ones), ones)


def test_with_prior_correction_the_optimum_is_the_share_whatever_a_label_weighs():
  loss = losses.make_loss(
    recipe(class_weights=(9.0,), prior_correction=True),
    Target('multilabel', ('sepsis',)),
  )
  label = np.repeat([[1.0], [0.0]], [20, 80], axis=0).astype(np.float32)
  slope = jax.grad(lambda x: loss.each(jnp.full((100, 1), x), label).mean())
  assert abs(slope(jnp.float32(special.logit(0.2)))) < 1e-6
  assert abs(slope(jnp.float32(0.0))) > 0.01


@pytest.mark.parametrize(
  ('changes', 'message'),
  [({'loss': 'squared'}, 'known: nll'), ({'class_weights': (1.0, 2.0)}, '5 classes')],
)
def test_what_labels_do_not_have_is_refused(changes, message):
  with pytest.raises(DataError, match=rf'config\.recipe\.labs.*{message}'):
    require_recipe(recipe(**changes), LABELS, 'labs')
