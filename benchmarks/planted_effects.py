"""Tests which models have found the planted effects of the simulated hospital.

  python -m benchmarks.planted_effects --workdir=runs/mortality_small

Reads the test predictions of a run on the simulated hospital, and those of its baselines,
single modalities and ablations, if any, and simulates the truth about its patients again.
For each model: its AUROC (for days, the rank correlation with the outcome), and the slopes
of its predicted log odds (log days), in standard deviations within a fold, on swing, drift
and pairing, all in one linear regression. A slope of 0 means that the effect was not
found; the slopes of the true risk are in `truth`. `difference` is from the full model, on
the same resamples of subjects. The last line on stdout is one JSON object; models without
predictions in some fold are left out. docs/experiments.md has the results.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import special, stats

from data_pipeline.format.schema import DataError
from data_pipeline.sources.simulated.best_possible import PLANTED, first_stays
from medm2t_jax.evaluation.metrics.bootstrap import bootstrap, estimate
from medm2t_jax.evaluation.metrics.ranking import Ranking

_FULL = 'multimodal'


def main() -> None:
  """Reads the workdir, prints one JSON object, and exits with a message on bad input."""
  parser = argparse.ArgumentParser(
    description='Tests which models have found the planted effects.'
  )
  parser.add_argument('--workdir', type=Path, required=True, help='of a run or a study')
  options = parser.parse_args()
  try:
    print(json.dumps(planted_effects(options.workdir)))
  except DataError as error:
    sys.exit(f'error: {error}')


def planted_effects(directory: Path) -> dict[str, Any]:
  """Metrics of every model of a workdir, by its name.

  Raises:
    DataError: the run is not one of mortality or length of stay on the simulated
      hospital, or has no test predictions.
  """
  config = json.loads((directory / 'config.json').read_text())
  data, task = config['data'], config['task']
  if data['dir'] != 'simulated' or task not in ('mortality', 'los'):
    raise DataError(
      f'{directory}: give a run of mortality or los with config.data.dir=simulated'
    )
  truth = first_stays(data['simulated_seed'], data['simulated_patients'])
  reference = _tables(directory, _FULL) or _evaluated(directory)
  if reference is None:
    raise DataError(f'{directory} has no test predictions: run --mode=eval first')
  place = {int(stay): i for i, stay in enumerate(truth['stay_id'])}
  stays = _samples(reference)
  order = np.array([place[int(stay)] for stay in stays])
  known = {name: values[order] for name, values in truth.items()}
  fold = np.repeat(np.arange(len(reference)), [len(table) for table in reference])
  risk = known['log_odds' if task == 'mortality' else 'log_days']
  scores = {_FULL: np.concatenate([_score(table) for table in reference]), 'truth': risk}
  for name, tables in _others(directory).items():
    if np.array_equal(_samples(tables), stays):
      scores[name] = np.concatenate([_score(table) for table in tables])
  outcome = known['died' if task == 'mortality' else 'days']
  equal = np.ones(len(order))
  draws = {
    name: bootstrap(_statistic(_scaled(score, fold), known, outcome), known['index'], equal)
    for name, score in scores.items()
  }
  counts = {'n': len(order), 'subjects': len(order), 'events': None}
  return {
    'task': task,
    'folds': len(reference),
    'models': {
      name: {
        metric: {
          **estimate(each, counts),
          'difference': estimate(each - draws[_FULL][metric], counts),
        }
        for metric, each in found.items()
      }
      for name, found in draws.items()
    },
  }


def _others(directory: Path) -> dict[str, list[pa.Table]]:
  """Name -> tables of all folds, for baselines, single modalities and ablations.

  A single modality of an ablation, predicted by an evaluation of its folder, has the names
  of both.
  """
  found = {name: _tables(directory, name) for name in _names(directory) if name != _FULL}
  for path in sorted((directory / 'ablations').glob('*/config.json')):
    for name in _names(path.parent):
      shown = path.parent.name if name == _FULL else f'{path.parent.name}, {name}'
      found[shown] = _tables(path.parent, name)
  return {name: tables for name, tables in found.items() if tables}


def _names(directory: Path) -> list[str]:
  return sorted({path.stem for path in directory.glob('fold*/baselines/*.parquet')})


def _tables(directory: Path, name: str) -> list[pa.Table] | None:
  """Kept test predictions of an evaluation or a study, in the order of folds."""
  files = sorted(directory.glob(f'fold*/baselines/{name}.parquet'))
  return [pq.read_table(file) for file in files] or None


def _evaluated(directory: Path) -> list[pa.Table] | None:
  file = directory / 'eval/predictions.parquet'
  if not file.exists():
    return None
  table = pq.read_table(file)
  test = np.array(table['split'].to_pylist()) == 'test'
  folds = table['fold'].to_numpy()
  return [table.take(np.flatnonzero(test & (folds == f))) for f in np.unique(folds)]


def _samples(tables: Sequence[pa.Table]) -> np.ndarray:
  return np.concatenate([table['sample_id'].to_numpy() for table in tables])


def _score(table: pa.Table) -> np.ndarray:
  """Predicted log odds, or log days, with at least one hour."""
  if 'p1' in table.column_names:
    return special.logit(np.clip(table['p1'].to_numpy(), 1e-6, 1 - 1e-6))
  return np.log(np.maximum(table['prediction'].to_numpy(), 1 / 24))


def _scaled(score: np.ndarray, fold: np.ndarray) -> np.ndarray:
  scaled = np.zeros(len(score))
  for each in np.unique(fold):
    scaled[fold == each] = stats.zscore(score[fold == each])
  return scaled


def _statistic(score: np.ndarray, known: dict[str, np.ndarray], outcome: np.ndarray) -> Any:
  columns = np.stack([np.ones(len(score)), *(known[name] for name in PLANTED)], axis=1)
  outer = columns[:, :, np.newaxis] * columns[:, np.newaxis]

  def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
    left = np.einsum('rn,nij->rij', weights, outer)
    right = np.einsum('rn,ni->ri', weights, columns * score[:, np.newaxis])
    slopes = np.linalg.solve(left, right[..., np.newaxis])[..., 0]
    metrics = {name: slopes[:, i + 1] for i, name in enumerate(PLANTED)}
    return {**_discrimination(score, outcome, weights), **metrics}

  return statistic


def _discrimination(
  score: np.ndarray, outcome: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
  if outcome.dtype == bool:
    return {'auroc': Ranking(score, outcome).curves(weights).auroc()}
  ranks = [stats.rankdata(each) for each in (score, outcome)]
  total = weights.sum(axis=1)
  centred = [each - (weights @ each / total)[:, np.newaxis] for each in ranks]
  moment = lambda a, b: (weights * a * b).sum(axis=1)
  a, b = centred
  return {'rank_correlation': moment(a, b) / np.sqrt(moment(a, a) * moment(b, b))}


if __name__ == '__main__':
  main()
