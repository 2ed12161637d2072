"""Losses against torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from medm2t_jax import losses


def _case():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(17, 4)).astype(np.float32)
  label = rng.integers(0, 4, 17)
  return logits, label


def test_weighted_nll_is_torchs_cross_entropy():
  logits, label = _case()
  class_weights = (0.1, 0.9, 0.5, 2.0)
  total, weight = losses.weighted_sum(
    losses.nll(logits, label.astype(np.float32)),
    label,
    np.ones(17, np.float32),
    class_weights,
  )
  expected = nn.functional.cross_entropy(
    torch.tensor(logits), torch.tensor(label), torch.tensor(class_weights)
  )
  np.testing.assert_allclose(total / weight, expected.numpy(), rtol=1e-5)


def test_errors_in_days_are_torchs():
  rng = np.random.default_rng(1)
  days = rng.normal(size=(9, 1)).astype(np.float32)
  label = rng.exponential(4, 9).astype(np.float32)
  for loss, oracle in ((losses.squared, nn.MSELoss()), (losses.absolute, nn.L1Loss())):
    total, weight = losses.weighted_sum(
      loss(days, label), label, np.ones(9, np.float32), ()
    )
    expected = oracle(torch.tensor(days[:, 0]), torch.tensor(label))
    np.testing.assert_allclose(total / weight, expected.numpy(), rtol=1e-5)


def test_padding_has_no_part_even_when_its_loss_is_not_finite():
  logits, label = _case()
  weight = np.ones(17, np.float32)
  expected = losses.weighted_sum(losses.nll(logits, label), label, weight, ())
  padded = np.concatenate([losses.nll(logits, label), [np.nan, np.inf]]).astype(np.float32)
  found = losses.weighted_sum(
    padded, np.append(label, [0, 0]), np.append(weight, [0, 0]).astype(np.float32), ()
  )
  np.testing.assert_allclose(found, expected, rtol=1e-6)
