"""Repeats a run with the configuration saved in its workdir, data version included.

  python -m medm2t_jax.main --config=configs/replay.py:W/config.json --workdir=W2

With the same data set, code and devices the metrics are the same. `config.json` holds
the stages and folds of the last command in W; flags such as `--config.folds=all` change
them as with any config.
"""

from __future__ import annotations

import json
from pathlib import Path

from ml_collections import ConfigDict

from data_pipeline.format.items import DataError
from medm2t_jax.experiment import Config, Experiment


def get_config(path: str | None = None) -> Config:
  """Returns the locked experiment in `path`, a `config.json`.

  Raises:
    ValueError: there is no path, or the file is not a config.json of this version of the
      package.
  """
  if not path:
    raise ValueError('give the file: --config=configs/replay.py:W/config.json')
  try:
    fields = json.loads(Path(path).read_text())
  except json.JSONDecodeError as error:
    raise ValueError(f'{path} is not valid JSON: {error}') from error
  try:
    found = Experiment.from_fields(fields)
  except DataError as error:
    raise ValueError(
      f'{path} was written by another version of this package: {error}'
    ) from error
  return ConfigDict(found.to_fields()).lock()
