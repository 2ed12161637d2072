"""Records what an evaluation was made from, so that it is only repeated after a change."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import data_pipeline
import medm2t_jax
from data_pipeline.format.schema import write_json
from medm2t_jax.runs import workdir
from medm2t_jax.runs.run import Run, all_records

_NAME = 'made_from.json'


def made_from(folds: Sequence[Run]) -> dict[str, Any]:
  """Everything that an evaluation depends on, JSON-able.

  The configuration, the data set with its splits, the records of the stages, this package's
  code, the installed packages and the devices.

  Args:
    folds: of one experiment, with complete multimodal stages.
  """
  splits = hashlib.sha256()
  for fold in folds:
    for split in ('train', 'validation', 'test'):
      splits.update(fold.splits.rows(split).astype('<i8').tobytes())
  environment = workdir.environment()
  del environment['code_version']  # a commit does not change results
  made = {
    'config': folds[0].config.to_fields(),
    'data_version': folds[0].dataset.version,
    'splits': splits.hexdigest(),
    'stages': [dataclasses.asdict(record) for record in all_records(folds)],
    'code': _code_digest(),
    'environment': environment,
  }
  return json.loads(json.dumps(made))


def read(directory: Path, of: dict[str, Any]) -> dict[str, Any] | None:
  """Content of metrics.json if the evaluation is complete and up to date, else None.

  Args:
    directory: `eval` of a workdir.
    of: what it would be made from now (`made_from`).
  """
  path = directory / _NAME
  if not path.exists():
    return None
  kept = json.loads(path.read_text())
  if kept['made_from'] != of or kept['files'] != _digests(directory, list(kept['files'])):
    return None
  return json.loads((directory / 'metrics.json').read_text())


def write(directory: Path, of: dict[str, Any]) -> None:
  """Records what the complete evaluation in `directory` was made from."""
  files = [directory / 'metrics.json', directory / 'report.html']
  files += [directory / 'model_card.md', directory / 'predictions.parquet']
  files += sorted(directory.glob('patients/*.html'))
  names = [str(file.relative_to(directory)) for file in files]
  kept = {'made_from': of, 'files': _digests(directory, names)}
  write_json(directory / _NAME, kept)


def _digests(directory: Path, names: Sequence[str]) -> dict[str, str]:
  """SHA-256 of each file; '' if it is missing."""
  digest = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()
  return {
    name: digest(directory / name) if (directory / name).exists() else '' for name in names
  }


def _code_digest() -> str:
  """SHA-256 of the sources of this package and of the data pipeline."""
  digest = hashlib.sha256()
  for package in (medm2t_jax, data_pipeline):
    root = Path(package.__path__[0])
    for path in sorted(root.rglob('*')):
      if path.suffix in ('.py', '.csv', '.html', '.css'):
        digest.update(f'{path.relative_to(root)}\n'.encode())
        digest.update(path.read_bytes())
  return digest.hexdigest()
