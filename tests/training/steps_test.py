"""Eight devices and one give the same training and the same predictions."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medm2t_jax.experiment import Recipe
from medm2t_jax.models.medm2t import MedM2T
from medm2t_jax.runs.hosts import devices
from medm2t_jax.runs.train_state import TrainState
from medm2t_jax.targets import losses
from medm2t_jax.training import steps
from medm2t_jax.training.losses import StageLoss, make_loss
from medm2t_jax.training.optimizer import promoting
from tests.support import fake_batch

ROWS = 16
TASK = 'cvd'


def without_dropout(config: Any) -> Any:
  """A model configuration with every dropout rate at 0, at any depth."""
  if isinstance(config, tuple):
    return tuple(without_dropout(part) for part in config)
  if not dataclasses.is_dataclass(config) or isinstance(config, type):
    return config
  fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
  return dataclasses.replace(
    config,
    **{
      name: 0.0
      if 'dropout' in name and isinstance(value, float)
      else without_dropout(value)
      for name, value in fields.items()
    },
  )


def model_config():
  return without_dropout(fake_batch.tiny(TASK, fusion='none'))


def spread(batch: Any, shares: list[int]) -> Any:
  """One device's batch split over devices: `shares[d]` rows each, the rest padding.

  Recordings follow their owners; every device gets the same padded shapes.
  """
  rows_each = max(shares)
  recordings = len(batch['ecg']['mask'])
  starts = np.cumsum([0, *shares])
  devices = []
  for start, share in zip(starts, shares, strict=False):
    pad = lambda array, n=share, s=start: np.concatenate(
      [array[s : s + n], np.zeros((rows_each - n, *array.shape[1:]), array.dtype)]
    )
    device = jax.tree.map(pad, {k: v for k, v in batch.items() if k != 'ecg'})
    device['row'] = np.where(device['weight'] > 0, device['row'], -1)
    ecg = batch['ecg']
    mine = ecg['mask'] & (ecg['owner'] >= start) & (ecg['owner'] < start + share)
    take = np.flatnonzero(mine)
    device['ecg'] = {
      key: np.concatenate(
        [
          array[take],
          np.zeros((recordings - len(take), *array.shape[1:]), array.dtype),
        ]
      )
      for key, array in ecg.items()
    }
    device['ecg']['owner'][: len(take)] -= start
    devices.append(device)
  return jax.tree.map(lambda *parts: np.stack(parts), *devices)


@functools.cache
def shapes(stage: str) -> Any:
  bare, batch = MedM2T(model_config()), fake_batch.batch(ROWS, task=TASK)
  return jax.eval_shape(
    lambda: bare.init(jax.random.key(0), batch, stage=stage, train=False)
  )


def make_state(stage: str, optimizer: Any) -> TrainState:
  variables = fake_batch.variables(shapes(stage))
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    batch_stats=variables['batch_stats'],
    fitted=variables['fitted'],
    optimizer=jax.jit(optimizer.init)(variables['params']),
  )
  return jax.device_put(state, devices.replicated())


@pytest.fixture(scope='module')
def batches():
  return [fake_batch.batch(ROWS, task=TASK, seed=seed) for seed in range(3)]


# Unequal shares, one device with a single row, two without any.
SHARES = [4, 1, 3, 0, 4, 2, 2, 0]


def test_devices_change_neither_losses_nor_predictions(batches):
  # Packed recordings, BatchNorm and class weights: all that a device could see apart.
  stage, weights = 'ecg', (0.1, 0.4, 0.3, 0.2)
  model = MedM2T(model_config(), axis_name=devices.DEVICE_AXIS)
  # The paper's rate of the last stage. With the usual epsilon of 1e-8 Adam makes whole
  # steps out of the rounding error of gradients that are zero.
  optimizer = promoting(optax.adam(5e-5, eps=1e-5))
  recipe = Recipe(ROWS, 1e-3, class_weights=weights)
  loss = make_loss(recipe, fake_batch.schema(TASK).target)
  step = steps.train_step(model, stage, optimizer, loss)
  key = jax.random.key(0)
  found = []
  for shares in ([ROWS], SHARES):
    current = make_state(stage, optimizer)
    history = []
    for index in range(8):
      batch = spread(batches[index % 3], shares)
      current, loss = step(current, batch, key)
      history.append(float(loss.total) / float(loss.weight))
    batch = spread(batches[0], shares)
    logits = np.asarray(steps.predictor(model, stage, current.variables)(batch))
    valid = batch['row'] >= 0
    order = np.argsort(batch['row'][valid])
    found.append((history, logits[valid][order]))
  (one_losses, one_logits), (losses_, logits) = found
  np.testing.assert_allclose(losses_, one_losses, rtol=1e-5)
  np.testing.assert_allclose(jax.nn.softmax(logits), jax.nn.softmax(one_logits), atol=1e-5)
  assert one_losses[-1] < one_losses[1]  # of the same batch


def test_a_step_compiles_once_per_shape(batches):
  model = MedM2T(model_config(), axis_name=devices.DEVICE_AXIS)
  optimizer = promoting(optax.adam(1e-3))
  traces = []

  def counted(logits, label):
    traces.append(logits.shape)
    return losses.nll(logits, label)

  step = steps.train_step(model, 'static', optimizer, StageLoss(counted))
  state = make_state('static', optimizer)
  for batch in batches:
    before = state
    state, _ = step(state, spread(batch, [2] * 8), jax.random.key(0))
    # Donated: the state is in memory once.
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))
  assert len(traces) == 1


def test_a_frozen_encoder_changes_no_update_of_the_rest(batches):
  model = MedM2T(model_config(), axis_name=devices.DEVICE_AXIS)
  batch = spread(batches[0], [2] * 8)
  found = {}
  for frozen in ((), ('encoders_*',)):
    optimizer = promoting(optax.adam(1e-3))
    step = steps.train_step(model, 'static', optimizer, StageLoss(losses.nll), frozen)
    state = make_state('static', optimizer)
    before = jax.device_get(state.params)
    state, _ = step(state, batch, jax.random.key(0))
    moved = jax.tree.map(lambda new, old: np.any(new != old), state.params, before)
    assert all(jax.tree.leaves(moved['decoders_static']))
    assert all(jax.tree.leaves(moved['encoders_static'])) == (not frozen)
    found[frozen] = state.params['decoders_static']
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6), *found.values()
  )


def test_a_gradient_that_is_not_finite_shows_in_its_own_step(batches):
  model = MedM2T(model_config(), axis_name=devices.DEVICE_AXIS)
  optimizer = optax.sgd(1e-3)

  def root_of_zero(logits, label):
    zero = jnp.sqrt(logits[:, 0] - logits[:, 0])
    return losses.nll(logits, label) + 0.0 * zero

  batch = spread(batches[0], [2] * 8)
  for loss, finite in ((losses.nll, True), (root_of_zero, False)):
    step = steps.train_step(model, 'static', optimizer, StageLoss(loss))
    _, total = step(make_state('static', optimizer), batch, jax.random.key(0))
    assert np.isfinite(float(total.total)) == finite
    assert float(total.weight) == ROWS - 1
