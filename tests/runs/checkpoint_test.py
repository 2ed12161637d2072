"""Checkpoints: what comes back, which are kept, and who must not be in them."""

from __future__ import annotations

import dataclasses
import gc
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data_pipeline.format.schema import DataError
from medm2t_jax.runs import checkpoint
from medm2t_jax.runs.hosts import devices as placement
from medm2t_jax.runs.train_state import TrainState

# Coroutines whose loop has ended, see `orbax_leftovers`.
pytestmark = [
  pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning'),
  pytest.mark.filterwarnings('ignore:coroutine .* was never awaited'),
]

LINEAGE = checkpoint.Lineage(
  fold=0,
  fitted_on=frozenset({'a', 'b', 'c'}),
  selected_on=frozenset({'d'}),
  data_version='data',
  code_version='code',
  model={'size': 'small'},
)


def make_state(value: float, step: int, width: int = 3) -> TrainState:
  params = {'layer': {'kernel': jnp.full((width, 2), value)}}
  return TrainState(
    step=jnp.asarray(step, jnp.int32),
    params=params,
    batch_stats={'norm': {'mean': jnp.full((2,), value)}},
    fitted={'events': {'item_seen': jnp.array([True, False])}},
    optimizer=optax.adam(1e-3).init(params),
  )


def restore_latest(checkpoints, template) -> checkpoint.Restored:
  restored = checkpoints.restore_latest(template)
  assert restored is not None
  return restored


@pytest.fixture(autouse=True, scope='module')
def orbax_leftovers():
  """Collects here, where it may warn, what orbax leaves of a restore that failed."""
  yield
  gc.collect()


@pytest.mark.parametrize('name', ['a[b]', '*', '**', 'a?b', '{k}=v', 'ä #%20 x'])
def test_a_folder_may_be_called_anything(tmp_path, name):
  state = make_state(1.5, 7)
  with checkpoint.Checkpoints(tmp_path / name) as checkpoints:
    checkpoints.save(state, {'epoch': 2, 'step': 3}, lineage=LINEAGE, best_step=7)
    restored = restore_latest(checkpoints, make_state(0.0, 0))
  np.testing.assert_array_equal(restored.state.params['layer']['kernel'], 1.5)
  assert [path.name for path in tmp_path.iterdir()] == [name]


def test_state_position_and_lineage_come_back(tmp_path):
  state = make_state(1.5, 7)
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state, {'epoch': 2, 'step': 3}, lineage=LINEAGE, best_step=7)
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest_step == 7
    restored = restore_latest(checkpoints, make_state(0.0, 0))
    assert checkpoints.lineage(7) == restored.lineage == LINEAGE
  assert restored.position == {'epoch': 2, 'step': 3}
  assert not restored.notes
  jax.tree.map(np.testing.assert_array_equal, restored.state, state)


def test_variables_come_back_without_the_optimizer(tmp_path):
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(make_state(2.0, 1), {}, lineage=LINEAGE, best_step=1)
    template = jax.eval_shape(lambda: make_state(0.0, 0).variables)
    restored = checkpoints.restore_variables(1, template)
  assert set(restored) == {'params', 'batch_stats', 'fitted'}
  jax.tree.map(np.testing.assert_array_equal, restored, make_state(2.0, 1).variables)


def test_best_and_latest_are_kept(tmp_path):
  best_steps = {1: 1, 2: 2, 3: 2, 4: 2, 5: 2}
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    for step, best in best_steps.items():
      checkpoints.save(make_state(0.0, step), {}, lineage=LINEAGE, best_step=best)
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest_step == 5
  kept = {int(path.name) for path in tmp_path.iterdir() if path.name.isdecimal()}
  assert kept == {2, 4, 5}


def test_another_shape_is_one_clear_error(tmp_path):
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(make_state(2.0, 1), {}, lineage=LINEAGE, best_step=1)
    template = jax.eval_shape(lambda: make_state(0.0, 0, width=4).variables)
    with pytest.raises(DataError, match='another configuration'):
      checkpoints.restore_variables(1, template)


