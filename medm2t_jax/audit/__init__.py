"""The audit: tests, on this data and these checkpoints, whether the metrics can be trusted.

  python -m medm2t_jax.main --config=... --workdir=W --mode=audit

Prints one line per check and writes all checks to `W/eval/audit.json`, but changes no
result of training. All checks of the data share one pass over the records, whose memory
does not grow with the number of records.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from data_pipeline.format.schema import DataError, write_json
from medm2t_jax.audit import (
  drift,
  fitted,
  leaks,
  predictions,
  scan,
  shuffled,
  splits,
  times,
)
from medm2t_jax.audit.check import Check
from medm2t_jax.evaluation import evaluate
from medm2t_jax.inference import blend
from medm2t_jax.runs.restoring import restore_best
from medm2t_jax.runs.run import Run
from medm2t_jax.training import steps

_LOGGER = logging.getLogger(__name__)


def audit(folds: Sequence[Run]) -> dict[str, Any]:
  """Runs and prints all checks; writes `eval/audit.json` of the workdir.

  Args:
    folds: of one experiment, each with a complete multimodal stage.

  Returns:
    {'passed': whether all passed, 'checks': number, 'failed': names, 'audit': path}.

  Raises:
    DataError: a fold's multimodal stage is not complete, its checkpoint lists held-out
      subjects as seen, a shard is corrupt, or there are several processes.
  """
  if jax.process_count() > 1:
    raise DataError('the audit runs in one process: leave out --num_processes')
  checks = []
  for check in _checks(folds):
    print(check, flush=True)
    checks.append(check)
  path = folds[0].workdir / 'eval' / 'audit.json'
  path.parent.mkdir(exist_ok=True)
  passed = all(check.passed for check in checks)
  write_json(
    path,
    {
      'passed': passed,
      'folds': [fold.fold for fold in folds],
      'data_version': folds[0].dataset.version,
      'checks': [dataclasses.asdict(check) for check in checks],
    },
  )
  return {
    'passed': passed,
    'checks': len(checks),
    'failed': [check.name for check in checks if not check.passed],
    'audit': str(path),
  }


def _checks(folds: Sequence[Run]) -> Iterator[Check]:
  # Checkpoints first: a missing one is an error, not a failed check.
  for fold in folds:
    for run in fold.runs:
      variables, lineage = restore_best(run, evaluate.STAGE)
      yield from fitted.check(run, variables, lineage, fitted.fit_again(run))
      predictor = steps.predictor(run.model, evaluate.STAGE, variables)
      if run is fold.final:
        predictor = blend.predictor(fold, predictor)
      yield predictions.check(run, predictor)
  for fold in folds:
    _LOGGER.info('fold %d: a short training on shuffled labels', fold.fold)
    yield shuffled.check(fold)
  indices = [fold.fold for fold in folds]
  found = scan.scan(folds[0].dataset.as_prepared(), indices)
  yield from splits.check(found, indices)
  yield from times.check(found)
  yield from leaks.check(found)
  for number, index in enumerate(indices):
    yield drift.check(found, index, number)
