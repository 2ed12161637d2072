"""The tests check what annotations say of arrays (`tests/support/array_types.py`)."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from medm2t_jax.models.link import explained

OUTPUTS = jnp.zeros((3, 2))


def test_an_array_as_its_annotation_says_is_taken():
  assert explained(OUTPUTS, jnp.ones((3, 2), bool), 'sigmoid').shape == (3,)


@pytest.mark.parametrize(
  'chosen',
  [jnp.ones((2, 3), bool), jnp.ones(3, bool), jnp.ones((3, 2))],
  ids=['shape', 'rank', 'dtype'],
)
def test_any_other_raises(chosen):
  with pytest.raises(TypeCheckError, match='chosen'):
    explained(OUTPUTS, chosen, 'sigmoid')
