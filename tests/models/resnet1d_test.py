"""ResNet1d against a plain torch implementation with the same weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from medm2t_jax.models.resnet1d import ResNet1d
from tests import fake_batch

PLAN = ((6, 16), (8, 8), (8, 2))
X = np.random.default_rng(0).normal(size=(4, 32, 3)).astype(np.float32)
MASK = np.array([True, True, True, False])


def plain_torch(x, params, kernel):
  """The network on valid rows, channels first, statistics of the batch."""

  def convolve(x, name, stride=1):
    weight = torch.tensor(np.transpose(params[name]['kernel'], (2, 1, 0)))
    pad = (weight.shape[-1] - stride + 1) // 2 if weight.shape[-1] > 1 else 0
    return functional.conv1d(x, weight, stride=stride, padding=pad)

  def normalise(x, name):
    scale, bias = (torch.tensor(params[name][leaf]) for leaf in ('scale', 'bias'))
    return functional.batch_norm(x, None, None, scale, bias, training=True)

  x = normalise(convolve(x, 'stem', 2), 'stem_norm')
  skip = x
  for index, (channels, length) in enumerate(PLAN):
    stride = x.shape[-1] // length
    x = convolve(x, f'unit_{index}_first')
    x = convolve(functional.relu(normalise(x, f'unit_{index}_first_norm')),
                 f'unit_{index}_second', stride)  # fmt: skip
    if stride > 1:
      skip = functional.max_pool1d(skip, stride)
    if skip.shape[1] != channels:
      skip = convolve(skip, f'unit_{index}_skip')
    skip = x + skip
    x = functional.relu(normalise(skip, f'unit_{index}_second_norm'))
  return x


@pytest.mark.parametrize('kernel', [3, 5])
def test_matches_plain_torch(kernel):
  model = ResNet1d(PLAN, kernel, 0.0)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), X, MASK, train=False))
  variables = fake_batch.variables(shapes)

  def loss(x):
    y, _ = model.apply(variables, x, MASK, train=True, mutable=['batch_stats'])
    return jnp.sum(jnp.where(MASK[:, None, None], y, 0) ** 2), y

  gradient, y = jax.jit(jax.grad(loss, has_aux=True))(X)
  x = torch.tensor(X[MASK], requires_grad=True)
  expected = plain_torch(x.transpose(1, 2), variables['params'], kernel).transpose(1, 2)
  (expected**2).sum().backward()
  assert y.shape == (4, 2, 8)
  np.testing.assert_allclose(y[MASK], expected.detach(), atol=2e-5)
  np.testing.assert_allclose(gradient[MASK], x.grad, atol=1e-4)


def test_a_plan_that_does_not_divide_is_refused():
  with pytest.raises(ValueError, match='lengths that divide'):
    ResNet1d(((4, 9),), 3, 0.0).init(jax.random.key(0), X, MASK, train=False)
