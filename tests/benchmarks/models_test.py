"""The PyTorch model of the benchmark is ours: logits, losses, gradients."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from benchmarks.model_case import Case, without_dropout
from benchmarks.model_steps import (
  Theirs,
  check_logits,
  embedding,
  fitted_of,
  same_weights,
)
from benchmarks.torch_model import weights
from medm2t_jax.models.medm2t import MedM2T
from medm2t_jax.targets import losses
from medm2t_jax.training.losses import of_heads

ROWS = 6


class Still(Case):
  """A case without dropout, so that training is the same on both sides."""

  @functools.cached_property
  def config(self):
    return without_dropout(super().config)

  def shapes(self):
    # A dropout has no variables: traced once for both.
    return Case(*dataclasses.astuple(self)).shapes()


# All encoders are in the first one. Of the other tasks the outputs are different; of every
# stage that is measured the benchmark itself compares them.
@pytest.mark.parametrize(
  ('task', 'stage'), [('mortality', 'multimodal'), ('cvd', 'static'), ('los', 'static')]
)
def test_logits_are_the_same(task, stage):
  case = Case(task, stage, 'tiny', rows=ROWS)
  variables, theirs = same_weights(case)
  model = MedM2T(case.config)
  apply = jax.jit(functools.partial(model.apply, stage=stage, train=False))
  found, expected = np.asarray(apply(variables, case.batch).logits), theirs.infer()
  check_logits(case, found, expected)
  with pytest.raises(AssertionError, match='logits differ by'):
    check_logits(case, found + 2e-4 * max(1, np.abs(expected).max()), expected)


# Where all rows have all modalities, which PyTorch's BatchNorm does not ask.
@pytest.mark.parametrize(('task', 'stage'), [('cvd', 'multimodal'), ('los', 'static')])
def test_gradients_are_the_same(task, stage):
  case = Still(task, stage, 'tiny', rows=ROWS)
  variables, theirs = same_weights(case)
  theirs.model.requires_grad_(True).train()
  their_loss = theirs.loss()
  their_loss.backward()
  arrays = {name: one.numpy() for name, one in theirs.model.state_dict().items()}
  for name, parameter in theirs.model.named_parameters():
    grad = parameter.grad
    arrays[name] = (torch.zeros_like(parameter) if grad is None else grad).numpy()
  expected = weights.to_variables(theirs.model, variables, arrays)['params']
  model = MedM2T(case.config)
  each = losses.squared if task == 'los' else losses.nll

  @jax.jit
  @jax.value_and_grad
  def gradient(params, variables, batch):
    given = {**variables, 'params': params}
    found, _ = model.apply(
      given,
      batch,
      stage=stage,
      train=True,
      mutable=['batch_stats'],
      rngs={'dropout': jax.random.key(0)},
    )
    label = batch['label'][found.owner]
    return jnp.mean(of_heads(each, found.heads, label, model.members(stage)))

  loss, gradients = gradient(variables['params'], variables, case.batch)
  np.testing.assert_allclose(loss, their_loss.item(), rtol=1e-5)
  largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradients))

  def compare(path, found, wanted):
    scale = max(float(np.abs(wanted).max()), 1e-3 * largest)
    name = jax.tree_util.keystr(path)
    np.testing.assert_allclose(found, wanted, atol=1e-3 * scale, rtol=0, err_msg=name)

  jax.tree_util.tree_map_with_path(compare, gradients, expected)


class _Placed(TorchFunctionMode):
  """No tensor is made without the device that it belongs to: it may be a GPU."""

  _makers = frozenset(
    {torch.arange, torch.empty, torch.full, torch.ones, torch.rand, torch.zeros}
  )

  def __torch_function__(self, func, types, args=(), kwargs=None):
    kwargs = kwargs or {}
    assert func not in self._makers or 'device' in kwargs, f'{func.__name__}: where?'
    return func(*args, **kwargs)


@pytest.mark.parametrize(
  ('task', 'stage'),
  [('mortality', 'multimodal'), ('mortality', 'ecg_signal'), ('mortality', 'vitals')],
)
def test_tensors_are_made_where_the_batch_is(task, stage):
  case = Case(task, stage, 'tiny', rows=ROWS)
  theirs = Theirs(case, fitted_of(case))
  with _Placed():
    theirs.train()
    theirs.infer()
    with pytest.raises(AssertionError, match='arange: where'):
      torch.arange(2)


def test_torch_trains():
  _, theirs = same_weights(Case('mortality', 'multimodal', 'tiny', rows=ROWS))
  before = {name: one.clone() for name, one in theirs.model.named_parameters()}
  theirs.train()
  moved = {
    name for name, one in theirs.model.named_parameters() if not one.equal(before[name])
  }
  still = {name for name in before if name.startswith(('encoders.', 'singles.'))}
  assert not moved & still  # frozen, as in the config
  assert {name for name in before if name.startswith('head.trunk.')} <= moved


def test_windows_alone():
  for work in embedding(Case('mortality', 'labs', 'tiny', rows=ROWS)):
    for run in work:
      run()
