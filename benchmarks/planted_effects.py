"""Tests which models have found the planted effects of the simulated hospital.

  python -m benchmarks.planted_effects --workdir=runs/mortality_small

Reads the test predictions of a run on the simulated hospital, and those of its baselines,
single modalities and ablations, if any, and simulates the truth about its patients again.
For each model: its AUROC (for days, the rank correlation with the outcome), and the slopes
of its predicted log odds (log days), in standard deviations within a fold, on all planted
effects of the task in one linear regression (docs/simulated_hospital.md; of several labels,
one for each). A slope of 0 means that the effect was not found; the slopes of the true risk
are in `truth`. `difference` is from the full model, on the same resamples of subjects. The
last line on stdout is one JSON object; models without predictions in some fold are left
out. docs/experiments.md has the results.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import special, stats

from data_pipeline.format.schema import DataError
from data_pipeline.sources.simulated import best_possible, hospitals
from data_pipeline.sources.simulated.outcomes import conditions, truth
from medm2t_jax.evaluation.metrics.bootstrap import bootstrap, estimate
from medm2t_jax.evaluation.metrics.ranking import Ranking

_FULL = 'multimodal'
# Outcome and risk of tasks whose truth is that of first stays.
_OF_STAYS = {'mortality': ('died', 'log_odds'), 'los': ('days', 'log_days')}
# What the truth of the others follows from; of phenotypes each label has its own cause.
_PLANTED: dict[str, tuple[Callable[..., truth.Truth], tuple[str, ...]]] = {
  'readmission': (truth.readmission, ('failure', 'renal')),
  'aki': (truth.aki, ('renal', 'severity', 'decline', 'scatter')),
  'decompensation': (truth.decompensation, ('severity', *best_possible.PLANTED)),
  'phenotypes': (truth.phenotypes, ()),
}


class Known(NamedTuple):
  """What is true of samples: of each, its patient, what happened, its risk and its causes.

  Attributes:
    sample_id: (n,).
    patient: (n,) index of the patient.
    outcome: (n,) bool, or days.
    risk: (n,) true log odds, or expected log days.
    effects: name -> (n,).
  """

  sample_id: np.ndarray
  patient: np.ndarray
  outcome: np.ndarray
  risk: np.ndarray
  effects: Mapping[str, np.ndarray]


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
  """Metrics of every model of a workdir, by its name; of several labels, for each of them.

  Raises:
    DataError: the run is not one on the simulated hospital, of a task with planted effects,
      or has no test predictions.
  """
  config = json.loads((directory / 'config.json').read_text())
  task = config['task']
  if task not in {**_OF_STAYS, **_PLANTED}:
    tasks = ', '.join(sorted({**_OF_STAYS, **_PLANTED}))
    raise DataError(f'{directory}: give a run of one of {tasks}')
  reference = _tables(directory, _FULL) or _evaluated(directory)
  if reference is None:
    raise DataError(f'{directory} has no test predictions: run --mode=eval first')
  models = {
    name: tables
    for name, tables in {_FULL: reference, **_others(directory)}.items()
    if np.array_equal(_samples(tables), _samples(reference))
  }
  seed, patients = _simulated(directory, config['data'])
  found = {'task': task, 'folds': len(reference)}
  if task in _OF_STAYS:
    known = _known_stays(seed, patients, *_OF_STAYS[task])
    return {**found, 'models': _models(models, known, _score)}
  make, effects = _PLANTED[task]
  drawn = make(seed, patients, hospitals.find('a'))
  if not drawn.names:
    return {**found, 'models': _models(models, _known(drawn, effects), _score)}
  labels = {}
  for each in conditions.CONDITIONS:
    label = drawn.names.index(each.phenotype)
    known = _known(drawn, (each.component,), label)
    score = partial(_log_odds, column=f'p{label}')
    labels[each.phenotype] = _models(models, known, score)
  return {**found, 'labels': labels}


def _simulated(directory: Path, data: Mapping[str, Any]) -> tuple[int, int]:
  """Seed and number of patients of the hospital that a run has learnt from."""
  if data['dir'] == 'simulated':
    return data['simulated_seed'], data['simulated_patients']
  prepared = Path(data['dir']) / 'dataset.json'
  request = json.loads(prepared.read_text())['request'] if prepared.exists() else {}
  if request.get('source') != 'simulated' or request.get('hospital', 'a') != 'a':
    raise DataError(f'{directory}: not a run on hospital a of the simulation')
  return request['seed'], request['patients']


def _known_stays(seed: int, patients: int, outcome: str, risk: str) -> Known:
  found = best_possible.first_stays(seed, patients)
  effects = {name: found[name] for name in best_possible.PLANTED}
  return Known(found['stay_id'], found['index'], found[outcome], found[risk], effects)


def _known(found: truth.Truth, effects: Sequence[str], label: int | None = None) -> Known:
  column = ... if label is None else (..., label)
  risk = special.logit(np.clip(found.risk[column], 1e-6, 1 - 1e-6))
  scaled = {name: np.asarray(stats.zscore(found.effects[name])) for name in effects}
  return Known(found.sample_id, found.patient, found.label[column], risk, scaled)


def _in_order(known: Known, samples: np.ndarray) -> Known:
  """Of these samples, in their order.

  Raises:
    DataError: of some sample nothing is known.
  """
  place = {sample: row for row, sample in enumerate(known.sample_id.tolist())}
  missing = [sample for sample in samples.tolist() if sample not in place]
  if missing:
    raise DataError(
      f'{len(missing)} of {len(samples)} samples are not of this hospital, the first '
      f'{missing[0]}: the data set is of another version of the simulation.'
    )
  rows = np.array([place[sample] for sample in samples.tolist()])
  effects = {name: column[rows] for name, column in known.effects.items()}
  return Known(samples, known.patient[rows], known.outcome[rows], known.risk[rows], effects)


def _models(
  models: Mapping[str, Sequence[pa.Table]],
  known: Known,
  score: Callable[[pa.Table], np.ndarray],
) -> dict[str, Any]:
  known = _in_order(known, _samples(models[_FULL]))
  folds = [len(table) for table in models[_FULL]]
  fold = np.repeat(np.arange(len(folds)), folds)
  scores = {name: np.concatenate(list(map(score, of))) for name, of in models.items()}
  # Every patient counts equally, however many samples there are of one.
  _, patient, count = np.unique(known.patient, return_inverse=True, return_counts=True)
  weight = 1 / count[patient]
  draws = {
    name: bootstrap(_statistic(_scaled(each, fold), known), known.patient, weight)
    for name, each in {**scores, 'truth': known.risk}.items()
  }
  outcome = known.outcome
  counts = {
    'n': len(outcome),
    'subjects': len(count),
    'events': int(outcome.sum()) if outcome.dtype == bool else None,
  }
  return {
    name: {
      metric: {
        **estimate(each, counts),
        'difference': estimate(each - draws[_FULL][metric], counts),
      }
      for metric, each in found.items()
    }
    for name, found in draws.items()
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
    return _log_odds(table, 'p1')
  return np.log(np.maximum(table['prediction'].to_numpy(), 1 / 24))


def _log_odds(table: pa.Table, column: str) -> np.ndarray:
  return special.logit(np.clip(table[column].to_numpy(), 1e-6, 1 - 1e-6))


def _scaled(score: np.ndarray, fold: np.ndarray) -> np.ndarray:
  scaled = np.zeros(len(score))
  for each in np.unique(fold):
    scaled[fold == each] = stats.zscore(score[fold == each])
  return scaled


def _statistic(score: np.ndarray, known: Known) -> Any:
  columns = np.stack([np.ones(len(score)), *known.effects.values()], axis=1)
  outer = columns[:, :, np.newaxis] * columns[:, np.newaxis]

  def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
    left = np.einsum('rn,nij->rij', weights, outer)
    right = np.einsum('rn,ni->ri', weights, columns * score[:, np.newaxis])
    slopes = np.linalg.solve(left, right[..., np.newaxis])[..., 0]
    metrics = {name: slopes[:, i + 1] for i, name in enumerate(known.effects)}
    return {**_discrimination(score, known.outcome, weights), **metrics}

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
