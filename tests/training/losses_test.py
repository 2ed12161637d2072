"""Losses and their gradients against torch, optax and closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy import optimize, special
from torch import nn

from data_pipeline.format.schema import DataError, Target
from medm2t_jax.experiment import Recipe
from medm2t_jax.experiment.validation import require_recipe
from medm2t_jax.targets import losses as losses_of
from medm2t_jax.training import losses

CLASSES = Target('multiclass', ('a', 'b', 'c', 'd'))
DAYS = Target('regression', unit='days', low=0.0)


def recipe(**changes):
  return Recipe(8, 1e-3, **changes)


def _case():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(17, 4)).astype(np.float32)
  label = rng.integers(0, 4, 17)
  return logits, label


def _days():
  rng = np.random.default_rng(1)
  days = rng.normal(3, 4, size=(40, 1)).astype(np.float32)  # some are below 0
  return days, rng.exponential(4, 40).astype(np.float32)


def against_torch(loss, oracle, outputs, label):
  """Values and gradients of the summed loss."""
  inputs = torch.tensor(outputs, requires_grad=True)
  expected = oracle(inputs)
  expected.sum().backward()
  np.testing.assert_allclose(loss(outputs, label), expected.detach(), rtol=1e-4, atol=1e-6)
  found = jax.grad(lambda x: loss(x, label).sum())(outputs)
  np.testing.assert_allclose(found, inputs.grad, rtol=1e-4, atol=1e-6)


def test_weighted_nll_is_torchs_cross_entropy():
  logits, label = _case()
  class_weights = (0.1, 0.9, 0.5, 2.0)
  loss = losses.make_loss(recipe(class_weights=class_weights), CLASSES)
  target = label.astype(np.float32)
  total, weight = losses.weighted_sum(
    loss.each(logits, target), loss.weigh(target, np.ones(17, np.float32))
  )
  expected = nn.functional.cross_entropy(
    torch.tensor(logits), torch.tensor(label), torch.tensor(class_weights)
  )
  np.testing.assert_allclose(total / weight, expected.numpy(), rtol=1e-5)


@pytest.mark.parametrize('name', ['squared', 'absolute', 'huber', 'log_squared'])
def test_losses_in_days_are_torchs(name):
  days, label = _days()
  target = torch.tensor(label)
  signed_log = lambda x: torch.sign(x) * torch.log1p(torch.abs(x))
  oracle = {
    'squared': lambda x: nn.functional.mse_loss(x[:, 0], target, reduction='none'),
    'absolute': lambda x: nn.functional.l1_loss(x[:, 0], target, reduction='none'),
    'huber': lambda x: nn.functional.huber_loss(
      x[:, 0], target, reduction='none', delta=1.5
    ),
    'log_squared': lambda x: (signed_log(x[:, 0]) - torch.log1p(target)) ** 2,
  }[name]
  loss = losses.make_loss(recipe(loss=name, huber_delta=1.5), DAYS)
  against_torch(loss.each, oracle, days, label)


def test_a_log_scale_prediction_below_zero_is_lifted():
  slope = jax.grad(lambda x: losses_of.log_squared(x, jnp.ones(3)).sum())
  days = np.array([[-0.5], [-3.0], [-100.0]], np.float32)
  assert (slope(days) < 0).all()


def test_the_log_scale_loss_is_least_at_the_geometric_mean_of_one_plus_days():
  _, label = _days()
  grid = np.linspace(0, 10, 2001, dtype=np.float32)
  at = lambda x: losses_of.log_squared(jnp.full((40, 1), x), label).mean()
  curve = jax.vmap(at)(grid)
  expected = np.exp(np.log1p(label).mean()) - 1
  assert abs(grid[np.argmin(curve)] - expected) < 0.01


def _fitted_probabilities(table, stage_recipe):
  """What the loss leads to, with one free logit pair for every column of a count table.

  Args:
    table: (classes, columns) numbers of samples.
    stage_recipe: the loss and class weights.
  """
  classes, columns = table.shape
  label, column = (index.ravel() for index in np.indices(table.shape))
  label = label.astype(np.float32)
  target = Target('binary', tuple('ab'[:classes]))
  loss = losses.make_loss(stage_recipe, target)

  @jax.jit
  def mean(logits):
    total, weight = losses.weighted_sum(
      loss.each(logits.reshape(columns, classes)[column], label),
      loss.weigh(label, table.ravel().astype(np.float32)),
    )
    return total / weight

  found = optimize.minimize(
    lambda x: [np.float64(part) for part in jax.value_and_grad(mean)(jnp.asarray(x, 'f4'))],
    np.zeros(table.size),
    jac=True,
    options={'gtol': 1e-6},
  )
  return special.softmax(found.x.reshape(columns, classes), axis=1)[:, 1]


def test_prior_correction_recovers_calibrated_probabilities():
  # Three groups with 10, 20 and 50 % of the rare class.
  table = np.array([[90, 160, 50], [10, 40, 50]])
  weights = {'class_weights': (0.1, 0.9)}
  share = table[1] / table.sum(axis=0)
  weighted = table * np.array(weights['class_weights'])[:, None]
  shifted = weighted[1] / weighted.sum(axis=0)
  corrected = _fitted_probabilities(table, recipe(prior_correction=True, **weights))
  np.testing.assert_allclose(corrected, share, atol=1e-3)
  # Without it: those of a population in which the rare class is nine times as common.
  np.testing.assert_allclose(
    _fitted_probabilities(table, recipe(**weights)), shifted, atol=1e-3
  )
  assert (shifted - share).min() > 0.3


@pytest.mark.parametrize(
  ('changes', 'target', 'message'),
  [
    ({'loss': 'squared'}, CLASSES, 'known: nll'),
    ({'loss': 'nll'}, DAYS, 'absolute, squared, huber, log_squared'),
    ({'loss': 'nlll'}, CLASSES, "'nlll'"),
    ({'class_weights': (0.1, 0.9)}, CLASSES, '4 classes'),
    ({'loss': 'squared', 'class_weights': (1.0,)}, DAYS, 'no classes'),
    ({'prior_correction': True}, CLASSES, 'prior_correction'),
  ],
)
def test_losses_that_do_not_suit_are_refused(changes, target, message):
  with pytest.raises(DataError, match=rf'config\.recipe\.labs.*{message}'):
    require_recipe(recipe(**changes), target, 'labs')


def test_padding_has_no_part_even_when_its_loss_is_not_finite():
  logits, label = _case()
  label = label.astype(np.float32)
  weight = np.ones(17, np.float32)
  expected = losses.weighted_sum(losses_of.nll(logits, label), weight)
  padded = np.concatenate([losses_of.nll(logits, label), [np.nan, np.inf]]).astype(
    np.float32
  )
  found = losses.weighted_sum(padded, np.append(weight, [0, 0]).astype(np.float32))
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_members_together_count_as_much_as_what_stands_beside_them():
  logits, label = _case()
  label = label.astype(np.float32)
  heads = np.stack([logits, -logits, 2 * logits, 0.5 * logits])
  found = jax.jit(lambda x: losses.of_heads(losses_of.nll, x, label, members=3))(heads)
  each = [np.asarray(losses_of.nll(head, label)) for head in heads]
  np.testing.assert_allclose(found, (np.mean(each[:3], axis=0) + each[3]) / 2, rtol=1e-5)
  alone = losses.of_heads(losses_of.nll, heads[:3], label, members=3)
  np.testing.assert_allclose(alone, np.mean(each[:3], axis=0), rtol=1e-5)
