"""Compiled steps of training and prediction, data-parallel (`runs.hosts.devices`).

Gradients and losses are sums over devices, divided once by the summed weights. So devices
with different numbers of valid rows give the same update as one device with all rows.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from medm2t_jax.models.encoded import Predictions
from medm2t_jax.models.medm2t import MedM2T
from medm2t_jax.runs.hosts.devices import DEVICE_AXIS, on_devices, sum_over_devices
from medm2t_jax.runs.train_state import TrainState
from medm2t_jax.training import losses
from medm2t_jax.training import optimizer as optimizers

Batch = Mapping[str, Any]
# A batch -> the outputs of its rows (d b c), on the scale of the model's link.
Predictor = Callable[[Batch], Float[Array, 'd b c']]


class LossSum(NamedTuple):
  """A sum of weighted losses and the sum of the weights, over all devices."""

  total: Float[Array, '']
  weight: Float[Array, '']


def train_step(
  model: MedM2T,
  stage: str,
  optimizer: optax.GradientTransformation,
  loss: losses.StageLoss,
  frozen: Sequence[str] = (),
  ema_decay: float = 0.0,
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, LossSum]]:
  """Returns the compiled update `(state, batch, key) -> (state, loss)`.

  Args:
    model: with `axis_name=DEVICE_AXIS`.
    stage: stage of the model.
    optimizer: optax optimizer.
    loss: of the stage.
    frozen: paths of parameters that the optimizer does not update.
    ema_decay: of the average of the parameters; 0: `averaged` of the state is empty.

  There is one key per run and stage; the step folds in the step number and the device. The
  buffers of the old state are donated. If the norm of the gradient is not finite, the loss
  is NaN, so that the batch at fault is reported and not the one after it.
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
      each = losses.of_heads(loss.each, predictions.heads, label, model.members(stage))
      total, count = losses.weighted_sum(each, loss.weigh(label, weight))
      return total, (count, updates['batch_stats'])

    (total, (count, batch_stats)), gradients = jax.value_and_grad(local_loss, has_aux=True)(
      state.params
    )
    total, count, gradients = sum_over_devices((total, count, gradients))
    gradients = jax.tree.map(lambda g: g / count, gradients)
    # Clipping needs the norm too, so XLA computes and compiles it only once.
    norm = optax.tree.norm(gradients)
    total = jnp.where(jnp.isfinite(norm), total, jnp.nan)
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
    params, averaged = optax.apply_updates(state.params, updates), state.averaged
    if ema_decay:
      decay = optimizers.decay_of_update(ema_decay, state.step + 1)
      averaged = optimizers.averaged(averaged, params, decay)
      batch_stats = optimizers.averaged_statistics(state.batch_stats, batch_stats, decay)
    state = dataclasses.replace(
      state,
      step=state.step + 1,
      params=params,
      batch_stats=batch_stats,
      optimizer=optimizer_state,
      averaged=averaged,
    )
    return state, LossSum(total, count)

  return on_devices(
    step,
    in_axes=(None, 0, None),
    out_axes=(None, None),
    donate_argnums=(0,),
  )


class Units(NamedTuple):
  """Predictions for the stage's units; `weight` is 0 for padding.

  `parts` is that of `medm2t_jax.models.encoded.Predictions`.
  """

  logits: Float[Array, 'd u c']
  parts: Float[Array, 'd m u c']
  label: Float[Array, 'd u ...']
  weight: Float[Array, 'd u']


def forward_step(model: MedM2T, stage: str) -> Callable[[Mapping[str, Any], Batch], Units]:
  """Returns the compiled `(variables, batch) -> units of this process`, without dropout.

  Validation and prediction share this program: it is compiled once for all folds, runs,
  splits and scenarios of equal models.

  Args:
    model: with `axis_name=DEVICE_AXIS`.
    stage: of the model.
  """
  key: Any = model  # an unbound module is hashable, but its type does not say so
  return _forward_step(key, stage)


@functools.lru_cache(maxsize=64)
def _forward_step(model: MedM2T, stage: str) -> Callable[[Mapping[str, Any], Batch], Units]:
  def step(variables: Mapping[str, Any], batch: Batch) -> Units:
    predictions = model.apply(variables, batch, stage=stage, train=False)
    assert isinstance(predictions, Predictions)  # no collection is mutable here
    return Units(predictions.logits, predictions.parts, *_targets(batch, predictions))

  return on_devices(step, in_axes=(None, 0), out_axes=0)


def validation_step(
  model: MedM2T, stage: str, loss: losses.StageLoss
) -> Callable[[Mapping[str, Any], Batch], tuple[LossSum, Units]]:
  """Returns the compiled `(variables, batch) -> (loss, units of this process)`."""

  def summed(units: Units) -> LossSum:
    weight = loss.weigh(units.label, units.weight)
    sums = losses.weighted_sum(loss.each(units.logits, units.label), weight)
    return LossSum(*sum_over_devices(sums))

  loss_step = on_devices(summed, in_axes=0, out_axes=None)
  forward = forward_step(model, stage)

  def step(variables: Mapping[str, Any], batch: Batch) -> tuple[LossSum, Units]:
    units = forward(variables, batch)
    return loss_step(units), units

  return step


def predictor(model: MedM2T, stage: str, variables: Mapping[str, Any]) -> Predictor:
  """Returns a function from a batch to the outputs (d b c) of its rows.

  Args:
    model: with `axis_name=DEVICE_AXIS`.
    stage: a stage whose unit is the sample.
    variables: of the stage.
  """
  forward = forward_step(model, stage)
  return lambda batch: forward(variables, batch).logits


def _targets(
  batch: Batch, predictions: Predictions
) -> tuple[Float[Array, 'u ...'], Float[Array, ' u']]:
  """Label and weight of each prediction: those of the row that owns it."""
  label = batch['label'][predictions.owner]
  weight = batch['weight'][predictions.owner]
  return label, jnp.where(predictions.mask, weight, 0.0)
