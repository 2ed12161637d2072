"""Keeps fitted arrays in a folder of the workdir, with their dependencies.

Two files: `arrays.npz`, whose names are paths in a nested mapping joined by '/', and a
record in JSON, which is written last. So the arrays belong to the record beside them, or
there is no record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from data_pipeline.format.schema import write_json

_ARRAYS = 'arrays.npz'
_MADE_FROM = 'made_from'
_SEPARATOR = '/'


def write(
  folder: Path,
  name: str,
  made_from: Mapping[str, Any],
  arrays: Mapping[str, Any],
  **content: Any,
) -> None:
  """Writes nested arrays and their record, replacing others.

  Args:
    folder: created if it does not exist.
    name: of the record, without its suffix.
    made_from: everything that the arrays depend on, JSON-able.
    arrays: nested mappings of NumPy arrays.
    **content: further content of the record, JSON-able.
  """
  folder.mkdir(parents=True, exist_ok=True)
  record = folder / f'{name}.json'
  record.unlink(missing_ok=True)
  flat: dict[str, Any] = traverse_util.flatten_dict(dict(arrays), sep=_SEPARATOR)
  np.savez(folder / _ARRAYS, allow_pickle=False, **flat)
  write_json(record, {_MADE_FROM: dict(made_from), **content})


def read(
  folder: Path, name: str, made_from: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]] | None:
  """The arrays and the record; None if there are none with these dependencies."""
  path = folder / f'{name}.json'
  if not path.exists():
    return None
  record = json.loads(path.read_text())
  if record[_MADE_FROM] != made_from:
    return None
  with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
    return traverse_util.unflatten_dict(dict(arrays), sep=_SEPARATOR), record
