"""The working directory: whose it is, what it holds (docs/design.md, "Workdir")."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

import medm2t_jax
from data_pipeline.schema import DataError, write_json
from medm2t_jax.experiment import Experiment

# What may differ between two runs in one workdir: they choose what to do, not how.
_CHOICES = ('folds', 'stages', 'evaluation')


def claim(workdir: Path, config: Experiment, data_version: str) -> None:
  """Writes `config.json` and `environment.json`, or checks that they are ours.

  Args:
    workdir: made when absent.
    config: of this run.
    data_version: version of the prepared data set.

  Raises:
    DataError: the workdir belongs to another configuration or data set.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  ours = json.loads(config.to_json_best_effort()) | {'data_version': data_version}
  path = workdir / 'config.json'
  if path.exists():
    theirs = json.loads(path.read_text())
    for name, old, new in _differences(theirs, ours):
      raise DataError(
        f'{path}: the workdir was made with {name}={old}, this run has {new}. '
        'Use another --workdir, or the same configuration.'
      )
  write_json(path, ours)
  write_json(workdir / 'environment.json', environment())


def _differences(old: Any, new: Any, name: str = '') -> Iterator[tuple[str, Any, Any]]:
  if isinstance(old, Mapping) and isinstance(new, Mapping):
    for key in sorted(old.keys() | new.keys()):
      if name or key not in _CHOICES:
        inner = f'{name}.{key}' if name else key
        yield from _differences(old.get(key), new.get(key), inner)
  elif old != new:
    yield name, json.dumps(old), json.dumps(new)


def environment() -> dict[str, Any]:
  """Versions and devices of this run."""
  packages = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
  return {
    'python': platform.python_version(),
    'packages': {name: importlib.metadata.version(name) for name in packages},
    'code_version': code_version(),
    'platform': platform.platform(),
    'backend': jax.default_backend(),
    'devices': [device.device_kind for device in jax.local_devices()],
  }


def code_version() -> str:
  """Package version, with the git revision where the code is a checkout."""
  root = Path(__file__).resolve().parent.parent
  if not (root / '.git').exists():
    return medm2t_jax.__version__
  revision = subprocess.run(
    ['git', '-C', str(root), 'describe', '--always', '--dirty'],
    capture_output=True,
    text=True,
    check=False,
  )
  if revision.returncode:
    return medm2t_jax.__version__  # a clone without commits, or not ours to read
  return f'{medm2t_jax.__version__}+{revision.stdout.strip()}'


def stage_directory(workdir: Path, fold: int, stage: str) -> Path:
  return workdir / f'fold{fold}' / stage


def checkpoint_directory(workdir: Path, fold: int, stage: str) -> Path:
  return stage_directory(workdir, fold, stage) / 'checkpoints'


def read_done(workdir: Path, fold: int, stage: str) -> dict[str, Any] | None:
  """What a completed stage recorded about itself; None while it is not complete."""
  path = stage_directory(workdir, fold, stage) / 'done.json'
  return json.loads(path.read_text()) if path.exists() else None
