"""Repeats a run: the configuration that it left in its workdir, data version included.

  python -m medm2t_jax.main --config=configs/replay.py:W/config.json --workdir=W2

With the same data set, code and devices the metrics are the same. `config.json` holds
the stages and folds of the last command in W; `--config.folds=all` and the like change
them as with any config.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from configs import common
from medm2t_jax.experiment import Experiment, with_tuples


def get_config(path: str | None = None) -> Experiment:
  """Returns the locked experiment in `path`, a `config.json`.

  Raises:
    ValueError: no path, not a config.json, or one of another version of this package.
  """
  if not path:
    raise ValueError('give the file: --config=configs/replay.py:W/config.json')
  try:
    fields = json.loads(Path(path).read_text())
  except json.JSONDecodeError as error:
    raise ValueError(f'{path} is not valid JSON: {error}') from error
  recipe = dict.fromkeys(fields.get('recipe', ()), common.stage(1, 1.0))
  wrong = list(_differing_keys(fields, common.base('', recipe).to_dict()))
  if wrong:
    raise ValueError(f'{path} is of another version of this package: {", ".join(wrong)}')
  return config_dict.ConfigDict(with_tuples(fields)).lock()


def _differing_keys(
  found: Mapping[str, Any], known: Mapping[str, Any], prefix: str = ''
) -> Iterator[str]:
  for key in sorted(known.keys() - found.keys()):
    yield f'{prefix}{key} is missing'
  for key in sorted(found.keys() - known.keys()):
    yield f'{prefix}{key} is unknown'
  for key in sorted(known.keys() & found.keys()):
    # An empty section, such as model.windows, is filled by each experiment.
    if isinstance(known[key], Mapping) and known[key]:
      yield from _differing_keys(found[key], known[key], f'{prefix}{key}.')
