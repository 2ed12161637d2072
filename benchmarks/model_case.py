"""The measured case of the model, and our side of it: train step and prediction."""

from __future__ import annotations

import dataclasses
import functools
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import model_workload
from configs import cvd, los, mortality, physionet2012
from data_pipeline.format.schema import Schema
from medm2t_jax import experiment
from medm2t_jax.experiment import Experiment, Recipe
from medm2t_jax.experiment.model_config import model_config
from medm2t_jax.models.config import ModelConfig
from medm2t_jax.models.medm2t import MedM2T
from medm2t_jax.runs.hosts import devices
from medm2t_jax.runs.train_state import TrainState
from medm2t_jax.targets import losses
from medm2t_jax.training import steps
from medm2t_jax.training.losses import StageLoss
from medm2t_jax.training.optimizer import make_optimizer

LEARNING_RATE = 1e-4

_CONFIGS: dict[str, ModuleType] = {
  'cvd': cvd, 'mortality': mortality, 'los': los, 'physionet2012': physionet2012
}  # fmt: skip
_VARIANTS = {'paper': '', 'small': 'small', 'tiny': 'smoke'}


@dataclasses.dataclass(frozen=True)
class Case:
  """A stage of the model with the defaults of a config file.

  Attributes:
    task: name of a config file.
    stage: of the model.
    size: named size.
    rows: samples per batch.
    capacity: capacity for packed recordings, per real recording.
    events: factor on the numbers of events.
    members: of the ensemble; 0 for the config's.
    dtype: of the computation, as in the config.
  """

  task: str
  stage: str
  size: str = 'paper'
  rows: int = model_workload.SAMPLE_ROWS
  capacity: float = 1.15
  events: float = 1.0
  members: int = 0
  dtype: str = 'float32'

  @functools.cached_property
  def experiment(self) -> Experiment:
    """The experiment that the task's config file describes at this size."""
    paper = self.task == 'physionet2012' and self.size == 'paper'
    variant = 'paper' if paper else _VARIANTS[self.size]
    return experiment.read(_CONFIGS[self.task].get_config(variant))

  @property
  def recipe(self) -> Recipe:
    """How the stage is trained."""
    return self.experiment.recipe[self.stage]

  @property
  def schema(self) -> Schema:
    """The schema of synthetic data of the task."""
    return model_workload.schema(self.task)

  @functools.cached_property
  def config(self) -> ModelConfig:
    """The model's configuration, with the case's dtype and number of ensemble members."""
    options = dataclasses.replace(self.experiment.model, dtype=self.dtype)
    if self.members:
      options = dataclasses.replace(options, ensemble=self.members)
    return model_config(self.experiment.task, options, self.schema)

  @functools.cached_property
  def batch(self) -> dict[str, Any]:
    """A synthetic batch of the case."""
    return model_workload.batch(
      self.task, self.stage, self.rows, self.capacity, self.events
    )

  def shapes(self) -> dict[str, Any]:
    """Shapes and dtypes of the stage's variables."""
    return dict(_shapes(self))


@functools.lru_cache(maxsize=64)
def _shapes(case: Case) -> dict[str, Any]:
  """Cached, because every other stage needs the shapes of the multimodal stage."""
  model = MedM2T(case.config)
  init: Any = lambda: model.init(
    jax.random.key(0), case.batch, stage=case.stage, train=False
  )
  return dict(jax.eval_shape(init))


def drawn(case: Case) -> dict[str, Any]:
  """Random variables of the stage; times do not depend on values, and init is slow."""
  rng = np.random.default_rng(0)
  shapes = case.shapes()
  draw = lambda leaf: rng.uniform(0.01, 0.1, leaf.shape).astype(leaf.dtype)
  return {
    'params': jax.tree.map(draw, shapes['params']),
    'batch_stats': jax.tree.map(draw, shapes['batch_stats']),
    'fitted': model_workload.fitted(shapes['fitted']),
  }


def without_dropout(config: Any) -> Any:
  """A model configuration with every dropout rate at 0, at any depth."""
  if isinstance(config, tuple):
    return tuple(map(without_dropout, config))
  if not dataclasses.is_dataclass(config) or isinstance(config, type):
    return config
  changed = {
    field.name: 0.0
    if field.name.endswith('dropout')
    else without_dropout(getattr(config, field.name))
    for field in dataclasses.fields(config)
  }
  return dataclasses.replace(config, **changed)


class Ours:
  """Our stage, with the steps of training and evaluation.

  Attributes:
    state: of training; `train` and `update` continue from it and donate its buffers.
  """

  def __init__(self, case: Case, variables: dict[str, Any] | None = None):
    """Compiles the steps of a case; starts from `variables`, or from fresh ones if None."""
    self._key = jax.random.key(0, impl='unsafe_rbg')
    model = MedM2T(case.config, axis_name=devices.DEVICE_AXIS)
    frozen = (*case.recipe.frozen, *model.untrained(case.stage))
    recipe = dataclasses.replace(case.recipe, learning_rate=LEARNING_RATE, frozen=frozen)
    optimizer = make_optimizer(recipe, case.stage, 1000)
    kind = case.schema.target.kind
    loss = losses.squared if kind == 'regression' else losses.nll
    self._model, self._stage = model, case.stage
    # The leading axis is that of the single device.
    self._batch = jax.tree.map(lambda x: jnp.asarray(x[np.newaxis]), case.batch)
    if variables is None:
      made = jax.jit(self._init)(case.batch)
      variables = {**made, 'fitted': model_workload.fitted(made['fitted'])}
    variables = dict(jax.tree.map(jnp.array, variables))
    state = TrainState(
      step=jnp.zeros((), jnp.int32),
      params=variables['params'],
      batch_stats=variables['batch_stats'],
      fitted=variables['fitted'],
      optimizer=jax.jit(optimizer.init)(variables['params']),
    )
    self.state = jax.device_put(state, devices.replicated())
    # The train step donates the state's buffers, so inference needs a copy.
    self._variables = jax.device_put(
      jax.tree.map(jnp.copy, variables), devices.replicated()
    )
    self._train_step: Any = steps.train_step(
      model, case.stage, optimizer, StageLoss(loss), frozen
    )
    self._forward_step: Any = steps.forward_step(model, case.stage)

  @functools.cached_property
  def compiled(self) -> Any:
    """The train step."""
    return self._train_step.lower(self.state, self._batch, self._key).compile()

  @functools.cached_property
  def _predict(self) -> Any:
    return self._forward_step.lower(self._variables, self._batch).compile()

  def _init(self, batch: Any) -> dict[str, Any]:
    init: Any = self._model.init
    return init(self._key, batch, stage=self._stage, train=False)

  def train(self, times: int = 1) -> None:
    """Makes so many updates, dispatched one after the other."""
    for _ in range(times):
      self.state, _ = self.compiled(self.state, self._batch, self._key)
    jax.block_until_ready(self.state)

  def update(self) -> float:
    """Makes one update; returns the loss before it."""
    self.state, loss = self.compiled(self.state, self._batch, self._key)
    return float(loss.total) / float(loss.weight)

  def infer(self, times: int = 1) -> np.ndarray:
    """Logits of all units (u c), computed so many times, dispatched one after the other."""
    found = [self._predict(self._variables, self._batch).logits for _ in range(times)]
    return np.asarray(jax.block_until_ready(found)[-1])[0]
