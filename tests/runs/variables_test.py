"""Initial variables are those of the model's own initialisation, drawn one by one."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from flax import traverse_util

from medm2t_jax.experiment import read
from medm2t_jax.models import medm2t
from medm2t_jax.runs import variables
from medm2t_jax.runs.run import Run
from tests.support import static_data

STAGE = 'static'


@pytest.fixture
def run(dataset, tmp_path):
  config = static_data.config(dataset.directory)
  config.model.segment_lengths = (2,)  # of the six steps of its grid
  return Run(read(config), dataset, 0, tmp_path)


def flat(tree) -> dict[tuple[str, ...], Any]:
  return {**traverse_util.flatten_dict(jax.tree.map(np.asarray, dict(tree)))}


def test_they_are_those_of_the_model(run):
  found = flat(variables.init(run, STAGE))
  model = medm2t.MedM2T(run.model_config)
  arguments = variables.key(run, STAGE), variables._example(run, STAGE)
  init = jax.jit(lambda key, batch: model.init(key, batch, stage=STAGE, train=False))
  expected = flat(init(*arguments))
  assert {path for path in found if path[0] != 'fitted'} == {
    path for path in expected if path[0] != 'fitted'
  }
  for path, value in expected.items():
    assert found[path].dtype == value.dtype
    if path[0] != 'fitted':
      np.testing.assert_allclose(
        found[path], value, rtol=1e-6, atol=1e-7, err_msg=str(path)
      )
  # Another fold draws others.
  run.fold = 1
  other = flat(variables.init(run, STAGE))
  assert any(not np.array_equal(other[path], found[path]) for path in expected)


def test_what_is_given_is_not_drawn(run):
  fresh = flat(variables.init(run, STAGE))
  path = next(path for path in fresh if path[0] == 'params' and fresh[path].any())
  given = variables.init(run, STAGE, {path: 2 * fresh[path]})
  for name, value in flat(given).items():
    expected = 2 * fresh[name] if name == path else fresh[name]
    np.testing.assert_array_equal(value, expected, err_msg=str(name))


def test_no_two_are_one_array_and_none_is_kept(run):
  """A step may overwrite them, and the next initialisation finds them as they were."""
  first = variables.init(run, STAGE)
  expected = flat(first)
  leaves = jax.tree.leaves({'params': first['params'], 'stats': first['batch_stats']})
  assert len({id(leaf) for leaf in leaves}) == len(leaves)
  expected = {path: value.copy() for path, value in expected.items()}
  for leaf in leaves:
    leaf.delete()
  for path, value in flat(variables.init(run, STAGE)).items():
    np.testing.assert_array_equal(value, expected[path], err_msg=str(path))
