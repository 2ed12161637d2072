"""ResNet1d against a plain torch implementation with the same weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from medm2t_jax.inference import torch_import
from medm2t_jax.models.layers.resnet1d import ResNet1d
from tests.support import fake_batch, oracle

PLAN = ((6, 16), (8, 8), (8, 2))
X = np.random.default_rng(0).normal(size=(4, 32, 3)).astype(np.float32)
MASK = np.array([True, True, True, False])


class TorchResNet1d(torch.nn.Module):
  """The network as torch users write it, channels first."""

  def __init__(self, kernel):
    super().__init__()

    def convolution(width_in, width_out, stride=1, size=kernel):
      pad = (size - stride + 1) // 2 if size > 1 else 0
      return torch.nn.Conv1d(width_in, width_out, size, stride, pad, bias=False)

    parts = {
      'stem': convolution(3, PLAN[0][0], 2), 'stem_norm': torch.nn.BatchNorm1d(PLAN[0][0])
    }  # fmt: skip
    width, length, self.strides = PLAN[0][0], 16, []
    for index, (channels, after) in enumerate(PLAN):
      stride, unit = length // after, f'unit_{index}'
      parts[f'{unit}_first'] = convolution(width, channels)
      parts[f'{unit}_first_norm'] = torch.nn.BatchNorm1d(channels)
      parts[f'{unit}_second'] = convolution(channels, channels, stride)
      parts[f'{unit}_second_norm'] = torch.nn.BatchNorm1d(channels)
      if width != channels:
        parts[f'{unit}_skip'] = convolution(width, channels, size=1)
      self.strides.append(stride)
      width, length = channels, after
    self.parts = torch.nn.ModuleDict(parts)

  def forward(self, x):
    of = self.parts
    x = skip = of['stem_norm'](of['stem'](x))
    for index, stride in enumerate(self.strides):
      unit = f'unit_{index}'
      x = of[f'{unit}_first_norm'](of[f'{unit}_first'](x)).relu()
      x = of[f'{unit}_second'](x)
      skip = torch.nn.functional.max_pool1d(skip, stride) if stride > 1 else skip
      skip = x + (of[f'{unit}_skip'](skip) if f'{unit}_skip' in of else skip)
      x = of[f'{unit}_second_norm'](skip).relu()
    return x


@pytest.mark.parametrize('kernel', [3, 5])
def test_matches_plain_torch(kernel):
  torch.manual_seed(0)
  twin = TorchResNet1d(kernel)
  arrays = oracle.arrays(twin.parts)
  model = ResNet1d(PLAN, kernel, 0.0)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), X, MASK, train=False))
  variables = fake_batch.variables(shapes)
  for name in twin.parts:
    norm = name.endswith('norm')
    block = (torch_import.batch_norm if norm else torch_import.conv1d)(arrays, name)
    variables = torch_import.insert(variables, name, block)

  def loss(params, x):
    y, new = model.apply(
      {**variables, 'params': params}, x, MASK, train=True, mutable=['batch_stats']
    )
    return jnp.sum(jnp.where(MASK[:, None, None], y, 0) ** 2), (y, new['batch_stats'])

  gradients, (y, stats) = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(
    variables['params'], X
  )
  x = torch.tensor(X[MASK], requires_grad=True)
  expected = twin(x.transpose(1, 2)).transpose(1, 2)
  (expected**2).sum().backward()
  assert y.shape == (4, 2, 8)
  oracle.assert_close(y[MASK], expected.detach())
  oracle.assert_close(gradients[1][MASK], x.grad)
  after, of_torch = oracle.arrays(twin.parts), twin.parts.named_parameters()
  slopes = {name: parameter.grad.numpy() for name, parameter in of_torch}
  for name in twin.parts:
    if name.endswith('norm'):
      jax.tree.map(
        oracle.assert_close,
        stats[name],
        torch_import.batch_norm(after, name)['batch_stats'],
      )
      oracle.assert_close(gradients[0][name]['scale'], slopes[f'{name}.weight'])
      oracle.assert_close(gradients[0][name]['bias'], slopes[f'{name}.bias'])
    else:
      jax.tree.map(
        oracle.assert_close,
        gradients[0][name],
        torch_import.conv1d(slopes, name)['params'],
      )


def test_a_plan_that_does_not_divide_is_refused():
  with pytest.raises(ValueError, match='lengths that divide'):
    ResNet1d(((4, 9),), 3, 0.0).init(jax.random.key(0), X, MASK, train=False)
