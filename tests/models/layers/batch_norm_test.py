"""BatchNorm against torch, across devices, and with few or no valid rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch

from medm2t_jax.models.layers.batch_norm import BatchNorm
from tests.support import oracle

RNG = np.random.default_rng(0)
X = RNG.normal(3, 2, (24, 5, 4)).astype(np.float32)
VARIABLES = {
  'params': {
    'scale': RNG.uniform(0.5, 2, 4).astype(np.float32),
    'bias': RNG.normal(size=4).astype(np.float32),
  },
  'batch_stats': {
    'mean': RNG.normal(size=4).astype(np.float32),
    'var': RNG.uniform(0.5, 2, 4).astype(np.float32),
  },
}


def train(x, mask, axis_name=None):
  apply = lambda p, x: BatchNorm(axis_name).apply(
    {**VARIABLES, 'params': p}, x, mask, train=True, mutable=['batch_stats']
  )

  def loss(params, x):
    y, new = apply(params, x)
    weight = jnp.arange(y.size, dtype=jnp.float32).reshape(y.shape) % 7
    valid = mask.reshape(-1, 1, 1)
    return jnp.sum(jnp.where(valid, weight * y**2, 0.0)), (y, new['batch_stats'])

  grads, (y, stats) = jax.grad(loss, (0, 1), has_aux=True)(VARIABLES['params'], x)
  return y, stats, grads


def test_valid_rows_match_torch_in_values_statistics_and_gradients():
  mask = np.arange(24) % 3 > 0
  y, stats, (grads, grad_x) = train(X, jnp.asarray(mask))
  norm = torch.nn.BatchNorm1d(4)
  with torch.no_grad():
    norm.weight.copy_(torch.tensor(VARIABLES['params']['scale']))
    norm.bias.copy_(torch.tensor(VARIABLES['params']['bias']))
    norm.running_mean.copy_(torch.tensor(VARIABLES['batch_stats']['mean']))
    norm.running_var.copy_(torch.tensor(VARIABLES['batch_stats']['var']))
  x = torch.tensor(X[mask], requires_grad=True)
  expected = norm(x.transpose(1, 2)).transpose(1, 2)
  weight = torch.arange(X.size).reshape(X.shape)[torch.tensor(mask)] % 7
  (weight * expected**2).sum().backward()
  oracle.assert_close(y[mask], expected.detach())
  oracle.assert_close(stats['mean'], norm.running_mean)
  oracle.assert_close(stats['var'], norm.running_var)
  oracle.assert_close(grads['scale'], norm.weight.grad)
  oracle.assert_close(grads['bias'], norm.bias.grad)
  oracle.assert_close(grad_x[mask], x.grad)
  assert not np.any(grad_x[~mask])


def test_running_statistics_are_used_in_evaluation():
  y = BatchNorm().apply(VARIABLES, X, jnp.ones(24, bool), train=False)
  stats, params = VARIABLES['batch_stats'], VARIABLES['params']
  expected = (X - stats['mean']) / np.sqrt(stats['var'] + 1e-5) * params['scale']
  np.testing.assert_allclose(y, expected + params['bias'], atol=1e-5)


def test_devices_with_unequal_and_no_valid_rows_agree_with_one():
  mask = np.zeros(24, bool)
  mask[[0, 1, 2, 3, 9, 10, 20]] = True
  one = train(X, jnp.asarray(mask))
  y, stats, (grads, grad_x) = jax.pmap(
    lambda x, m: train(x, m, 'devices'), axis_name='devices'
  )(X.reshape(8, 3, 5, 4), mask.reshape(8, 3))
  np.testing.assert_allclose(np.reshape(y, X.shape)[mask], one[0][mask], atol=1e-5)
  for name in ('mean', 'var'):
    for device in range(8):
      np.testing.assert_allclose(stats[name][device], one[1][name], rtol=1e-5)
  assert np.isfinite(grad_x).all()
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_no_valid_row_leaves_the_running_statistics_alone():
  y, stats, grads = train(X, jnp.zeros(24, bool))
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((y, grads)))
  for name, before in VARIABLES['batch_stats'].items():
    np.testing.assert_array_equal(stats[name], before)
