"""Data-parallel steps: the one place where devices are many (`jax.pmap`).

The state is replicated (`in_axes=None`, `out_axes=None`), batches carry a leading
device axis: the devices of this process. A step runs on the devices of all processes;
what goes in and comes out is local to the process. The only parallel primitive is a
psum: gradients and losses are sums over devices divided once by the summed weights, so
that devices with unequal or no valid rows give the same update as one device with all
of them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from medm2t_jax import losses
from medm2t_jax import optimizer as optimizers
from medm2t_jax.blend_weights import OURS, blend
from medm2t_jax.fitted_arrays import outputs
from medm2t_jax.models import columns
from medm2t_jax.models.encoded import Predictions
from medm2t_jax.models.late_addition import log_probabilities
from medm2t_jax.models.medm2t import MedM2T

DEVICE_AXIS = 'device'

# Half of what Linux allows: one stage needs a few thousand.
_MOST_MAPPINGS = 30_000

Batch = Mapping[str, Any]


@struct.dataclass
class TrainState:
  """All that changes in training, and the fitted state that travels with it.

  Attributes:
    step: number of updates made, int32.
    params: parameters of the stage; with `ema_decay`, the averaged ones.
    batch_stats: running statistics of BatchNorm.
    fitted: statistics of the training subjects; constant.
    optimizer: state of the optax optimizer.
  """

  step: Int[Array, '']
  params: Any
  batch_stats: Any
  fitted: Any
  optimizer: optax.OptState

  @property
  def variables(self) -> dict[str, Any]:
    return {'params': self.params, 'batch_stats': self.batch_stats, 'fitted': self.fitted}


def replicated() -> NamedSharding:
  """Where the steps keep the state: a copy on every device of this process."""
  return NamedSharding(Mesh(np.array(jax.local_devices()), (DEVICE_AXIS,)), PartitionSpec())


def replicated_everywhere() -> NamedSharding:
  """A copy on every device of every process, as checkpoints are written and read."""
  return NamedSharding(_all_devices(), PartitionSpec())


def _all_devices() -> Mesh:
  return Mesh(np.array(jax.devices()), (DEVICE_AXIS,))


def to_global(tree: Any) -> Any:
  """This process's copies as arrays of all processes; no data is moved."""
  return multihost_utils.host_local_array_to_global_array(
    tree, _all_devices(), PartitionSpec()
  )


def to_local(tree: Any) -> Any:
  """Arrays replicated on all processes as arrays of this process; no data is moved."""
  return multihost_utils.global_array_to_host_local_array(
    tree, _all_devices(), PartitionSpec()
  )


class LossSum(NamedTuple):
  """A sum of weighted losses and the sum of the weights, over all devices."""

  total: Float[Array, '']
  weight: Float[Array, '']


def train_step(
  model: MedM2T,
  stage: str,
  optimizer: optax.GradientTransformation,
  loss: losses.Loss,
  class_weights: Sequence[float],
  frozen: Sequence[str] = (),
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, LossSum]]:
  """Returns the compiled update `(state, batch, key) -> (state, loss)`.

  Args:
    model: with `axis_name=DEVICE_AXIS`.
    stage: stage of the model.
    optimizer: optax optimizer.
    loss: unreduced loss.
    class_weights: one per class, or empty.
    frozen: paths of parameters that the optimizer does not update.

  The key is one for the run and stage; it is folded with the step and the device.
  The old state's buffers are donated. A loss whose gradient has no finite norm is NaN, so
  that the batch that did it is known, and not only the next one.
  """

  def step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, LossSum]:
    key = jax.random.fold_in(key, state.step)
    key = jax.random.fold_in(key, jax.lax.axis_index(DEVICE_AXIS))

    def local_loss(params):
      params = optimizers.without_frozen_gradients(params, frozen)
      predictions, updates = model.apply(
        {**state.variables, 'params': params},
        batch,
        stage=stage,
        train=True,
        mutable=['batch_stats'],
        rngs={'dropout': key},
      )
      label, weight = _targets(batch, predictions)
      each = losses.of_heads(loss, predictions.heads, label, model.members(stage))
      total, count = losses.weighted_sum(each, label, weight, class_weights)
      return total, (count, updates['batch_stats'])

    trained = optimizers.trained_parameters(state.params, state.optimizer)
    (total, (count, batch_stats)), gradients = jax.value_and_grad(local_loss, has_aux=True)(
      trained
    )
    total, count, gradients = _sum_over_devices((total, count, gradients))
    gradients = jax.tree.map(lambda g: g / count, gradients)
    # The norm is what clipping needs, too: it costs and compiles once.
    norm = optax.tree.norm(gradients)
    total = jnp.where(jnp.isfinite(norm), total, jnp.nan)
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
    state = dataclasses.replace(
      state,
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      batch_stats=optimizers.averaged_statistics(
        state.batch_stats, batch_stats, optimizer_state
      ),
      optimizer=optimizer_state,
    )
    return state, LossSum(total, count)

  return jax.pmap(
    step,
    axis_name=DEVICE_AXIS,
    in_axes=(None, 0, None),
    out_axes=(None, None),
    donate_argnums=(0,),
  )


