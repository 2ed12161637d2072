"""Reports: metrics.json, predictions.parquet, report.html, model_card.md and patients/.

`write_report` is the one entry. `evaluation.py` computes, `sections.py` and `page.py`
show, and each file between them holds one kind of figure.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.format.schema import write_json
from medm2t_jax.evaluation.context import Context, DamageCurve
from medm2t_jax.evaluation.explain.timeline import patient_page
from medm2t_jax.evaluation.metrics.bootstrap import RESAMPLES
from medm2t_jax.evaluation.model_card import model_card_markdown
from medm2t_jax.evaluation.page import render
from medm2t_jax.evaluation.results import evaluate

__all__ = ['Context', 'DamageCurve', 'write_report']


def write_report(
  directory: Path,
  predictions: pa.Table,
  context: Context,
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> dict[str, Any]:
  """Evaluates predictions and writes the report, each file atomically.

  Args:
    directory: made where absent.
    predictions: sample_id, subject_id, fold, split ('test' or 'validation'), label,
      p0, p1, ... or prediction (days), attributes, present_{modality} (bool).
    context: what the report says beside them.
    resamples: of the bootstrap over subjects.
    seed: of the bootstrap.

  Returns:
    The content of `metrics.json`.

  Raises:
    DataError: the predictions do not fit the schema or the scenarios; nothing is
      written then.
  """
  evaluation = evaluate(predictions, context, resamples, seed)
  page, card = render(evaluation), model_card_markdown(evaluation)
  explanation = context.explanation
  patients = [] if explanation is None else explanation.patients
  pages = [
    patient_page(context.schema, sample, number)
    for number, sample in enumerate(patients, start=1)
  ]
  directory.mkdir(parents=True, exist_ok=True)
  partial = directory / 'predictions.parquet.partial'
  pq.write_table(predictions, partial)
  partial.replace(directory / 'predictions.parquet')
  # Pages of an earlier evaluation are not of these samples.
  if (directory / 'patients').exists():
    shutil.rmtree(directory / 'patients')
  for number, text in enumerate(pages, start=1):
    (directory / 'patients').mkdir(exist_ok=True)
    _write_text(directory / 'patients' / f'{number}.html', text)
  _write_text(directory / 'report.html', page)
  _write_text(directory / 'model_card.md', card)
  # Last: where metrics.json is, the report is complete.
  write_json(directory / 'metrics.json', evaluation.metrics)
  return evaluation.metrics


def _write_text(path: Path, text: str) -> None:
  partial = path.with_name(path.name + '.partial')
  partial.write_text(text, encoding='utf-8')
  partial.replace(path)
