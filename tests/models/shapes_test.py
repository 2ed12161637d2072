"""The tests check what annotations say of arrays (`tests/support/array_types.py`)."""

from __future__ import annotations

import importlib
import inspect
from typing import get_type_hints

import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from medm2t_jax.models.link import explained
from tests.support import array_types

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


def test_every_annotation_can_be_read():
  """One that cannot be read is not checked, and nobody is told."""
  read = 0
  for name in array_types.modules():
    module = importlib.import_module(name)
    classes = [each for each in vars(module).values() if inspect.isclass(each)]
    for holder in (module, *classes):
      for function in vars(holder).values():
        function = inspect.unwrap(getattr(function, '__func__', function))
        # What dataclasses and named tuples make themselves is not checked.
        made = getattr(function, '__name__', '') in ('__init__', '__new__')
        if inspect.isfunction(function) and function.__module__ == name and not made:
          get_type_hints(function)
          read += 1
  assert read > 300
