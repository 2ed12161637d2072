"""The bundle: a trained model as a self-contained folder.

  bundle.json             format, versions, members, and the checksum of every other file
  schema.json             variables with codes, units, limits, categories; target
  model.json              options of model and batches, which determine every size
  members/{n}/arrays      orbax: parameters, batch statistics, fitted state, blend
  members/{n}/provenance.json   fold, subjects seen (keyed hashes), data and code version
  found.json              share of the training samples that have each variable
  tests.json              metrics on its own test subjects
  card.md                 the model card
  example/arrays, example/answer.json   a synthetic request and its answer: the self-test

It holds no patient data. Nothing is unpickled, and no shape depends on a batch.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

import medm2t_jax
from data_pipeline.format.atomic import replacing_folder
from data_pipeline.format.schema import DataError, Schema, write_json
from data_pipeline.reading import planning
from data_pipeline.reading.batching import Batching
from medm2t_jax import targets
from medm2t_jax.experiment.model_config import model_config
from medm2t_jax.inference.blended import blended
from medm2t_jax.inference.example import ROWS, padded
from medm2t_jax.modalities import Modality
from medm2t_jax.models.config import ModelConfig
from medm2t_jax.models.medm2t import MULTIMODAL, MedM2T
from medm2t_jax.models.options import ModelOptions
from medm2t_jax.runs.checkpoint import Lineage
from medm2t_jax.runs.hosts import devices
from medm2t_jax.training import steps
from medm2t_jax.training.steps import Predictor

FORMAT = 4
STAGE = MULTIMODAL
TOLERANCE = 1e-5  # of the self-test: other processors add in another order
_MANIFEST = 'bundle.json'
_AGAIN = 'Recreate it from its workdir, or use the version of medm2t_jax that wrote it.'
_VARIABLES = ('params', 'batch_stats', 'fitted')

Batch = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Member:
  """One trained network with its blend.

  Attributes:
    variables: of the multimodal stage: `params`, `batch_stats`, `fitted`.
    blend: from `medm2t_jax.inference.blend.restore`; None if the network predicts alone.
    lineage: the subjects that it was trained on.
  """

  variables: Mapping[str, Any]
  blend: Mapping[str, Any] | None
  lineage: Lineage


@dataclasses.dataclass(frozen=True)
class TrainedModel:
  """A trained model: an ensemble of one or more members.

  Attributes:
    schema: of its data.
    options: its architecture.
    batching: capacities of its batches.
    batch_size: of its predictions, over all devices.
    members: the networks whose predictions (probabilities or numbers) are averaged.
    found: modality -> share of the training samples that have each of its variables.
    key_fingerprint: of the key of the subject hashes (`fingerprint`).
    tests: metrics on its own test subjects, JSON-able.
    card: the model card, Markdown.
    example: one request without a device axis, and `answer`: its predictions (b c) or (b).
    version: hash of the files of its bundle; '' before it is saved.
  """

  schema: Schema
  options: ModelOptions
  batching: Batching
  batch_size: int
  members: tuple[Member, ...]
  found: Mapping[str, Sequence[float]]
  key_fingerprint: str
  tests: Mapping[str, Any]
  card: str
  example: Mapping[str, Any]
  answer: np.ndarray
  version: str = ''

  @functools.cached_property
  def model_config(self) -> ModelConfig[Modality]:
    """The model's modalities and the sizes of every module."""
    return model_config(self.schema.task, self.options, self.schema)

  @functools.cached_property
  def predictors(self) -> tuple[Predictor, ...]:
    """One predictor per member, for batches with a leading device axis."""
    config = self.model_config
    model = MedM2T(config, axis_name=devices.DEVICE_AXIS)
    found = []
    for member in self.members:
      predictor = steps.predictor(model, STAGE, dict(member.variables))
      if member.blend is not None:
        predictor = blended(config, member.blend, predictor)
      found.append(predictor)
    return tuple(found)

  def predict(self, batch: Batch) -> np.ndarray:
    """Mean prediction of the members: probabilities (d b c) or numbers (d b), float64.

    Args:
      batch: of docs/design.md, with a leading device axis, aligned to the model's variables
        (`Alignment`).
    """
    kind = targets.of(self.schema.target)
    outputs = [np.asarray(each(batch)) for each in self.predictors]
    return np.mean([kind.predictions(each) for each in outputs], axis=0)

  @property
  def seen(self) -> dict[str, frozenset[str]]:
    """Hashes of all subjects that a member, or a model it started from, was trained on.

    Grouped by fingerprint of their key: hashes with different keys cannot be compared.
    """
    found: dict[str, frozenset[str]] = {}
    for member in self.members:
      for key, subjects in member.lineage.seen(self.key_fingerprint).items():
        found[key] = found.get(key, frozenset()) | subjects
    return found

  def answer_again(self) -> np.ndarray:
    """Predicts the example: probabilities (b c) or numbers (b)."""
    count = jax.local_device_count()
    rows = max(ROWS, planning.rows_each(self.batch_size, jax.device_count()))
    per_row = self.batching.recordings_per_row
    capacity = planning.recordings_capacity(self.batching, rows, per_row)
    one = padded(self.example, self.schema, rows, capacity)
    batch = jax.tree.map(lambda array: np.stack([array] * count), one)
    return self.predict(batch)[0, :ROWS]

  def check(self) -> float:
    """Predicts the example again and returns the largest difference from the saved answer.

    Raises:
      DataError: the difference is above `TOLERANCE` (relative for numbers above 1).
    """
    again = self.answer_again()
    scale = np.maximum(1.0, np.abs(self.answer))
    difference = float((np.abs(again - self.answer) / scale).max())
    if not difference <= TOLERANCE:
      raise DataError(
        f'the self-test of the model failed: the prediction of its example differs by '
        f'{difference:.3g} (allowed: {TOLERANCE:g}). Do not use it with these versions of '
        'jax and jaxlib on this machine.'
      )
    return difference

  def save(self, folder: Path) -> None:
    """Writes the bundle completely or not at all; replaces an earlier bundle.

    Raises:
      DataError: `folder` holds other files.
    """
    folder = folder.resolve()
    if folder.exists() and not (folder / _MANIFEST).exists() and any(folder.iterdir()):
      raise DataError(f'{folder} holds files that are not a bundle. Give a new folder.')
    with replacing_folder(folder) as partial:
      write_json(partial / 'schema.json', self.schema.to_json())
      write_json(
        partial / 'model.json',
        {
          'model': self.options.to_fields(),
          'data': self.batching.to_fields(),
          'evaluation': {'batch_size': self.batch_size},
        },
      )
      write_json(partial / 'found.json', dict(self.found))
      write_json(partial / 'tests.json', dict(self.tests))
      (partial / 'card.md').write_text(self.card, encoding='utf-8')
      for number, member in enumerate(self.members):
        home = partial / 'members' / str(number)
        tree = {**member.variables, **({'blend': member.blend} if member.blend else {})}
        _save_arrays(home / 'arrays', tree)
        write_json(home / 'provenance.json', member.lineage.to_json())
      _save_arrays(partial / 'example' / 'arrays', self.example)
      write_json(partial / 'example' / 'answer.json', self.answer.tolist())
      write_json(
        partial / _MANIFEST,
        {
          'format': FORMAT,
          'task': self.schema.task,
          'members': len(self.members),
          'key_fingerprint': self.key_fingerprint,
          'versions': {
            'medm2t_jax': medm2t_jax.__version__,
            **{
              name: importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'flax')
            },
          },
          'files': _checksums(partial),
        },
      )

  @classmethod
  def load(cls, folder: Path | str) -> TrainedModel:
    """Reads a bundle; needs neither the data set nor the workdir.

    Raises:
      DataError: the folder is not a bundle, has another format, or a file is missing,
        unknown or changed.
    """
    folder = Path(folder).resolve()
    manifest = _manifest(folder)
    schema_path = folder / 'schema.json'
    fields = json.loads((folder / 'model.json').read_text())
    return cls(
      schema=Schema.from_json(
        json.loads(schema_path.read_text()), where=schema_path, remedy=_AGAIN
      ),
      options=ModelOptions.from_fields(fields['model'], f'{folder / "model.json"}: model'),
      batching=Batching.from_fields(fields['data'], f'{folder / "model.json"}: data'),
      batch_size=fields['evaluation']['batch_size'],
      members=tuple(
        _read_member(folder / 'members' / str(number))
        for number in range(manifest['members'])
      ),
      found=json.loads((folder / 'found.json').read_text()),
      key_fingerprint=manifest['key_fingerprint'],
      tests=json.loads((folder / 'tests.json').read_text()),
      card=(folder / 'card.md').read_text(encoding='utf-8'),
      example=_restore_arrays(folder / 'example' / 'arrays'),
      answer=np.array(json.loads((folder / 'example' / 'answer.json').read_text())),
      version=_version(manifest['files']),
    )


