"""Train step and inference of one stage in PyTorch, and ours from the same weights.

PyTorch uses the same device as JAX: the GPU, if there is one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks import model_workload
from benchmarks.model_case import LEARNING_RATE, Case, Ours
from benchmarks.torch_model import weights
from benchmarks.torch_model.batch import for_torch
from benchmarks.torch_model.events import EventEncoder
from benchmarks.torch_model.medm2t import Predictions, TorchMedM2T
from medm2t_jax.experiment import Recipe
from medm2t_jax.models.events.sparse_time_series import SparseTimeSeriesEncoder

TOLERANCE = 1e-4  # of logits, relative to the largest
_TOLERANCE_TF32 = 1e-2  # ten bits of each factor

PRECISIONS = ('tf32', 'float32')


def torch_device() -> torch.device:
  """The device that JAX uses."""
  return torch.device('cuda' if jax.default_backend() == 'gpu' else 'cpu')


def use_precision(name: str) -> None:
  """Sets how both frameworks multiply float32 matrices on a GPU, convolutions included.

  Args:
    name: 'tf32', JAX's default on a GPU, or 'float32'. CPUs have no TF32.
  """
  tf32 = name == 'tf32'
  jax.config.update('jax_default_matmul_precision', 'default' if tf32 else 'float32')
  torch.set_float32_matmul_precision('high' if tf32 else 'highest')
  torch.backends.cudnn.allow_tf32 = tf32


def _tolerance() -> float:
  tf32 = torch.get_float32_matmul_precision() == 'high'
  return _TOLERANCE_TF32 if tf32 and torch_device().type == 'cuda' else TOLERANCE


class Theirs:
  """The PyTorch stage, with the recipe's optimizer (fused) and frozen encoders.

  Attributes:
    model: the module.
  """

  def __init__(
    self,
    case: Case,
    fitted: dict[str, Any],
    *,
    device: torch.device | None = None,
    compiled: bool = False,
  ):
    """Builds the stage.

    Args:
      case: the measured case.
      fitted: statistics.
      device: of the computation; that of JAX if None.
      compiled: whether to use `torch.compile` instead of eager mode.
    """
    device = device or torch_device()
    torch.manual_seed(0)
    self.model = TorchMedM2T(case.config, fitted, case.stage)
    _away_from_constants(self.model)
    self.model.to(device)
    self._forward: Any = torch.compile(self.model) if compiled else self.model
    self._batch = for_torch(case.batch, device)
    self._clip_norm = case.recipe.clip_norm
    if case.recipe.frozen:
      assert tuple(case.recipe.frozen) == ('encoders_*',)
      self.model.encoders.requires_grad_(False)
    self._optimizer = _optimizer(self.model, case.recipe)
    self._days = case.schema.target.numeric

  def loss(self) -> torch.Tensor:
    """The loss of the batch, as in `medm2t_jax.training.losses.of_heads`."""
    predictions: Predictions = self._forward(self._batch)
    label = self._batch['label'][self.model.owners(self._batch)]
    deep = self._mean_loss(predictions.deep, label)
    if predictions.members is None:
      return deep
    members = predictions.members
    of_each = label.repeat_interleave(members.shape[1])
    return (self._mean_loss(members.flatten(0, 1), of_each) + deep) / 2

  def _mean_loss(self, outputs: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    if self._days:
      return functional.mse_loss(outputs[:, 0], label)
    return functional.cross_entropy(outputs, label.long())

  def train(self, times: int = 1) -> None:
    """Makes so many updates, dispatched one after the other."""
    self.model.train()
    for _ in range(times):
      self._optimizer.zero_grad()
      self.loss().backward()
      if self._clip_norm:
        nn.utils.clip_grad_norm_(self.model.parameters(), self._clip_norm)
      self._optimizer.step()
    wait()

  def infer(self, times: int = 1) -> np.ndarray:
    """Logits of all units (u c), computed so many times, dispatched one after the other."""
    self.model.eval()
    with torch.inference_mode():
      found = [self._forward(self._batch).logits for _ in range(times)]
      return found[-1].cpu().numpy()


def wait() -> None:
  """Waits until PyTorch has finished its dispatched work."""
  if torch_device().type == 'cuda':
    torch.cuda.synchronize()


def _away_from_constants(model: nn.Module) -> None:
  """Randomises parameters that start as constants, which would hide wrong factors."""
  with torch.no_grad():
    for parameter in model.parameters():
      if parameter.min() == parameter.max():
        parameter += 0.1 * torch.randn_like(parameter)


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
  trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
  is_matrix = lambda name, one: (
    one.dim() > 1 and not any(part in name for part in ('scale', 'bias', 'absent'))
  )
  decays = lambda name, one: recipe.decayed == 'all' or is_matrix(name, one)
  decayed = [one for name, one in trained.items() if decays(name, one)]
  others = [one for name, one in trained.items() if not decays(name, one)]
  groups = [
    {'params': decayed, 'weight_decay': recipe.weight_decay},
    {'params': others, 'weight_decay': 0.0},
  ]
  kinds = {'adam': torch.optim.Adam, 'adamw': torch.optim.AdamW, 'sgd': torch.optim.SGD}
  kind: Any = kinds[recipe.optimizer]
  return kind([one for one in groups if one['params']], lr=LEARNING_RATE, fused=True)


@functools.lru_cache(maxsize=32)
def fitted_of(case: Case) -> dict[str, Any]:
  """Statistics of the stage and of all encoders, the same for both sides."""
  every = dataclasses.replace(case, stage='multimodal').shapes()['fitted']
  encoders = {name: tree for name, tree in every.items() if name.startswith('encoders_')}
  return model_workload.fitted({**case.shapes()['fitted'], **encoders})


def same_weights(
  case: Case, device: torch.device | None = None
) -> tuple[dict[str, Any], Theirs]:
  """Our variables with the weights and statistics of a PyTorch stage, and that stage.

  Parameters that PyTorch does not have become NaN.

  Args:
    case: the measured case.
    device: of the PyTorch stage; that of JAX if None.
  """
  fitted, shapes = fitted_of(case), case.shapes()
  theirs = Theirs(case, fitted, device=device)
  empty = jax.tree.map(
    lambda leaf: np.full(leaf.shape, np.nan, leaf.dtype),
    {name: shapes[name] for name in ('params', 'batch_stats')},
  )
  choose = lambda shape, value: (
    {name: choose(one, value[name]) for name, one in shape.items()}
    if isinstance(shape, Mapping)
    else value
  )
  variables = {**empty, 'fitted': choose(shapes['fitted'], fitted)}
  return weights.to_variables(theirs.model, variables), theirs


def check_logits(case: Case, found: np.ndarray, expected: np.ndarray) -> None:
  """Compares our logits with PyTorch's.

  Raises:
    AssertionError: they differ by more than the precision in use allows.
  """
  # Recordings come first, placeholders and padding last.
  of_recordings = case.stage.startswith('ecg_')
  real = case.batch['ecg']['mask'].sum() if of_recordings else len(expected)
  scale = max(1.0, float(np.abs(expected).max()))
  worst = float(np.abs(found[:real] - expected[:real]).max()) / scale
  assert worst < _tolerance(), f'{case.task}/{case.stage}: logits differ by {worst:.1e}'


def both(case: Case) -> tuple[Ours, Theirs]:
  """Both sides with the same weights.

  Raises:
    AssertionError: their logits differ.
  """
  variables, theirs = same_weights(case)
  ours = Ours(case, variables)
  check_logits(case, ours.infer(), theirs.infer())
  return ours, theirs


def embedding(case: Case) -> tuple[tuple[Callable[[], Any], ...], ...]:
  """(train, infer) of only the STE's item statistics and window vectors, ours and theirs.

  Train is forward and backward to the tables, without dropout.
  """
  variables, other = same_weights(case)
  name = f'encoders_{case.stage}'
  fitted, params = variables['fitted'][name], variables['params'][name]
  theirs = other.model.encoders[case.stage].eval()
  assert isinstance(theirs, EventEncoder)
  tensors = for_torch(case.batch, torch_device())[case.stage]
  encoder = SparseTimeSeriesEncoder(case.config.modality(case.stage).config)
  arrays = jax.tree.map(jnp.asarray, case.batch[case.stage])
  tables = {'item_statistics': jax.tree.map(jnp.asarray, params['item_statistics'])}

  def windows(tables: Any, arrays: Any) -> Any:
    return encoder.apply({'params': tables, 'fitted': fitted}, arrays, method='windows')[0]

  expected = _windows(theirs, tensors)
  # The sum of normalised vectors has no gradient.
  direction = np.random.default_rng(0).normal(size=expected.shape).astype(np.float32)
  loss = lambda tables, arrays: jnp.sum(windows(tables, arrays) * direction)
  gradient, forward = jax.jit(jax.value_and_grad(loss)), jax.jit(windows)
  np.testing.assert_allclose(forward(tables, arrays), expected, atol=_tolerance())
  their_direction = torch.from_numpy(direction).to(torch_device())

  def their_gradient() -> None:
    theirs.zero_grad()
    (theirs.windows(tensors)[0] * their_direction).sum().backward()
    wait()

  ready = jax.block_until_ready
  return (
    (lambda: ready(gradient(tables, arrays)), lambda: ready(forward(tables, arrays))),
    (their_gradient, lambda: _windows(theirs, tensors)),
  )


def _windows(encoder: EventEncoder, tensors: Mapping[str, torch.Tensor]) -> np.ndarray:
  with torch.inference_mode():
    return encoder.windows(tensors)[0].cpu().numpy()
