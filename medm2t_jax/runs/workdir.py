"""The working directory: its owner and content (docs/training.md, "Workdir")."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import medm2t_jax
from data_pipeline import folders, lock
from data_pipeline.format.schema import DataError, write_json
from medm2t_jax.experiment import Experiment

# Options that may differ between two runs in one workdir: they choose what to do, not how.
_CHOICES = ('folds', 'stages', 'refit', 'blend', 'evaluation', 'training')
# Paths that may differ: data, splits and the bundle to start from are identified by their
# version.
_PLACES = ('data.dir', 'data.split_file', 'start_from')


def claim(workdir: Path, config: Experiment, data_version: str) -> None:
  """Writes `config.json` and `environment.json`, or checks that they match this run.

  Args:
    workdir: created if it does not exist.
    config: of this run.
    data_version: version of the prepared data set; becomes `data.version` of `config.json`,
      so that a replay of it (configs/replay.py) accepts no other data.

  Raises:
    DataError: the workdir belongs to another configuration or data set.
  """
  folders.make(workdir, '--workdir')
  ours = config.to_json()
  ours['data']['version'] = data_version
  path = workdir / 'config.json'
  if path.exists():
    theirs = json.loads(path.read_text())
    for name, old, new in _differences(theirs, ours):
      raise DataError(
        f'{path}: the workdir was created with {name}={old}, but this run has {new}. '
        'Use another --workdir, or the same configuration.'
      )
  write_json(path, ours)
  write_json(workdir / 'environment.json', environment())


def _differences(old: Any, new: Any, name: str = '') -> Iterator[tuple[str, Any, Any]]:
  if isinstance(old, Mapping) and isinstance(new, Mapping):
    for key in sorted(old.keys() | new.keys()):
      if name or key not in _CHOICES:
        inner = f'{name}.{key}' if name else key
        if inner in _PLACES:
          continue
        yield from _differences(old.get(key), new.get(key), inner)
  elif old != new:
    yield name, json.dumps(old), json.dumps(new)


@contextlib.contextmanager
def held(workdir: Path, folds: Sequence[int]) -> Iterator[None]:
  """Keeps other processes out of some folds of a workdir, which is created if needed.

  Raises:
    DataError: another process works on one of them.
  """
  folders.make(workdir, '--workdir')
  with contextlib.ExitStack() as stack:
    for fold in folds:
      path = workdir / f'fold{fold}.lock'
      what = f'works on fold {fold} of this workdir'
      stack.enter_context(lock.exclusive(path, what, 'use another --workdir'))
    yield


def environment() -> dict[str, Any]:
  """Versions and devices of this run."""
  packages = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
  return {
    'python': platform.python_version(),
    'packages': {name: importlib.metadata.version(name) for name in packages},
    'code_version': code_version(),
    'platform': platform.platform(),
    'backend': jax.default_backend(),
    'processes': jax.process_count(),
    'devices': [device.device_kind for device in jax.devices()],
  }


def code_version() -> str:
  """Package version, with the git revision if the code is a checkout."""
  root = Path(medm2t_jax.__path__[0]).resolve().parent
  if not (root / '.git').exists():
    return medm2t_jax.__version__
  revision = subprocess.run(
    ['git', '-C', str(root), 'describe', '--always', '--dirty'],
    capture_output=True,
    text=True,
    check=False,
  )
  if revision.returncode:
    return medm2t_jax.__version__  # a clone without commits, or without permission
  return f'{medm2t_jax.__version__}+{revision.stdout.strip()}'


def stage_directory(workdir: Path, fold: int, stage: str) -> Path:
  """The folder of a stage: `fold{fold}/{stage}` in the workdir."""
  return workdir / f'fold{fold}' / stage


def checkpoint_directory(workdir: Path, fold: int, stage: str) -> Path:
  """The folder of a stage's checkpoints."""
  return stage_directory(workdir, fold, stage) / 'checkpoints'


def refit_directory(workdir: Path) -> Path:
  """The folder that serves the refits of a run as their workdir."""
  return workdir / 'refit'


def run_name(fold: int, refit: bool) -> str:
  """The name of a run in messages, for example 'fold 0, refit'."""
  return f'fold {fold}, refit' if refit else f'fold {fold}'


@dataclasses.dataclass(frozen=True)
class StageRecord:
  """The record of a finished stage, in its `done.json`.

  Attributes:
    fold: the fold.
    stage: the stage.
    skipped: why the stage was not trained, or empty; if set, nothing below is.
    best_step: step of the best checkpoint.
    best_epoch: its epoch, from 1.
    epochs: number of epochs trained.
    validation_loss: of the best epoch; None in a refit, which has no validation subject.
    parameters: number of parameters of the stage.
    seconds: time spent in training steps.
    history: one record per epoch, as in metrics.jsonl.
    notes: what a reader of the results must know.
    part_weights: name of a part of its prediction (`models.trunk.late_addition`) -> weight,
      fitted on validation subjects.
    refit: whether it was trained on training and validation subjects together.
  """

  fold: int
  stage: str
  skipped: str = ''
  best_step: int = 0
  best_epoch: int = 0
  epochs: int = 0
  validation_loss: float | None = None
  parameters: int = 0
  seconds: float = 0.0
  history: Sequence[Mapping[str, Any]] = ()
  notes: Sequence[str] = ()
  part_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
  refit: bool = False


def write_record(workdir: Path, record: StageRecord) -> None:
  """Writes `done.json`, which marks the stage as finished."""
  directory = stage_directory(workdir, record.fold, record.stage)
  directory.mkdir(parents=True, exist_ok=True)
  write_json(directory / 'done.json', dataclasses.asdict(record))


def read_record(workdir: Path, fold: int, stage: str) -> StageRecord | None:
  """The record of a stage; None before it is finished.

  Raises:
    DataError: `done.json` is damaged.
  """
  path = stage_directory(workdir, fold, stage) / 'done.json'
  if not path.exists():
    return None
  try:
    return StageRecord(**json.loads(path.read_text()))
  except (json.JSONDecodeError, TypeError) as error:
    raise DataError(
      f'{path} is damaged, or of another version of this package ({error}). Delete it: '
      'the stage then finishes again from its latest checkpoint.'
    ) from error