class Units(NamedTuple):
  """What was predicted for the stage's units; `weight` is 0 where there is none.

  `parts` of `medm2t_jax.models.encoded.Predictions`.
  """

  logits: Float[Array, 'd u c']
  parts: Float[Array, 'd m u c']
  label: Float[Array, 'd u']
  weight: Float[Array, 'd u']


def forward_step(model: MedM2T, stage: str) -> Callable[[Mapping[str, Any], Batch], Units]:
  """Returns the compiled `(variables, batch) -> units of this process`, without dropout.

  The one program of validation and prediction: compiled once for all folds, runs, splits
  and scenarios of equal models.

  Args:
    model: with `axis_name=DEVICE_AXIS`.
    stage: of the model.
  """
  key: Any = model  # an unbound module is hashable, which its type does not say
  return _forward_step(key, stage)


@functools.lru_cache(maxsize=64)
def _forward_step(model: MedM2T, stage: str) -> Callable[[Mapping[str, Any], Batch], Units]:
  def step(variables: Mapping[str, Any], batch: Batch) -> Units:
    predictions = model.apply(variables, batch, stage=stage, train=False)
    assert isinstance(predictions, Predictions)  # nothing is mutable here
    return Units(predictions.logits, predictions.parts, *_targets(batch, predictions))

  return jax.pmap(step, axis_name=DEVICE_AXIS, in_axes=(None, 0), out_axes=0)


def validation_step(
  model: MedM2T, stage: str, loss: losses.Loss, class_weights: Sequence[float]
) -> Callable[[Mapping[str, Any], Batch], tuple[LossSum, Units]]:
  """Returns the compiled `(variables, batch) -> (loss, units of this process)`."""

  def summed(units: Units) -> LossSum:
    each = loss(units.logits, units.label)
    sums = losses.weighted_sum(each, units.label, units.weight, class_weights)
    return LossSum(*_sum_over_devices(sums))

  loss_step = jax.pmap(summed, axis_name=DEVICE_AXIS, in_axes=0, out_axes=None)
  forward = forward_step(model, stage)

  def step(variables: Mapping[str, Any], batch: Batch) -> tuple[LossSum, Units]:
    units = forward(variables, batch)
    return loss_step(units), units

  return step


def predict_step(
  model: MedM2T, stage: str
) -> Callable[[Mapping[str, Any], Batch], Float[Array, 'd b c']]:
  """Returns the compiled prediction `(variables, batch) -> logits` of each batch row.

  Variables with an entry 'blend' (`medm2t_jax.blend.restore`) are those of a blend.

  Args:
    model: with `axis_name=DEVICE_AXIS`.
    stage: a stage whose unit is the sample.
  """
  forward = forward_step(model, stage)

  def step(variables: Mapping[str, Any], batch: Batch) -> Float[Array, 'd b c']:
    own = {name: part for name, part in variables.items() if name != 'blend'}
    logits = forward(own, batch).logits
    if 'blend' not in variables:
      return logits
    return _blend_step(model.config.columns)(
      variables['blend'], columns.without_signals(batch), logits
    )

  return step


@functools.lru_cache(maxsize=64)
def _blend_step(
  kinds: tuple[tuple[str, columns.ColumnKind], ...],
) -> Callable[[Mapping[str, Any], Batch, Array], Float[Array, 'd b c']]:
  """Our model's outputs with those of baselines, which read the same columns."""

  def step(
    kept: Mapping[str, Any], batch: Batch, logits: Float[Array, 'b c']
  ) -> Float[Array, 'b c']:
    table = columns.table(kinds, jax.tree.map(lambda x: x[jnp.newaxis], dict(batch)))
    predictors = {name: outputs(arrays, table) for name, arrays in kept['models'].items()}
    return blend(
      {OURS: log_probabilities(logits), **predictors}, kept['weights'], kept['prior']
    )

  return jax.pmap(step, axis_name=DEVICE_AXIS, in_axes=(None, 0, 0), out_axes=0)


def release_programs() -> None:
  """Frees the compiled programs where there are many: they are compiled anew when needed.

  On CPUs they stay in memory as thousands of mappings, of which Linux allows a process
  65,530: folds and ablations would come to their end.
  """
  maps = Path('/proc/self/maps')
  if maps.exists() and maps.read_bytes().count(b'\n') > _MOST_MAPPINGS:
    jax.clear_caches()


def _sum_over_devices(tree: Any) -> Any:
  if jax.lax.axis_size(DEVICE_AXIS) == 1:
    return tree  # XLA would copy every gradient
  return jax.lax.psum(tree, DEVICE_AXIS)


def _targets(
  batch: Batch, predictions: Predictions
) -> tuple[Float[Array, ' u'], Float[Array, ' u']]:
  """Label and weight of each prediction: those of the row that owns it."""
  label = batch['label'][predictions.owner]
  weight = batch['weight'][predictions.owner]
  return label, jnp.where(predictions.mask, weight, 0.0)