@pytest.mark.parametrize('cut', ['half', 'empty'])
@pytest.mark.parametrize(
  'damage',
  ['params/d/*', 'params/manifest.ocdbt', 'optimizer/_METADATA', 'position/*', 'lineage/*'],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, caplog, damage, cut):
  directory = tmp_path / 'checkpoints'
  with checkpoint.Checkpoints(directory) as checkpoints:
    for step in (1, 2):
      state = make_state(step, step, width=300)
      checkpoints.save(state, {'step': step}, lineage=LINEAGE, best_step=1)
  for path in (directory / '2').glob(damage):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 * (cut == 'half')])
  template = make_state(0.0, 0, width=300)
  with checkpoint.Checkpoints(directory) as checkpoints:
    restored = restore_latest(checkpoints, template)
    assert restored.position == {'step': 1}
    jax.tree.map(np.testing.assert_array_equal, restored.state, make_state(1, 1, width=300))
    (note,) = restored.notes
    assert str(directory / '2' / damage.split('/')[0]) in note
    assert 'Training went on from step 1' in note and note in caplog.text
    # Training comes by that step again.
    again = make_state(5, 2, width=300)
    checkpoints.save(again, {'step': 2}, lineage=LINEAGE, best_step=1)
  assert (tmp_path / 'damaged' / '2').exists()
  with checkpoint.Checkpoints(directory) as checkpoints:
    restored = restore_latest(checkpoints, template)
  jax.tree.map(np.testing.assert_array_equal, restored.state, again)


def test_without_any_intact_checkpoint_nothing_is_restored_or_moved(tmp_path):
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.restore_latest(make_state(0.0, 0)) is None
    for step in (1, 2):
      checkpoints.save(make_state(1, step), {}, lineage=LINEAGE, best_step=1)
  message = r'none of the checkpoints .*2/params.*delete'
  with (
    checkpoint.Checkpoints(tmp_path) as checkpoints,
    pytest.raises(DataError, match=message),
  ):
    checkpoints.restore_latest(make_state(0.0, 0, width=4))
  assert {path.name for path in tmp_path.iterdir()} == {'1', '2'}


def test_a_save_replaces_one_at_the_same_step(tmp_path):
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    for epoch in (1, 2):
      state = make_state(epoch, 3)
      checkpoints.save(state, {'epoch': epoch}, lineage=LINEAGE, best_step=None)
    restored = restore_latest(checkpoints, make_state(0.0, 0))
  assert restored.position == {'epoch': 2}
  np.testing.assert_array_equal(restored.state.params['layer']['kernel'], 2)


def test_training_may_go_on_while_a_save_is_written(tmp_path):
  """The step donates its state: its buffers are used again at once."""
  step = jax.pmap(
    lambda state, _: jax.tree.map(lambda leaf: leaf + leaf, state),
    in_axes=(None, 0),
    out_axes=None,
    donate_argnums=0,
  )
  devices, donated = np.zeros(jax.local_device_count()), 0
  # While the save still reads a buffer, JAX copies it instead: tried more than once.
  for attempt in range(5):
    state = make_state(1.0 + attempt, 1, width=200_000)
    state = jax.device_put(state, placement.replicated())
    expected = jax.tree.map(np.array, state)  # a view would hold the buffers
    with checkpoint.Checkpoints(tmp_path / str(attempt)) as checkpoints:
      checkpoints.save(state, {}, lineage=LINEAGE, best_step=None)
      kernel = state.params['layer']['kernel']
      for _ in range(3):
        state = step(state, devices)
      jax.block_until_ready(state)
      donated += kernel.is_deleted()
    with checkpoint.Checkpoints(tmp_path / str(attempt)) as checkpoints:
      restored = restore_latest(checkpoints, state)
    jax.tree.map(np.testing.assert_array_equal, restored.state, expected)
    if donated:
      break
  assert donated, 'nothing was donated'


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


def test_whom_a_model_has_seen_is_known_along_all_that_it_started_from():
  """By key: from data of one institution to another one's, and back."""
  named = lambda name: dataclasses.replace(
    LINEAGE, fitted_on=frozenset({name}), selected_on=frozenset({f'{name} too'})
  )
  started = lambda lineage, key: {**lineage.to_json(), 'key_fingerprint': key}
  second = dataclasses.replace(named('b'), started_from=started(named('a'), 'one'))
  third = dataclasses.replace(named('c'), started_from=started(second, 'two'))
  third = checkpoint.Lineage.from_json(json.loads(json.dumps(third.to_json())))
  assert third.seen('one') == {
    'one': frozenset({'a', 'a too', 'c', 'c too'}),
    'two': frozenset({'b', 'b too'}),
  }
