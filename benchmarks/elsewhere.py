"""Measures what a model of one hospital is worth in another, as it is and adapted.

  python -m benchmarks.elsewhere --model=BUNDLE --home=DIR [--patients=100,300,1000]

BUNDLE predicts death in the simulated hospital a. Hospital b has other units, sampling
rates, people and prevalence, and no ECGs (docs/simulated_hospital.md). With the labels of
so many of its patients, the model is recalibrated (intercept and slope) or adapted
(`config.start_from`, all parameters or only the head), or a new one is trained from
scratch. All predict the same other patients of hospital b. Differences are from the
unchanged model, on the same resamples of subjects. Existing results in DIR are reused. The
last line on stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.format.dataset import open_dataset
from data_pipeline.preparation import build
from medm2t_jax.evaluation.external import Recalibration, recalibration
from medm2t_jax.evaluation.metrics.bootstrap import Draws, bootstrap, estimate
from medm2t_jax.evaluation.metrics.ranking import Ranking
from medm2t_jax.evaluation.rows import Rows, predictions_table, read_rows
from medm2t_jax.inference.predicting import predict
from medm2t_jax.inference.trained_model import TrainedModel
from medm2t_jax.runs.hosts import start_up

_TEST_SEED, _TRAIN_SEED = 1, 2
_AS_IT_IS = 'as it is'
_SHORT = ('--config.evaluation.sections=("discrimination","calibration")',)


@dataclasses.dataclass(frozen=True)
class Case:
  """The model and the working folder."""

  model: Path
  home: Path
  test_patients: int

  def data(self, name: str, patients: int, seed: int) -> Path:
    """A prepared data set of hospital b."""
    folder = self.home / name
    build.prepare(
      source='simulated',
      task='mortality',
      out=folder,
      patients=patients,
      seed=seed,
      hospital='b',
      ecg=False,
    )
    return folder

  def trained(self, name: str, data: Path, *options: str) -> TrainedModel:
    """A model trained on hospital b; fold 0 of its patients is only used for validation."""
    workdir = self.home / name
    command = ['-m', 'medm2t_jax.main', '--config=configs/mortality.py:small', *_SHORT]
    places = [f'--config.data.dir={data}', f'--workdir={workdir}', *options]
    subprocess.run([sys.executable, *command, *places], check=True, stdout=sys.stderr)
    return TrainedModel.load(workdir / 'fold0' / 'model')

  def rows(self, model: TrainedModel, data: Path) -> Rows:
    """Predictions of a data set of which the model has seen either no subject or all."""
    dataset = open_dataset(data)
    found = predict(model, dataset, allow_seen=True)
    table = predictions_table(dataset, 0, 'test', found.rows, found.predictions)
    return read_rows(table, dataset.schema)[0]


def main() -> None:
  """Parses the flags, compares all ways of predicting hospital b and prints JSON."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--model', type=Path, required=True, help='a bundle')
  parser.add_argument('--home', type=Path, required=True, help='folder to work in')
  parser.add_argument('--patients', default='100,300,1000', help='of hospital b')
  parser.add_argument('--test_patients', type=int, default=2000, help='of hospital b')
  options = parser.parse_args()
  start_up.start()
  case = Case(options.model.resolve(), options.home.resolve(), options.test_patients)
  counts = [int(count) for count in options.patients.split(',')]
  print(json.dumps(elsewhere(case, counts)))


def elsewhere(case: Case, counts: list[int]) -> dict[str, Any]:
  """Metrics of every way of predicting hospital b, by number of patients with labels."""
  given = TrainedModel.load(case.model)
  test = case.data('test', case.test_patients, _TEST_SEED)
  unchanged = case.rows(given, test)
  ways: dict[str, Rows] = {_AS_IT_IS: unchanged}
  for count in counts:
    data = case.data(f'patients{count}', count, _TRAIN_SEED)
    change: Recalibration = recalibration(case.rows(given, data), slope=True)
    changed = change(unchanged.prediction)
    ways[f'recalibrated, {count}'] = unchanged.with_prediction(changed, 'recalibrated')
    start = f'--config.start_from={case.model}'
    for name, of in {
      'adapted': (start,),
      'head adapted': (start, '--config.adapt=head'),
      'from scratch': (),
    }.items():
      model = case.trained(f'{name.replace(" ", "_")}{count}', data, *of)
      ways[f'{name}, {count}'] = case.rows(model, test)
  draws = {
    name: bootstrap(_statistic(rows), rows.subject, rows.weight)
    for name, rows in ways.items()
  }
  reference = draws[_AS_IT_IS]
  return {
    **unchanged.counts(),
    'ways': {
      name: {
        metric: _with_difference(each, reference[metric], unchanged)
        for metric, each in found.items()
      }
      for name, found in draws.items()
    },
  }


def _with_difference(draws: Draws, reference: Draws, rows: Rows) -> dict[str, Any]:
  counts = rows.counts()
  return {
    **estimate(draws, counts),
    'difference': estimate(draws - reference, counts),
  }


def _statistic(rows: Rows) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
  (death,) = rows.outcomes
  risk, died = death.probability, death.positive
  ranking = Ranking(risk, died)
  clipped = np.clip(risk, 1e-7, 1 - 1e-7)
  loss = -np.where(died, np.log(clipped), np.log1p(-clipped))
  mean = lambda weights, each: weights @ each / weights.sum(axis=1)

  def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
    curves = ranking.curves(weights)
    return {
      'auroc': curves.auroc(),
      'average_precision': curves.average_precision(),
      'log_loss': mean(weights, loss),
      'expected_minus_observed': mean(weights, risk - died),
    }

  return statistic


if __name__ == '__main__':
  main()
