"""A bidirectional LSTM against torch with the same weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch

from medm2t_jax.inference import torch_import
from medm2t_jax.models.layers.recurrent import BidirectionalRecurrent
from tests.support import oracle

X = np.random.default_rng(0).normal(size=(3, 5, 6)).astype(np.float32)


def test_outputs_readout_and_gradients_match_torch():
  torch.manual_seed(0)
  twin = torch.nn.LSTM(6, 4, num_layers=2, bidirectional=True, batch_first=True)
  variables = torch_import.recurrent(oracle.arrays(twin), '')
  model = BidirectionalRecurrent(4)
  shapes = jax.eval_shape(model.init, jax.random.key(0), X)
  assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, shapes)

  def loss(variables, x):
    outputs, final = model.apply(variables, x)
    return jnp.sum(outputs**2) + jnp.sum(final), (outputs, final)

  gradients, (outputs, final) = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(variables, X)
  x = torch.tensor(X, requires_grad=True)
  expected, _ = twin(x)
  # Forward at the last window beside backward at the first.
  readout = torch.cat([expected[:, -1, :4], expected[:, 0, 4:]], dim=-1)
  ((expected**2).sum() + readout.sum()).backward()
  oracle.assert_close(outputs, expected.detach())
  oracle.assert_close(final, readout.detach())
  oracle.assert_close(gradients[1], x.grad)
  for layer in range(2):
    for direction, suffix in enumerate(('', '_reverse')):
      ours = gradients[0]['params'][f'layer_{layer}']
      of_torch = lambda kind, end=f'l{layer}{suffix}': getattr(twin, f'{kind}_{end}').grad
      oracle.assert_close(ours['input_kernel'][direction].T, of_torch('weight_ih'))
      oracle.assert_close(ours['recurrent_kernel'][direction].T, of_torch('weight_hh'))
      oracle.assert_close(ours['bias'][direction], of_torch('bias_ih'))
