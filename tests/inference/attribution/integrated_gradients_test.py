"""Attributions against exact answers, and of a planted item; padding: explainer_test.py."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medm2t_jax.experiment.model_config import model_config
from medm2t_jax.inference.attribution.integrated_gradients import (
  FEWEST,
  doubled,
  integrate,
  level_of,
  nodes_of,
)
from medm2t_jax.inference.attribution.whole_model import Member, explain_step
from medm2t_jax.models.gates import gated
from medm2t_jax.models.medm2t import MedM2T
from tests.support import fake_batch

# Two modalities compile fast.
SCHEMA = fake_batch.schema('mortality').only(('static', 'labs'))
ODDS = np.array([[False, True]])


def up_to(step, level):
  """What all levels say together."""
  found = level_of(step, 0)
  for each in range(1, level + 1):
    found = doubled(found, level_of(step, each))
  return found


def path_of(function, gates, level=3):
  return up_to(jax.jit(functools.partial(integrate, function, gates)), level)


def attributed(model, variables, batch, against_first, level=3):
  return up_to(functools.partial(alone(model, variables), batch, against_first), level)


def alone(model, variables):
  """The step of a network without a blend, `(batch, chosen, nodes) -> Part` by modality."""
  step, members = explain_step(model), (Member(variables),)

  def of_gates(batch, chosen, nodes):
    part = step(members, batch, ({},), chosen, nodes)
    return part._replace(slopes=part.slopes.gates)

  return of_gates


@pytest.mark.parametrize('level', [0, 1, 4])
def test_levels_are_the_trapezoidal_rule_on_evenly_spaced_roots(level):
  # Squares of the roots have the derivative 2 root: the place is dense at the start.
  function = lambda place: np.exp(3 * place) - place**2
  found = None
  for each in range(level + 1):
    own = sum(
      float(np.sum(nodes.weight * function(nodes.root**2))) for nodes in nodes_of(each)
    )
    found = own if found is None else (found + own) / 2
  root = np.linspace(0, 1, FEWEST * 2**level + 1)
  expected = np.trapezoid(2 * root * function(root**2), root)
  assert found == pytest.approx(expected, rel=1e-5)


def test_a_linear_function_is_attributed_exactly():
  weight = np.array([2.0, -1.0, 0.5])
  x = np.array([[1.0, 3.0, -4.0], [0.0, 1.0, 2.0]])
  found = path_of(
    lambda gates: jnp.sum(weight * x * gates['x'], axis=1) + 7, {'x': jnp.ones((2, 3))}, 0
  )
  np.testing.assert_allclose(found.slopes['x'], weight * x, rtol=1e-6)
  np.testing.assert_array_equal(found.output, [4, 7])
  np.testing.assert_array_equal(found.baseline, [7, 7])


def test_a_product_is_shared_and_a_kink_costs_little():
  ones = jnp.ones((1, 2))
  found = path_of(lambda g: 6 * g[:, 0] * g[:, 1] ** 2, ones)
  np.testing.assert_allclose(found.slopes, [[2, 4]], rtol=1e-4)
  found = path_of(lambda g: jax.nn.relu(3 * g[:, 0] - g[:, 1]), ones)
  np.testing.assert_allclose(found.slopes, [[3, -1]], rtol=1e-5)
  found = path_of(lambda g: jax.nn.relu(g[:, 0] + g[:, 1] - 0.7), ones)
  np.testing.assert_allclose(found.slopes.sum(), 1.3, atol=0.01)


def test_a_steep_start_is_not_missed():
  # As a LayerNorm of a window whose events are all closed.
  steep = lambda g: g[:, 0] / jnp.sqrt(g[:, 0] ** 2 + 1e-6)
  found = path_of(steep, jnp.ones((1, 1)))
  np.testing.assert_allclose(found.slopes.sum(), 1, atol=0.02)


def test_without_a_gate_nothing_is_computed():
  x = jnp.ones(3)
  assert gated({'signal': x}, 'signal', x) is x


def batch_of(events: int) -> dict:
  return fake_batch.batch(rows=1, events=events)


def model_of(**changed: Any):
  options = dataclasses.replace(fake_batch.OPTIONS, **changed)
  model = MedM2T(model_config('mortality', options, SCHEMA))
  init = lambda: model.init(
    jax.random.key(0), batch_of(12), stage='multimodal', train=False
  )
  return model, fake_batch.variables(jax.eval_shape(init))


PIECEWISE = {'value_encoding': 'piecewise_linear'}
PLANTED = 2


def test_rows_do_not_share_attributions():
  model, variables = model_of()
  step = alone(model, variables)
  nodes = nodes_of(0)[0]
  batch = fake_batch.batch(rows=4, events=12)
  together = step(batch, np.repeat(ODDS, 4, axis=0), nodes)
  for row in range(3):
    single = jax.tree.map(lambda x, row=row: x[row : row + 1], batch)
    found = step(single, ODDS, nodes)
    np.testing.assert_allclose(together.value[:, row], found.value[:, 0], atol=1e-5)
    each = map(jax.tree.leaves, (found.slopes, together.slopes))
    for one, all_ in zip(*each, strict=True):
      np.testing.assert_allclose(all_[row : row + 1], one, atol=1e-5)


def leave_out_others(encoder: dict, item_of_id: np.ndarray) -> None:
  """Sets the tables of all items but one to 0."""
  if 'item_statistics' in encoder:
    tables = encoder['item_statistics']
    tables['statistic_table'] *= (item_of_id[:-1] == PLANTED)[:, None]
    # Random tables are as large as LayerNorm's inputs never are.
    tables['rate_table'] *= 0.1
  else:
    here = np.arange(len(encoder['source_table'])) == PLANTED
    encoder['source_table'] *= here[:, None]


@pytest.mark.parametrize(
  'options',
  [
    {},
    {**PIECEWISE, 'pooling': 'statistics', 'sequence': 'mean_last'},
  ],
  ids=['tokens', 'statistics'],
)
def test_the_item_that_decides_is_the_only_one(options):
  model, variables = model_of(**options)
  item_of_id = model.config.modality('labs').config.item_of_id
  leave_out_others(variables['params']['encoders_labs'], item_of_id)
  # Random parameters hardly pass on what the events say.
  variables['params']['fusion']['project_labs']['kernel'] *= 100
  batch = batch_of(12)
  found = attributed(model, variables, batch, ODDS)
  token = np.asarray(found.slopes['labs']['token_gate'])[0]
  here = batch['labs']['item'][0] == PLANTED
  assert 0 < here.sum() < 12
  assert not token[~here].any()
  # The sign: what the output is without these events' content, all else being the same.
  static = sum(leaf.sum() for leaf in found.slopes['static'].values())
  difference = float(found.output[0] - found.baseline[0] - static)
  np.testing.assert_allclose(token[here].sum(), difference, atol=0.02, rtol=0.1)
  assert abs(difference) > 0.01
