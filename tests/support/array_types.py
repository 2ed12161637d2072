"""Shapes and dtypes that annotations promise, checked whenever a function is called.

`medm2t_jax` says them as `Float[Array, 'b w e']`: a letter has one size in all arguments
and in what is returned. What other annotations say is pyright's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import beartype
import numpy as np
from jaxtyping import AbstractArray, Array, install_import_hook

_ROOT = Path(__file__).resolve().parents[2]


def check() -> None:
  """Has the functions of `modules` checked that are imported from now on."""
  install_import_hook(modules(), f'{__name__}.checked')


def modules() -> list[str]:
  """Those whose annotations tell of arrays; every function takes two milliseconds."""
  return [
    '.'.join(path.relative_to(_ROOT).with_suffix('').parts)
    for path in sorted((_ROOT / 'medm2t_jax').rglob('*.py'))
    if 'from jaxtyping import' in path.read_text('utf-8')
  ]


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
  """The function, whose arrays are checked; itself where it tells of none."""
  # JAX makes dataclasses of what stands for arrays, too.
  if function.__name__ == '__init__':
    return function
  hints = {name: _of_arrays(hint) for name, hint in function.__annotations__.items()}
  function.__annotations__ = {name: hint for name, hint in hints.items() if hint}
  return beartype.beartype(function)


def _of_arrays(hint: Any) -> Any:
  """The hint where it tells of arrays, else None; JAX takes NumPy's arrays as well."""
  if isinstance(hint, type) and issubclass(hint, AbstractArray):
    return hint.dtype[Array | np.ndarray, hint.dim_str]
  origin, parts = get_origin(hint), get_args(hint)
  if origin not in (Union, UnionType, tuple, list) or not any(map(_of_arrays, parts)):
    return None
  generic: Any = Union if origin is UnionType else origin
  return generic[tuple(_of_arrays(part) or part for part in parts)]
