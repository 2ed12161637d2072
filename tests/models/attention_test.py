"""Attention against torch with the same weights, with masks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from medm2t_jax.models.attention import CrossAttentionBlock, MultiHeadAttention
from tests import fake_batch

RNG = np.random.default_rng(0)
TOKENS = RNG.normal(size=(3, 5, 8)).astype(np.float32)
MASK = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 1]], bool)


def torch_attention(params):
  twin = torch.nn.MultiheadAttention(8, 4, batch_first=True)
  flat = lambda name: np.reshape(params[f'{name}_kernel'], (8, 8)).T
  bias = lambda name: np.reshape(params[f'{name}_bias'], 8)
  twin.load_state_dict(
    {
      'in_proj_weight': torch.tensor(
        np.concatenate([flat('query'), flat('key'), flat('value')])
      ),
      'in_proj_bias': torch.tensor(
        np.concatenate([bias('query'), np.zeros(8, np.float32), bias('value')])
      ),
      'out_proj.weight': torch.tensor(flat('out')),
      'out_proj.bias': torch.tensor(params['out_bias']),
    }
  )
  return twin


def query_of(steps):
  return np.random.default_rng(steps).normal(size=(3, steps, 8)).astype(np.float32)


# One query takes another order of the products than several.
@pytest.mark.parametrize('steps', [1, 3])
def test_attention_matches_torch(steps):
  query = query_of(steps)
  model = MultiHeadAttention(4)
  shapes = jax.eval_shape(model.init, jax.random.key(0), query, TOKENS, MASK)
  variables = fake_batch.variables(shapes)
  twin = torch_attention(variables['params'])
  loss = lambda q, t: jnp.sum(model.apply(variables, q, t, MASK) ** 2)
  gradients = jax.jit(jax.grad(loss, (0, 1)))(query, TOKENS)
  q, t = (torch.tensor(x, requires_grad=True) for x in (query, TOKENS))
  expected, weights = twin(
    q, t, t, key_padding_mask=torch.tensor(~MASK), average_attn_weights=False
  )
  (expected**2).sum().backward()
  out, state = model.apply(variables, query, TOKENS, MASK, mutable=['intermediates'])
  np.testing.assert_allclose(out, expected.detach(), atol=1e-5)
  sown = state['intermediates']['attention'][0]
  np.testing.assert_allclose(sown, weights.detach(), atol=1e-5)
  for ours, theirs in zip(gradients, (q.grad, t.grad), strict=True):
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


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
  query = query_of(1)
  model = CrossAttentionBlock(4, 0.1)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), query, TOKENS, MASK, False))
  variables = fake_batch.variables(shapes)
  p = variables['params']
  twin = torch_attention(p['attention'])
  q, t = torch.tensor(query), torch.tensor(TOKENS)
  tensor = lambda part, leaf: torch.tensor(p[part][leaf])
  norm = lambda x, part: torch.nn.functional.layer_norm(
    x, (8,), tensor(part, 'scale'), tensor(part, 'bias'), 1e-6
  )
  attended, _ = twin(q, t, t, key_padding_mask=torch.tensor(~MASK))
  h = norm(q + attended, 'attention_norm')
  y = h @ tensor('ffn_in', 'kernel') + tensor('ffn_in', 'bias')
  y = torch.nn.functional.leaky_relu(y, 0.01)
  y = y @ tensor('ffn_out', 'kernel') + tensor('ffn_out', 'bias')
  expected = norm(h + y, 'ffn_norm')
  out = model.apply(variables, query, TOKENS, MASK, False)
  np.testing.assert_allclose(out, expected.detach(), atol=1e-5)
