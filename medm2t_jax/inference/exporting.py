"""Exports a trained model as files that JAX and NumPy can run without this package.

  manifest.json       inputs and their meaning, outputs, versions, checksums
  bucket{n}.jax       one program per bucket, of `jax.export`: StableHLO with the weights
  example.npz, answer.npy   the bundle's synthetic request, and the answer of the programs

A program takes one mapping of arrays, named `{modality}/{array}` and `row`: a batch of
docs/design.md without device axis, label and weight. The number of rows (`b`) and of packed
entries (`m`) is free; padded lengths are the bucket's.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from data_pipeline.format.atomic import replacing_folder
from data_pipeline.format.modalities import Modality
from data_pipeline.format.schema import DataError, write_json
from medm2t_jax.inference.example import ROWS, padded
from medm2t_jax.inference.program import program
from medm2t_jax.inference.traced_programs import exported, symbolic_batch
from medm2t_jax.inference.trained_model import TOLERANCE, TrainedModel

PLATFORMS = ('cpu', 'cuda', 'tpu')
FORMAT = 1
_KIND = 'export of medm2t_jax'
_MANIFEST = 'manifest.json'
_ROW = 'at least 0: a patient; -1: a row of padding'
# Arrays that a layout adds.
_LAYOUT = {
  'mask': 'true for an entry, false for padding, where all arrays are 0',
  'owner': 'row of the entry',
}
_READABLE = (
  'with jaxlib {version}, and with versions released up to six months after or three '
  'weeks before it (the guarantee of jax.export)'
)

Flat = Mapping[str, Any]


def export_model(model: TrainedModel, folder: Path) -> dict[str, Any]:
  """Writes the export of a model completely or not at all; replaces an earlier export.

  Args:
    model: loaded from a bundle.
    folder: of the export.

  Returns:
    The manifest.

  Raises:
    DataError: `folder` holds other files, or a program does not lower for a platform or
      predicts the example differently from the bundle.
  """
  folder = folder.resolve()
  if folder.exists() and any(folder.iterdir()) and not _is_export(folder):
    raise DataError(f'{folder} holds files that are not an export. Give a new folder.')
  lengths = [dict(bucket) for bucket in model.batching.buckets] or [{}]
  run = _of_flat(program(model))
  programs = [
    exported(run, _inputs(model, bucket), platforms=PLATFORMS) for bucket in lengths
  ]
  request = _request(model, lengths[0])
  answer = np.asarray(jax.jit(programs[0].call)(request))
  _check(answer, model.answer)
  with replacing_folder(folder) as partial:
    for number, each in enumerate(programs):
      (partial / _program(number)).write_bytes(each.serialize())
    np.savez(partial / 'example.npz', allow_pickle=False, **request)
    np.save(partial / 'answer.npy', answer, allow_pickle=False)
    manifest = {**_described(model, lengths), 'files': _checksums(partial)}
    write_json(partial / _MANIFEST, manifest)
  return manifest


def _program(number: int) -> str:
  return f'bucket{number}.jax'


def _is_export(folder: Path) -> bool:
  path = folder / _MANIFEST
  return path.exists() and json.loads(path.read_text()).get('kind') == _KIND


def _of_flat(run: Callable[[Any], Any]) -> Callable[[Flat], Any]:
  """The program as a function of arrays named by their path."""
  return lambda flat: run(traverse_util.unflatten_dict(dict(flat), sep='/'))


def _flat(model: TrainedModel, batch: Mapping[str, Any]) -> dict[str, Any]:
  """The arrays of a batch that a program reads, by path."""
  read = {name: batch[name] for name in ('row', *model.schema.names)}
  return traverse_util.flatten_dict(read, sep='/')


def _inputs(model: TrainedModel, lengths: Mapping[str, int]) -> dict[str, Any]:
  """Shapes and dtypes of the arrays of a bucket, by path."""
  return _flat(model, symbolic_batch(model, lengths))


def _request(model: TrainedModel, lengths: Mapping[str, int]) -> dict[str, np.ndarray]:
  """The example of the bundle in the shapes of a bucket, by path."""
  capacity = model.batching.max_recordings
  batch = padded(model.example, model.schema, ROWS, capacity, lengths)
  return _flat(model, batch)


def _check(answer: np.ndarray, expected: np.ndarray) -> None:
  difference = np.abs(answer - expected) / np.maximum(1.0, np.abs(expected))
  if not difference.max() <= TOLERANCE:
    raise DataError(
      f'the export predicts the example differently from the bundle by '
      f'{difference.max():.3g} (allowed: {TOLERANCE:g}); nothing was written. Run '
      '`python -m medm2t_jax.predict` to test whether the bundle itself works here.'
    )


def _described(model: TrainedModel, lengths: list[dict[str, int]]) -> dict[str, Any]:
  """The manifest without checksums."""
  schema, target = model.schema, model.schema.target
  jaxlib = importlib.metadata.version('jaxlib')
  described = schema.to_json()
  names = {'row': {'meaning': _ROW}}
  for name, modality in schema.modalities.items():
    names |= {f'{name}/{key}': each for key, each in _meanings(modality).items()}
  output: dict[str, Any] = {
    'name': 'prediction',
    'shape': ['b'] if target.numeric else ['b', target.outputs],
    'dtype': 'float32',
    'meaning': f'value in {target.unit}' if target.numeric else 'probabilities',
  }
  return {
    'kind': _KIND,
    'format': FORMAT,
    'task': schema.task,
    'bundle_version': model.version,
    'versions': {
      name: importlib.metadata.version(name) for name in ('medm2t_jax', 'jax', 'jaxlib')
    },
    'readable': _READABLE.format(version=jaxlib),
    'platforms': list(PLATFORMS),
    'programs': [
      {
        'file': _program(number),
        'lengths': bucket,
        'inputs': [
          {
            'name': name,
            'shape': [each if isinstance(each, int) else str(each) for each in spec.shape],
            'dtype': spec.dtype.name,
            **names.get(name, {}),
          }
          for name, spec in _inputs(model, bucket).items()
        ],
      }
      for number, bucket in enumerate(lengths)
    ],
    'dimensions': {'b': 'rows, at least 1', 'm': 'entries of all rows, at least 1'},
    'outputs': [output],
    'link': model.model_config.link,
    'target': described['target'],
    'observation_hours': schema.observation_hours,
    'condition': schema.condition,
    'modalities': described['modalities'],
    'max_recordings': model.batching.max_recordings,
    'example': {'program': 0, 'request': 'example.npz', 'answer': 'answer.npy'},
  }


def _meanings(modality: Modality) -> dict[str, dict[str, str]]:
  """Array -> meaning of its numbers."""
  own = {key: each.meaning for key, each in modality.arrays.items()}
  return {key: {'meaning': text} for key, text in {**_LAYOUT, **own}.items() if text}


def _checksums(folder: Path) -> dict[str, str]:
  """SHA-256 of every file."""
  return {
    path.name: hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.iterdir())
  }