def joined(models: Sequence[TrainedModel], tests: Mapping[str, Any]) -> TrainedModel:
  """One model with the members of several models that were trained in the same way.

  Args:
    models: of the folds of one run.
    tests: metrics on the test subjects of all of them.

  Raises:
    DataError: the models are of different experiments or data.
  """
  first = models[0]
  for other in models[1:]:
    same = lambda model: (model.schema, model.options, model.batching, model.batch_size)
    if same(other) != same(first):
      raise DataError('the models to join are of different experiments')
  members = tuple(member for model in models for member in model.members)
  made = dataclasses.replace(first, members=members, tests=tests)
  return with_answer(made)


def with_answer(model: TrainedModel) -> TrainedModel:
  """The model with its current prediction of its example as the answer."""
  return dataclasses.replace(model, answer=model.answer_again())


def _read_member(home: Path) -> Member:
  tree = _restore_arrays(home / 'arrays')
  return Member(
    variables={name: tree.get(name, {}) for name in _VARIABLES},
    blend=tree.get('blend'),
    lineage=Lineage.from_json(json.loads((home / 'provenance.json').read_text())),
  )


def _manifest(folder: Path) -> dict[str, Any]:
  path = folder / _MANIFEST
  try:
    manifest = json.loads(path.read_text())
  except (OSError, json.JSONDecodeError) as error:
    raise DataError(
      f'{folder} is not a bundle of a trained model ({type(error).__name__} for '
      f'{_MANIFEST}). Make one with `python -m medm2t_jax.bundle`.'
    ) from error
  if manifest.get('format') != FORMAT:
    raise DataError(
      f'{path}: bundle format {manifest.get("format")}; this code reads {FORMAT}. {_AGAIN}'
    )
  found = _checksums(folder)
  for name in sorted(found.keys() | manifest['files'].keys()):
    if found.get(name) != manifest['files'].get(name):
      what = 'is missing' if name not in found else 'was changed or added'
      raise DataError(f'{folder / name}: {what} since the bundle was made. Copy it again.')
  return manifest


