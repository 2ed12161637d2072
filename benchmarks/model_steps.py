"""Train step and inference of one stage, ours and PyTorch's, from the same weights."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional

from benchmarks import model_workload
from benchmarks.torch_model import weights
from benchmarks.torch_model.encoders import EventEncoder
from benchmarks.torch_model.medm2t import TorchMedM2T
from configs import cvd, los, mortality
from medm2t_jax import losses, parallel
from medm2t_jax.models.config import ModelConfig, model_config
from medm2t_jax.models.medm2t import MedM2T
from medm2t_jax.models.sparse_time_series import SparseTimeSeriesEncoder
from medm2t_jax.optimizer import make_optimizer

TASKS = {'cvd': cvd, 'mortality': mortality, 'los': los}
LEARNING_RATE = 1e-4


@dataclasses.dataclass(frozen=True)
class Case:
  """What is measured.

  Attributes:
    task: 'cvd', 'mortality' or 'los'.
    stage: of the model.
    size: named size.
    rows: samples of a batch.
    capacity: packed recordings that there is room for, per real one.
    events: factor on the numbers of events.
  """

  task: str
  stage: str
  size: str = 'paper'
  rows: int = 32
  capacity: float = 1.15
  events: float = 1.0

  @property
  def config(self) -> ModelConfig:
    options = TASKS[self.task].get_config('bins').model.to_dict()
    schema = model_workload.schema(self.task)
    return model_config(self.task, {**options, 'size': self.size}, schema)

  @functools.cached_property
  def batch(self) -> dict[str, Any]:
    return model_workload.batch(
      self.task, self.stage, self.rows, self.capacity, self.events
    )


class Ours:
  """Our stage, through the steps that training and evaluation use."""

  def __init__(self, case: Case, variables: dict[str, Any] | None = None):
    """Args: case; variables to start from, fresh ones if None."""
    self._key = jax.random.key(0, impl='unsafe_rbg')
    model = MedM2T(case.config, axis_name=parallel.DEVICE_AXIS)
    recipe = TASKS[case.task].get_config('bins').recipe[case.stage]
    optimizer = make_optimizer({**recipe, 'learning_rate': LEARNING_RATE}, case.stage, 1000)
    kind = 'days' if case.task == 'los' else 'classes'
    loss = losses.squared if kind == 'days' else losses.nll
    self._model, self._stage = model, case.stage
    # The leading axis is that of the devices, of which there is one.
    self._batch = jax.tree.map(lambda x: jnp.asarray(x[np.newaxis]), case.batch)
    if variables is None:
      made = jax.jit(self._init)(case.batch)
      variables = {**made, 'fitted': model_workload.fitted(made['fitted'])}
    variables = dict(jax.tree.map(jnp.array, variables))
    state = parallel.TrainState(
      step=jnp.zeros((), jnp.int32),
      params=variables['params'],
      batch_stats=variables['batch_stats'],
      fitted=variables['fitted'],
      optimizer=jax.jit(optimizer.init)(variables['params']),
    )
    self._state = jax.device_put(state, parallel.replicated())
    # The state's buffers are given to the train step, so inference has its own.
    self._variables = jax.device_put(
      jax.tree.map(jnp.copy, variables), parallel.replicated()
    )
    self._train_step: Any = parallel.train_step(model, case.stage, optimizer, loss, ())
    self._predict_step: Any = parallel.predict_step(model, case.stage)

  @functools.cached_property
  def compiled(self) -> Any:
    """The train step."""
    return self._train_step.lower(self._state, self._batch, self._key).compile()

  @functools.cached_property
  def _predict(self) -> Any:
    return self._predict_step.lower(self._variables, self._batch).compile()

  def _init(self, batch: Any) -> dict[str, Any]:
    init: Any = self._model.init
    return init(self._key, batch, stage=self._stage, train=False)

  def train(self) -> None:
    """One update."""
    self._state, loss = self.compiled(self._state, self._batch, self._key)
    jax.block_until_ready((self._state, loss))

  def infer(self) -> np.ndarray:
    """Logits of all units (u c)."""
    return np.asarray(self._predict(self._variables, self._batch))[0]


class Theirs:
  """The PyTorch stage: eager, Adam as it comes.

  Attributes:
    model: the module.
  """

  def __init__(self, case: Case, fitted: dict[str, Any], attend_over: Any = 'tokens'):
    torch.manual_seed(0)
    self.model = TorchMedM2T(case.config, fitted, case.stage, attend_over)
    self._batch = model_workload.for_torch(case.batch)
    self._optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)
    self._days = case.task == 'los'

  def train(self) -> None:
    """One update."""
    self.model.train()
    self._optimizer.zero_grad()
    logits, owner = self.model(self._batch), self.model.owners(self._batch)
    label = self._batch['label'][owner]
    if self._days:
      loss = functional.mse_loss(logits[:, 0], label)
    else:
      loss = functional.cross_entropy(logits, label.long())
    loss.backward()
    self._optimizer.step()

  def infer(self) -> np.ndarray:
    """Logits of all units (u c)."""
    self.model.eval()
    with torch.inference_mode():
      return self.model(self._batch).numpy()


def fitted_of(case: Case) -> dict[str, Any]:
  """Statistics of all encoders, the same for both sides."""
  shapes = _shapes(dataclasses.replace(case, stage='multimodal'))
  return model_workload.fitted(_zeros(shapes['fitted']))


def _variables(case: Case, fitted: dict[str, Any]) -> dict[str, Any]:
  """Zeros of the stage's shapes; statistics out of `fitted`."""
  made = _zeros(_shapes(case))
  kept = {name: fitted.get(name, zeros) for name, zeros in made['fitted'].items()}
  choose = lambda old, new: (
    {name: choose(one, new[name]) for name, one in old.items()}
    if isinstance(old, dict)
    else new
  )
  return {**made, 'fitted': choose(made['fitted'], kept)}


