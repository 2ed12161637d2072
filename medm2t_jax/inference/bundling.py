"""Makes the bundle of a trained run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.format.schema import DataError
from data_pipeline.format.subjects import fingerprint
from data_pipeline.reading import planning
from data_pipeline.reading.batching import Batching
from medm2t_jax.inference import blend
from medm2t_jax.inference.example import invented
from medm2t_jax.inference.trained_model import (
  STAGE,
  Member,
  TrainedModel,
  joined,
  with_answer,
)
from medm2t_jax.runs.restoring import restore_best
from medm2t_jax.runs.run import Run


def folder_of(workdir: Path, fold: int) -> Path:
  """The folder of a fold's bundle."""
  return workdir / f'fold{fold}' / 'model'


def own_tests(metrics: Mapping[str, Any]) -> dict[str, Any]:
  """The bundle's record of metrics on its own test subjects, from metrics.json."""
  names = (
    'headline', 'pooled', 'calibration', 'predicted', 'folds', 'test', 'dataset_version'
  )  # fmt: skip
  return {name: metrics[name] for name in names}


def of_fold(fold: Run, tests: Mapping[str, Any], card: str) -> TrainedModel:
  """The trained model of a fold, as it predicts its test subjects.

  All processes take part.

  Args:
    fold: its first run; trained, with its blend fitted.
    tests: metrics on the test subjects, JSON-able.
    card: the model card, Markdown.

  Raises:
    DataError: the multimodal stage is not complete, or the blend was not fitted.
  """
  config = fold.config
  variables, lineage = restore_best(fold.final, STAGE)
  # The buckets of this run, so that predictions equal those of the evaluation.
  batching = Batching(
    buckets=tuple(planning.buckets_of(fold.dataset, config.data)),
    max_recordings=config.data.max_recordings,
    recordings_per_row=planning.recordings_per_row(fold.dataset, config.data),
  )
  statistics = fold.final.statistics
  schema = fold.dataset.schema
  model = TrainedModel(
    schema=schema,
    options=config.model,
    batching=batching,
    batch_size=config.evaluation.batch_size,
    members=(Member(variables, blend.restore(fold), lineage),),
    found={name: statistics[name]['found'].tolist() for name in schema.modalities},
    key_fingerprint=fingerprint(fold.dataset.subject_key),
    tests=tests,
    card=card,
    example=invented(schema, config.data),
    answer=np.empty(0),
  )
  return with_answer(model)


def of_workdir(workdir: Path) -> TrainedModel:
  """An ensemble of the models of all folds of a workdir, for new subjects.

  Args:
    workdir: of a trained and evaluated run.

  Raises:
    DataError: there is no model, or the models are of different experiments.
  """
  folders = sorted(workdir.glob('fold*/model/bundle.json'))
  if not folders:
    raise DataError(
      f'{workdir} has no trained model (fold*/model). Train and evaluate it with '
      f'`python -m medm2t_jax.main --config=... --workdir={workdir}`.'
    )
  metrics = json.loads((workdir / 'eval' / 'metrics.json').read_text())
  models = [TrainedModel.load(path.parent) for path in folders]
  return joined(models, own_tests(metrics))
