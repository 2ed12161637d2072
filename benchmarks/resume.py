"""Trains on one batch, saves and restores: checks that losses fall and are repeated.

  python -m benchmarks.resume --case=cvd/multimodal,cvd/labs --steps=300

The train step, optimizer and checkpoints are those of training; the batch is always the
same one of `benchmarks/model_workload.py`, so no data is read. The last line on stdout is
one JSON object: for each stage the loss of the first and last steps, the median
milliseconds per step, and two exact comparisons of the losses of ten steps:

  repeated  twice from the same state: the device computes the same sums in the same order
  restored  from a checkpoint of that state

If `repeated` is false, XLA_FLAGS=--xla_gpu_deterministic_ops=true makes it true.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.in_turns import rounded, say
from benchmarks.model_case import Case, Ours
from medm2t_jax.runs.checkpoint import Checkpoints, Lineage

_COMPARED = 10


def main(arguments: Sequence[str] | None = None) -> None:
  """Runs the benchmark; `arguments` replace those of the command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--case', default='cvd/multimodal,cvd/labs', help='TASK/STAGE')
  parser.add_argument('--size', choices=('tiny', 'small', 'paper'), default='paper')
  parser.add_argument('--steps', type=int, default=300)
  options = parser.parse_args(arguments)
  result: dict[str, Any] = {'device': jax.devices()[0].device_kind}
  for name in options.case.split(','):
    task, stage = name.split('/')
    result[name] = _measure(Case(task, stage, options.size), options.steps)
    say(name, result[name])
  print(json.dumps(result))


def _measure(case: Case, steps: int) -> dict[str, Any]:
  ours = Ours(case)
  losses, times = [], []
  for _ in range(steps):
    start = time.perf_counter()
    losses.append(ours.update())
    times.append(time.perf_counter() - start)
  with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder)) as checkpoints:
    lineage = Lineage(0, frozenset(), frozenset(), 'none', 'none', {})
    checkpoints.save(ours.state, {}, lineage=lineage, best_step=None)
    before = jax.tree.map(jnp.copy, ours.state)
    first = _losses(ours)
    ours.state = before
    again = _losses(ours)
    restored = checkpoints.restore_latest(ours.state)
  assert restored
  ours.state = restored.state
  after = _losses(ours)
  row = {
    'first_loss': statistics.mean(losses[:_COMPARED]),
    'last_loss': statistics.mean(losses[-_COMPARED:]),
    'step_ms': 1000 * statistics.median(times[1:]),
  }
  return rounded(row) | {'repeated': first == again, 'restored': first == after}


def _losses(ours: Ours) -> list[float]:
  return [ours.update() for _ in range(_COMPARED)]


if __name__ == '__main__':
  main()