def _shapes(case: Case) -> dict[str, Any]:
  model = MedM2T(case.config)
  init: Any = lambda: model.init(
    jax.random.key(0), case.batch, stage=case.stage, train=False
  )
  return dict(jax.eval_shape(init))


def _zeros(shapes: Any) -> Any:
  return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def both(case: Case) -> tuple[Ours, Theirs]:
  """Both sides with the same weights.

  Raises:
    AssertionError: their logits differ by more than 1e-4 of the largest.
  """
  fitted = fitted_of(case)
  variables = _variables(case, fitted)
  theirs = Theirs(case, fitted)
  ours = Ours(case, weights.to_variables(theirs.model, variables))
  expected = theirs.infer()
  found = ours.infer()[: len(expected)]
  # Recordings are packed in front, placeholders and padding behind.
  real = case.batch['ecg']['mask'].sum() if case.stage.startswith('ecg_') else len(found)
  scale = max(1.0, float(np.abs(expected).max()))
  worst = float(np.abs(found[:real] - expected[:real]).max()) / scale
  assert worst < 1e-4, f'{case.task}/{case.stage}: logits differ by {worst:.1e}'
  return ours, theirs


def embedding(case: Case) -> tuple[tuple[Callable[[], Any], ...], ...]:
  """(train, infer) of the STE's embedding and windows alone, ours and theirs.

  Train is forward and backward to the tables.
  """
  events = dict(case.config.events)[case.stage]
  fitted = fitted_of(case)[f'encoders_{case.stage}']
  theirs = EventEncoder(events, fitted)
  tensors = model_workload.for_torch(case.batch)[case.stage]
  tables = {
    name: jnp.asarray(getattr(theirs, name).weight.detach().numpy())
    for name in ('value_table', 'source_table')
  }
  encoder = SparseTimeSeriesEncoder(events)
  arrays = jax.tree.map(jnp.asarray, case.batch[case.stage])

  def windows(tables: Any, arrays: Any) -> Any:
    given = {'params': tables, 'fitted': fitted}
    return encoder.apply(given, arrays, method='windows')

  def loss(tables: Any, arrays: Any) -> Any:
    return jnp.sum(windows(tables, arrays)[0])

  gradient, forward = jax.jit(jax.value_and_grad(loss)), jax.jit(windows)

  def their_gradient() -> None:
    theirs.zero_grad()
    theirs.embed(tensors)[0].sum().backward()

  def their_forward() -> np.ndarray:
    with torch.inference_mode():
      return theirs.embed(tensors)[0].numpy()

  np.testing.assert_allclose(forward(tables, arrays)[0], their_forward(), atol=1e-4)
  ready = jax.block_until_ready
  return (
    (lambda: ready(gradient(tables, arrays)), lambda: ready(forward(tables, arrays))),
    (their_gradient, their_forward),
  )
