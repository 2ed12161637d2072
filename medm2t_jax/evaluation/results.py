"""The state of an evaluation: input of every section, and results so far."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medm2t_jax.evaluation.context import Context
from medm2t_jax.evaluation.metrics.calibration import Temperature
from medm2t_jax.evaluation.rows import Rows

# With fewer samples, metrics say little.
LEAST_SAMPLES = 100
LEAST_EVENTS = 10


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Metrics and the rows behind them.

  Attributes:
    metrics: the content of `metrics.json`, for the sections so far.
    context: further inputs of the report.
    given: section -> the additional predictions that it needs (`sections.section.Needs`).
    test: the test rows of all evaluated folds.
    temperatures: fold -> the temperature of its probabilities; empty for numbers.
    calibrated: the test rows with scaled probabilities, None if not possible.
    resamples: of the bootstrap over subjects.
    seed: of the bootstrap.
  """

  metrics: dict[str, Any]
  context: Context
  given: Mapping[str, Any]
  test: Rows
  temperatures: Mapping[int, Temperature]
  calibrated: Rows | None
  resamples: int
  seed: int


def json_ready(value: Any) -> Any:
  """`value` as plain JSON types: NumPy scalars unpacked, non-finite numbers None."""
  if isinstance(value, Mapping):
    return {str(key): json_ready(each) for key, each in value.items()}
  if isinstance(value, np.ndarray):
    value = value.tolist()
  if isinstance(value, Sequence) and not isinstance(value, str):
    return [json_ready(each) for each in value]
  if isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, float) and not math.isfinite(value):
    return None
  if value is None or isinstance(value, str | int | float):
    return value
  return str(value)


def fold_digest(fold_hashes: Any) -> str:
  """Sixteen hexadecimal digits that identify the folds; '' if unknown."""
  if fold_hashes is None:
    return ''
  canonical = json.dumps(json_ready(fold_hashes), sort_keys=True)
  return hashlib.sha256(canonical.encode()).hexdigest()[:16]
