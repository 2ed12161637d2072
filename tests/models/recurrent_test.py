"""Bidirectional LSTM and GRU against torch with the same weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from medm2t_jax.models.recurrent import BidirectionalRecurrent
from tests import fake_batch

X = np.random.default_rng(0).normal(size=(3, 5, 6)).astype(np.float32)


def torch_twin(params, cell):
  twin = {'lstm': torch.nn.LSTM, 'gru': torch.nn.GRU}[cell](
    6, 4, num_layers=2, bidirectional=True, batch_first=True
  )
  state = {}
  for layer in range(2):
    weights = params[f'layer_{layer}']
    for direction, suffix in enumerate(('', '_reverse')):
      end = f'l{layer}{suffix}'
      state[f'weight_ih_{end}'] = weights['input_kernel'][direction].T
      state[f'weight_hh_{end}'] = weights['recurrent_kernel'][direction].T
      state[f'bias_ih_{end}'] = weights['bias'][direction]
      inner = np.zeros_like(weights['bias'][direction])
      if cell == 'gru':
        inner[8:] = weights['candidate_bias'][direction]
      state[f'bias_hh_{end}'] = inner
  twin.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
  return twin


@pytest.mark.parametrize('cell', ['lstm', 'gru'])
def test_outputs_readout_and_gradient_match_torch(cell):
  model = BidirectionalRecurrent(4, cell=cell)
  variables = fake_batch.variables(jax.eval_shape(model.init, jax.random.key(0), X))
  twin = torch_twin(variables['params'], cell)

  def loss(x):
    outputs, final = model.apply(variables, x)
    return jnp.sum(outputs**2) + jnp.sum(final), (outputs, final)

  gradient, (outputs, final) = jax.jit(jax.grad(loss, has_aux=True))(X)
  x = torch.tensor(X, requires_grad=True)
  expected, _ = twin(x)
  # Forward at the last window beside backward at the first.
  readout = torch.cat([expected[:, -1, :4], expected[:, 0, 4:]], dim=-1)
  ((expected**2).sum() + readout.sum()).backward()
  np.testing.assert_allclose(outputs, expected.detach(), atol=1e-5)
  np.testing.assert_allclose(final, readout.detach(), atol=1e-5)
  np.testing.assert_allclose(gradient, x.grad, atol=1e-5)
