"""Attention against torch with the same weights, with masks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from medm2t_jax.inference import torch_import
from medm2t_jax.models.layers.attention import CrossAttentionBlock, MultiHeadAttention
from tests.support import fake_batch, oracle

RNG = np.random.default_rng(0)
TOKENS = RNG.normal(size=(3, 5, 8)).astype(np.float32)
MASK = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 1]], bool)


class TorchBlock(torch.nn.Module):
  """The cross attention block as torch users write it."""

  def __init__(self):
    super().__init__()
    self.mha = torch.nn.MultiheadAttention(8, 4, batch_first=True)
    self.norm1 = torch.nn.LayerNorm(8, eps=1e-6)
    self.fc1, self.fc2 = torch.nn.Linear(8, 32), torch.nn.Linear(32, 8)
    self.norm2 = torch.nn.LayerNorm(8, eps=1e-6)
    for parameter in self.parameters():  # biases and norms too
      torch.nn.init.normal_(parameter, std=0.4)

  def forward(self, query, tokens, mask):
    attended, _ = self.mha(query, tokens, tokens, key_padding_mask=~mask)
    h = self.norm1(query + attended)
    y = self.fc2(torch.nn.functional.leaky_relu(self.fc1(h), 0.01))
    return self.norm2(h + y)


def query_of(steps):
  return np.random.default_rng(steps).normal(size=(3, steps, 8)).astype(np.float32)


def leaves(*arrays):
  return [torch.tensor(array, requires_grad=True) for array in arrays]


# One query takes another order of the products than several.
@pytest.mark.parametrize('steps', [1, 3])
def test_attention_matches_torch(steps):
  torch.manual_seed(steps)
  twin = TorchBlock().mha
  variables = torch_import.attention(oracle.arrays(twin), '', heads=4)
  model = MultiHeadAttention(4)
  loss = lambda v, q, t: jnp.sum(model.apply(v, q, t, MASK) ** 2)
  query = query_of(steps)
  gradients = jax.jit(jax.grad(loss, (0, 1, 2)))(variables, query, TOKENS)
  q, t = leaves(query, TOKENS)
  expected, weights = twin(
    q, t, t, key_padding_mask=torch.tensor(~MASK), average_attn_weights=False
  )
  (expected**2).sum().backward()
  out, state = model.apply(variables, query, TOKENS, MASK, mutable=['intermediates'])
  oracle.assert_close(out, expected.detach())
  oracle.assert_close(state['intermediates']['attention'][0], weights.detach())
  oracle.assert_close(gradients[1], q.grad)
  oracle.assert_close(gradients[2], t.grad)
  of_torch = {name: p.grad.numpy() for name, p in twin.named_parameters()}
  expected = torch_import.attention(of_torch, '', heads=4)
  jax.tree.map(oracle.assert_close, gradients[0], expected)


@pytest.mark.parametrize('steps', [1, 3])
def test_masked_tokens_have_no_influence_and_none_valid_is_finite(steps):
  query = query_of(steps)
  model = CrossAttentionBlock(4, 0.1)
  mask = MASK.copy()
  mask[2] = False
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), query, TOKENS, mask, False))
  variables = fake_batch.variables(shapes)
  apply = jax.jit(lambda tokens: model.apply(variables, query, tokens, mask, False))
  changed = np.where(mask[..., None], TOKENS, 1e3).astype(np.float32)
  np.testing.assert_array_equal(apply(TOKENS), apply(changed))
  gradient = jax.grad(lambda tokens: jnp.sum(apply(tokens) ** 2))(TOKENS)
  assert np.isfinite(gradient).all()
  assert not np.any(gradient[~mask])


def test_block_matches_torch():
  torch.manual_seed(0)
  twin = TorchBlock()
  arrays, query = oracle.arrays(twin), query_of(1)
  parts = {
    'attention': torch_import.attention(arrays, 'mha', heads=4),
    'attention_norm': torch_import.layer_norm(arrays, 'norm1'),
    'ffn_in': torch_import.linear(arrays, 'fc1'),
    'ffn_out': torch_import.linear(arrays, 'fc2'),
    'ffn_norm': torch_import.layer_norm(arrays, 'norm2'),
  }
  model = CrossAttentionBlock(4, 0.1)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), query, TOKENS, MASK, False))
  variables = fake_batch.variables(shapes)
  for path, block in parts.items():
    variables = torch_import.insert(variables, path, block)
  loss = lambda q, t: jnp.sum(model.apply(variables, q, t, MASK, False) ** 3)
  gradients = jax.jit(jax.grad(loss, (0, 1)))(query, TOKENS)
  q, t = leaves(query, TOKENS)
  expected = twin(q, t, torch.tensor(MASK))
  (expected**3).sum().backward()
  oracle.assert_close(model.apply(variables, query, TOKENS, MASK, False), expected.detach())
  oracle.assert_close(gradients[0], q.grad)
  oracle.assert_close(gradients[1], t.grad)