def _version(files: Mapping[str, str]) -> str:
  content = json.dumps(files, sort_keys=True)
  return hashlib.sha256(content.encode()).hexdigest()[:16]


def _checksums(folder: Path) -> dict[str, str]:
  """SHA-256 of every file but the manifest."""
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob('*'))
    if path.is_file() and path.relative_to(folder) != Path(_MANIFEST)
  }


def _checkpointer() -> ocp.Checkpointer:
  """A checkpointer that works in a single process."""
  this = jax.process_index()
  options = ocp.options.MultiprocessingOptions(
    primary_host=this, active_processes={this}, barrier_sync_key_prefix='bundle'
  )
  return ocp.Checkpointer(
    ocp.PyTreeCheckpointHandler(multiprocessing_options=options),
    multiprocessing_options=options,
  )


def _save_arrays(folder: Path, tree: Mapping[str, Any]) -> None:
  arrays = jax.tree.map(np.asarray, _plain(tree))
  with _checkpointer() as checkpointer:
    checkpointer.save(folder, args=ocp.args.PyTreeSave(arrays))


def _restore_arrays(folder: Path) -> dict[str, Any]:
  with _checkpointer() as checkpointer:
    metadata = checkpointer.metadata(folder).item_metadata.tree
    numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
    return checkpointer.restore(folder, args=ocp.args.PyTreeRestore(restore_args=numpy))


def _plain(tree: Any) -> Any:
  """Mappings as dicts, without empty ones."""
  if not isinstance(tree, Mapping):
    return tree
  plain = {name: _plain(part) for name, part in tree.items()}
  return {name: part for name, part in plain.items() if not isinstance(part, dict) or part}
