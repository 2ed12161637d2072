"""Every option of a stage's optimizer does what it says; torch and optax are oracles."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from data_pipeline.format.dataset import open_dataset
from data_pipeline.format.schema import DataError
from medm2t_jax.experiment import Recipe, read
from medm2t_jax.models.layers.batch_norm import MOMENTUM
from medm2t_jax.runs import checkpoint, workdir
from medm2t_jax.runs.restoring import restore_best
from medm2t_jax.runs.run import Run
from medm2t_jax.runs.train_state import TrainState
from medm2t_jax.training import optimizer, train
from tests.runs.checkpoint_test import LINEAGE
from tests.support import static_data

RATE = 0.1
STEPS = 20


def make(**changes):
  return optimizer.make_optimizer(Recipe(8, RATE, **changes), 'labs', STEPS)


def start():
  return {'encoder': {'kernel': jnp.array([1.0, -2.0, 3.0])}, 'decoder': jnp.array([0.5])}


def gradients(number):
  rng = np.random.default_rng(number)
  return jax.tree.map(lambda x: rng.normal(0, 2, x.shape).astype(np.float32), start())


def run(transformation, steps=5, params=None):
  """Parameters after `steps` fixed gradients, one tree a step; and the last state."""
  params = start() if params is None else params
  state = transformation.init(params)

  @jax.jit
  def update(gradient, state, params):
    updates, state = transformation.update(gradient, state, params)
    return optax.apply_updates(params, updates), state

  history = []
  for number in range(steps):
    params, state = update(gradients(number), state, params)
    history.append(params)
  return history, state


@pytest.mark.parametrize(
  ('name', 'oracle', 'decay'),
  [
    ('adam', torch.optim.Adam, 0.0),
    ('adam', torch.optim.Adam, 0.1),
    ('sgd', torch.optim.SGD, 0.1),
    ('adamw', torch.optim.AdamW, 0.1),
  ],
)
def test_optimizers_and_their_weight_decay_are_torchs(name, oracle, decay):
  leaves = jax.tree.leaves(start())
  parameters = [torch.tensor(np.asarray(leaf), requires_grad=True) for leaf in leaves]
  other = oracle(parameters, lr=RATE, weight_decay=decay)
  for number in range(5):
    for parameter, gradient in zip(
      parameters, jax.tree.leaves(gradients(number)), strict=True
    ):
      parameter.grad = torch.tensor(gradient)
    other.step()
  history, _ = run(make(optimizer=name, weight_decay=decay))
  for found, expected in zip(jax.tree.leaves(history[-1]), parameters, strict=True):
    np.testing.assert_allclose(found, expected.detach(), atol=1e-5)


def test_clipping_limits_the_global_norm():
  (after,), _ = run(make(optimizer='sgd', clip_norm=0.5), steps=1)
  moved = jax.tree.map(lambda new, old: new - old, after, start())
  np.testing.assert_allclose(optax.tree.norm(moved), RATE * 0.5, rtol=1e-5)
  assert optax.tree.norm(gradients(0)) > 0.5


@pytest.mark.parametrize(
  ('changes', 'expected'),
  [
    ({}, optax.constant_schedule(RATE)),
    ({'schedule': 'cosine'}, optax.cosine_decay_schedule(RATE, STEPS)),
    (
      {'schedule': 'cosine', 'warmup': 0.2},
      optax.warmup_cosine_decay_schedule(0.0, RATE, 4, STEPS),
    ),
    ({'warmup': 0.25}, lambda step: RATE * min(step / 5, 1)),
  ],
)
def test_the_learning_rate_follows_its_schedule(changes, expected):
  recipe = Recipe(8, RATE, **changes)
  rate = optimizer.learning_rate(recipe)
  schedule = lambda step: rate(jnp.asarray(step), jnp.asarray(STEPS))
  steps = range(STEPS + 3)  # a stage may turn out a little longer than planned
  np.testing.assert_allclose(
    [schedule(step) for step in steps], [expected(step) for step in steps], rtol=1e-5
  )


def test_a_schedule_reaches_the_updates():
  history, _ = run(make(optimizer='sgd', warmup=0.1), steps=2)
  jax.tree.map(np.testing.assert_array_equal, history[0], start())  # rate 0
  moved = start()['decoder'] - history[1]['decoder']
  np.testing.assert_allclose(moved, RATE / 2 * gradients(1)['decoder'], rtol=1e-5)


def test_decay_of_matrices_leaves_biases_and_the_scales_of_members():
  ones = lambda *shape: np.ones(shape, np.float32)
  trunk = {
    'chunk_table': ones(3, 2, 4), 'chunk_scale': ones(2, 3), 'chunk_bias': ones(4),
    'scale_in_0': ones(2, 4), 'bias_0': ones(2, 4), 'head': ones(2, 4, 2),
    'head_bias': ones(2, 2), 'hidden_0': {'kernel': ones(4, 4)},
    'norm': {'scale': ones(4), 'bias': ones(4)},
  }  # fmt: skip
  changes = {'weight_decay': 0.5, 'optimizer': 'adamw'}
  moved = {}
  for decayed in ('all', 'matrices'):
    transformation = make(decayed=decayed, **changes)
    state = jax.jit(transformation.init)(trunk)
    zeros = jax.tree.map(np.zeros_like, trunk)
    updates, _ = jax.jit(transformation.update)(zeros, state, trunk)
    flat = jax.tree_util.tree_leaves_with_path(updates)
    moved[decayed] = {
      jax.tree_util.keystr(path, simple=True, separator='/')
      for path, leaf in flat
      if np.abs(leaf).max() > 0
    }
  assert len(moved['all']) == 10
  assert moved['matrices'] == {'chunk_table', 'head', 'hidden_0/kernel'}


@pytest.mark.parametrize('path', ['encoder', 'enc*', 'encoder/kernel', '*/kernel'])
def test_frozen_parameters_stay_and_have_no_part_in_clipping(path):
  changes = {'optimizer': 'sgd', 'clip_norm': 0.1, 'weight_decay': 0.2}
  (after,), _ = run(make(frozen=(path,), **changes), steps=1)
  np.testing.assert_array_equal(after['encoder']['kernel'], start()['encoder']['kernel'])
  # The only trained gradient is longer than 0.1, so it is cut to that; then decay.
  clipped = 0.1 * np.sign(gradients(0)['decoder'])
  expected = start()['decoder'] * (1 - RATE * 0.2) - RATE * clipped
  np.testing.assert_allclose(after['decoder'], expected, rtol=1e-5)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'optimizer': 'adan'}, "optimizer='adan'.*'adam'.*adam, sgd, adamw"),
    ({'schedule': 'cosin'}, "schedule='cosin'.*'cosine'.*constant, cosine"),
    ({'warmup': 1.0}, 'warmup=1.0.*below 1'),
    ({'warmup': -0.1}, 'warmup=-0.1.*at least 0'),
    ({'ema_decay': 1.0}, 'ema_decay=1.0.*below 1'),
    ({'weight_decay': -0.1}, 'weight_decay=-0.1.*at least 0'),
    ({'clip_norm': -1.0}, 'clip_norm=-1.0.*at least 0'),
    ({'huber_delta': 0.0}, 'huber_delta=0.0.*above 0'),
    ({'class_weights': (1.0, 0.0)}, r'class_weights\[1\]=0.0.*above 0'),
  ],
)
def test_values_that_do_not_suit_are_refused(changes, message):
  with pytest.raises(DataError, match=message):
    make(**changes)


@pytest.mark.parametrize('path', ['encode', 'kernel', 'Enc*'])
def test_a_frozen_path_that_does_not_exist_is_refused(path):
  with pytest.raises(DataError, match=rf"under '{re.escape(path)}'.*decoder.*encoder"):
    make(frozen=(path,)).init(start())


def test_frozen_parameters_have_no_gradient():
  loss = lambda params: jnp.sum(params['encoder']['kernel'] ** 2) + params['decoder'][0]
  held = lambda params: loss(optimizer.without_frozen_gradients(params, ('enc*',)))
  assert held(start()) == loss(start())
  found = jax.grad(held)(start())
  np.testing.assert_array_equal(found['encoder']['kernel'], np.zeros(3))
  np.testing.assert_array_equal(found['decoder'], [1.0])


def test_the_moving_average_follows_what_is_trained():
  plain, _ = run(make(schedule='cosine', weight_decay=0.1), steps=STEPS)
  average = expected = start()
  for step, now in enumerate(plain, 1):
    decay = optimizer.decay_of_update(0.5, jnp.asarray(step))
    assert float(decay) == pytest.approx(min(0.5, (1 + step) / (10 + step)))
    average = optimizer.averaged(average, now, decay)
    d = float(decay)
    expected = jax.tree.map(lambda a, b, d=d: d * a + (1 - d) * b, expected, now)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), average, expected
    )


def test_running_statistics_are_averaged_as_the_parameters_are():
  old, batch = jnp.array([1.0]), jnp.array([3.0])
  new = MOMENTUM * old + (1 - MOMENTUM) * batch
  decay = optimizer.decay_of_update(0.95, jnp.asarray(3))
  found = optimizer.averaged_statistics({'mean': old}, {'mean': new}, decay)
  decay = 4 / 13  # of update 3
  np.testing.assert_allclose(found['mean'], decay * old + (1 - decay) * batch, rtol=1e-5)


@pytest.mark.parametrize(
  'changes',
  [{'ema_decay': 0.9}, {'frozen': ('encoder',), 'schedule': 'cosine'}],
)
def test_its_state_comes_back_from_a_checkpoint(tmp_path, changes):
  transformation = make(**changes)
  state = lambda params, optimizer_state, step: TrainState(
    step=jnp.asarray(step, jnp.int32),
    params=params,
    batch_stats={'mean': jnp.zeros(1)},
    fitted={'offset': jnp.zeros(1)},
    optimizer=optimizer_state,
    averaged=params if 'ema_decay' in changes else (),
  )
  history, last = run(transformation, steps=3)
  saved = state(history[-1], last, 3)
  fresh = state(start(), transformation.init(start()), 0)
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(saved, {}, lineage=LINEAGE, best_step=None)
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    restored = checkpoints.restore_latest(fresh)
  jax.tree.map(np.testing.assert_array_equal, restored.state, saved)
  assert bool(restored.state.averaged) == ('ema_decay' in changes)


class Killed(Exception):
  """Stands for a process that ends after its first epoch."""


def test_a_stage_is_validated_and_resumed_with_averaged_parameters(tmp_path, monkeypatch):
  data = static_data.build(tmp_path)

  def trained(name, **recipe):
    config = static_data.config(data, learning_rate=0.05, **recipe)
    fold = Run(read(config), open_dataset(data), 0, tmp_path / name)
    train.train_stage(fold, 'static')
    record = workdir.read_record(fold.workdir, 0, 'static')
    history = [(epoch['train_loss'], epoch['validation_loss']) for epoch in record.history]
    return history, restore_best(fold, 'static')[0]

  plain, _ = trained('plain')
  averaged, best = trained('averaged', ema_decay=0.9)
  # The losses in training are those of the trained parameters, which do not change.
  np.testing.assert_allclose([t for t, _ in averaged], [t for t, _ in plain], rtol=1e-5)
  assert all(a != b for (_, a), (_, b) in zip(averaged, plain, strict=True))

  save = checkpoint.Checkpoints.save

  def save_and_die(self, *arguments, **named):
    save(self, *arguments, **named)
    raise Killed

  with monkeypatch.context() as patched:
    patched.setattr(checkpoint.Checkpoints, 'save', save_and_die)
    with pytest.raises(Killed):
      trained('resumed', ema_decay=0.9)
  resumed, its_best = trained('resumed', ema_decay=0.9)
  assert resumed == averaged
  jax.tree.map(np.testing.assert_array_equal, its_best, best)
