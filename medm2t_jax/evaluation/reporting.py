"""Reports: metrics.json, predictions.parquet, report.html, model_card.md and patients/.

`write_report` is the entry point: every section computes its metrics, then is rendered.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.format.atomic import replacing, write_text
from data_pipeline.format.schema import write_json
from medm2t_jax import targets
from medm2t_jax.evaluation import sections
from medm2t_jax.evaluation.context import Context
from medm2t_jax.evaluation.metrics import calibration
from medm2t_jax.evaluation.metrics.bootstrap import COVERAGE, RESAMPLES
from medm2t_jax.evaluation.model_card import model_card_markdown
from medm2t_jax.evaluation.page import render
from medm2t_jax.evaluation.results import (
  LEAST_EVENTS,
  LEAST_SAMPLES,
  Evaluation,
  json_ready,
)
from medm2t_jax.evaluation.rows import Rows, read_rows

_LOGGER = logging.getLogger(__name__)
FORMAT = 1


def write_report(
  directory: Path,
  predictions: pa.Table,
  context: Context,
  given: Mapping[str, Any],
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> dict[str, Any]:
  """Evaluates predictions and writes the report, each file atomically.

  Args:
    directory: created if it does not exist.
    predictions: sample_id, subject_id, fold, split ('test' or 'validation'), label, p0, p1,
      ... or prediction (a number), attributes, present_{modality} (bool).
    context: further inputs of the report.
    given: section -> the additional predictions that it needs (`Needs`).
    resamples: of the bootstrap over subjects.
    seed: of the bootstrap.

  Returns:
    The content of `metrics.json`.

  Raises:
    DataError: the predictions do not fit the schema or each other; nothing is written.
  """
  evaluation = evaluated(predictions, context, given, resamples, seed)
  page, files = render(evaluation)
  card = model_card_markdown(evaluation)
  directory.mkdir(parents=True, exist_ok=True)
  with replacing(directory / 'predictions.parquet') as partial:
    pq.write_table(predictions, partial)
  # Pages of an earlier evaluation are about other samples.
  if (directory / 'patients').exists():
    shutil.rmtree(directory / 'patients')
  for name, text in files.items():
    (directory / name).parent.mkdir(exist_ok=True)
    write_text(directory / name, text)
  write_text(directory / 'report.html', page)
  write_text(directory / 'model_card.md', card)
  # Written last: if metrics.json exists, the report is complete.
  write_json(directory / 'metrics.json', evaluation.metrics)
  return evaluation.metrics


def evaluated(
  predictions: pa.Table,
  context: Context,
  given: Mapping[str, Any],
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> Evaluation:
  """All metrics of the test rows of `predictions`; arguments as in `write_report`.

  Raises:
    DataError: the predictions do not fit the schema or each other.
  """
  test, validation = read_rows(predictions, context.schema)
  target = context.schema.target
  temperatures, scaled = {}, None
  if not target.numeric:
    temperatures = calibration.fit_temperatures(test, validation)
    scaled = calibration.scale(test, temperatures)
  metrics: dict[str, Any] = {
    'format': FORMAT,
    'task': context.schema.task,
    'source': context.schema.source,
    'dataset_version': context.dataset_version,
    'target': dataclasses.asdict(target),
    'modalities': list(context.schema.modalities),
    'bootstrap': {
      'unit': 'subject',
      'resamples': resamples,
      'seed': seed,
      'coverage': COVERAGE,
    },
    'test': test.counts(),
  }
  if not target.numeric:
    true = targets.of(target).is_true(test.label)
    metrics['test']['classes'] = {
      name: int((true[:, index] == 1).sum()) for index, name in enumerate(target.classes)
    }
  evaluation = Evaluation(
    metrics, context, given, test, temperatures, scaled, resamples, seed
  )
  shown = sections.chosen(context.sections)
  verdicts: dict[str, str] = {}
  seconds = dict(context.seconds)
  for section in sections.SECTIONS:
    if section in shown or section in sections.ALWAYS_COMPUTED:
      began = time.monotonic()
      metrics |= section.compute(evaluation)
      said = section.verdict(evaluation)
      if said is not None:
        verdicts[section.NAME] = said
      took = seconds.get(section.NAME, 0.0) + time.monotonic() - began
      seconds[section.NAME] = took
      _LOGGER.info('section %s: %.1f s', section.NAME, took)
  metrics['verdicts'] = verdicts
  metrics['seconds'] = {name: round(each, 1) for name, each in seconds.items()}
  metrics['notes'] = [*context.notes, *_notes(test, metrics)]
  return dataclasses.replace(evaluation, metrics=json_ready(metrics))


def _notes(test: Rows, metrics: Mapping[str, Any]) -> list[str]:
  """What a reader must know before any metric."""
  notes = []
  if np.ptp(test.weight) > 0:
    notes.append(
      f'Samples have weights, here {test.weight.min():.3g} to {test.weight.max():.3g}. All '
      'metrics are weighted; n and events are numbers of samples.'
    )
  if len(test) < LEAST_SAMPLES:
    notes.append(
      f'Only {len(test)} test samples: the metrics below say little about the model.'
    )
  events = test.events()
  if events is not None and events < LEAST_EVENTS:
    what = (
      f'of class "{test.outcomes[0].name}"'
      if len(test.outcomes) == 1
      else f'of the rarest {"label" if test.target.kind == "multilabel" else "class"}'
    )
    few = f'Only {events}' if events else 'No'
    samples = 'sample' if events < 2 else 'samples'
    notes.append(f'{few} test {samples} {what}: too few to measure discrimination.')
  if not test.target.numeric and metrics['calibration']['after'] is None:
    notes.append(
      f'Temperature scaling was not possible ({metrics["calibration"]["reason"]}): '
      'probabilities are shown as predicted.'
    )
  return notes
