"""Checkpoints: what comes back, which are kept, and who must not be in them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data_pipeline.schema import DataError
from medm2t_jax import checkpoint, parallel

LINEAGE = checkpoint.Lineage(
  fold=0,
  fitted_on=frozenset({'a', 'b', 'c'}),
  selected_on=frozenset({'d'}),
  data_version='data',
  code_version='code',
  model={'size': 'small'},
)


def make_state(value: float, step: int, width: int = 3) -> parallel.TrainState:
  params = {'layer': {'kernel': jnp.full((width, 2), value)}}
  return parallel.TrainState(
    step=jnp.asarray(step, jnp.int32),
    params=params,
    batch_stats={'norm': {'mean': jnp.full((2,), value)}},
    fitted={'events': {'item_seen': jnp.array([True, False])}},
    optimizer=optax.adam(1e-3).init(params),
  )


def test_state_position_and_lineage_come_back(tmp_path):
  state = make_state(1.5, 7)
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state, {'epoch': 2, 'step': 3}, lineage=LINEAGE, validation_loss=0.5)
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest_step == checkpoints.best_step == 7
    restored, position = checkpoints.restore_training(7, make_state(0.0, 0))
    assert checkpoints.lineage(7) == LINEAGE
  assert position == {'epoch': 2, 'step': 3}
  jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_variables_come_back_without_the_optimizer(tmp_path):
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(make_state(2.0, 1), {}, lineage=LINEAGE, validation_loss=1.0)
    template = jax.eval_shape(lambda: make_state(0.0, 0).variables)
    restored = checkpoints.restore_variables(1, template)
  assert set(restored) == {'params', 'batch_stats', 'fitted'}
  jax.tree.map(np.testing.assert_array_equal, restored, make_state(2.0, 1).variables)


def test_best_and_latest_are_kept(tmp_path):
  values = {1: 0.9, 2: 0.2, 3: 0.5, 4: None, 5: 0.7}
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    for step, loss in values.items():
      checkpoints.save(make_state(0.0, step), {}, lineage=LINEAGE, validation_loss=loss)
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.best_step == 2
    assert checkpoints.latest_step == 5
  kept = {int(path.name) for path in tmp_path.iterdir() if path.name.isdecimal()}
  assert kept == {2, 4, 5}


def test_another_shape_is_one_clear_error(tmp_path):
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(make_state(2.0, 1), {}, lineage=LINEAGE, validation_loss=1.0)
    template = jax.eval_shape(lambda: make_state(0.0, 0, width=4).variables)
    with pytest.raises(DataError, match='another configuration'):
      checkpoints.restore_variables(1, template)


def test_a_missing_checkpoint_is_one_clear_error(tmp_path):
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    template = jax.eval_shape(lambda: make_state(0.0, 0).variables)
    with pytest.raises(DataError, match='cannot be restored'):
      checkpoints.restore_variables(9, template)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'fitted_on': frozenset({'a', 'v'})}, 'fitted on 1 validation'),
    ({'fitted_on': frozenset({'a', 't'})}, 'fitted on 1 test'),
    ({'selected_on': frozenset({'t', 'u'})}, 'selected on 2 test'),
  ],
)
def test_a_checkpoint_that_saw_held_out_subjects_is_refused(tmp_path, change, message):
  check = {
    'fold': 3,
    'validation': frozenset({'v', 'd'}),
    'test': frozenset({'t', 'u'}),
    'where': tmp_path,
  }
  LINEAGE.require_unseen(**check)
  with pytest.raises(DataError, match=message):
    dataclasses.replace(LINEAGE, **change).require_unseen(**check)


def test_starting_from_a_checkpoint_inherits_whom_it_saw():
  other = dataclasses.replace(
    LINEAGE, fitted_on=frozenset({'x'}), selected_on=frozenset({'y'})
  )
  joined = LINEAGE.joined(other)
  assert joined.fitted_on == {'a', 'b', 'c', 'x'}
  assert joined.selected_on == {'d', 'y'}
