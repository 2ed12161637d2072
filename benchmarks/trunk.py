"""Measures the cost of the members of the ensemble trunk.

  python -m benchmarks.trunk                                    # about seven minutes
  python -m benchmarks.trunk --only=mortality --members=1,16    # about two
  python -m benchmarks.trunk --of=predict --members=1,16        # only the goal

Milliseconds of ensembles with different numbers of members, in turns in one process:

  trunk    loss and gradient of only the trunk, for the chunks of a batch
  train    one update of the multimodal stage, as the config trains it
  predict  the prediction of one patient who has all modalities

The model is the small one, of mortality with all modalities and of PhysioNet 2012. Times
are medians; ratios are those of medians over the first number of members. The goal is
that 16 members predict in at most 1.5 times the time of one. The last line on stdout is
one JSON object. Flags of time and memory: `benchmarks/in_turns.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.in_turns import Work, add_flags, in_turns, keep_memory, rounded, say
from benchmarks.model_case import Case, Ours, drawn
from data_pipeline import processors
from medm2t_jax.models.trunk import chunks
from medm2t_jax.models.trunk.ensemble_trunk import EnsembleTrunk
from medm2t_jax.targets import losses
from medm2t_jax.training.losses import of_heads

_TASKS = ('mortality', 'physionet2012')
_WORK = ('trunk', 'train', 'predict')
_GOAL = {'members': (1, 16), 'ratio': 1.5}


def main(arguments: Sequence[str] | None = None) -> None:
  """Runs the benchmark; `arguments` replace those of the command line."""
  arguments = list(sys.argv[1:] if arguments is None else arguments)
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--only', default='', help=f'prefix of {_TASKS}')
  parser.add_argument('--members', default='1,8,16,32', help='comma-separated')
  parser.add_argument('--of', default=','.join(_WORK), help='which of the three')
  parser.add_argument('--size', choices=('tiny', 'small', 'paper'), default='small')
  add_flags(parser, repetitions=15, seconds=60)
  options = parser.parse_args(arguments)
  keep_memory(options, 'benchmarks.trunk', arguments)
  members = [int(each) for each in options.members.split(',')]
  result: dict[str, Any] = {
    'threads': processors.available(),
    'allocator': options.allocator,
    'size': options.size,
    'goal': _GOAL,
  }
  for task in _TASKS:
    if task.startswith(options.only):
      result[task] = _measure(task, members, options)
  print(json.dumps(result))


def _measure(
  task: str, members: Sequence[int], options: argparse.Namespace
) -> dict[str, Any]:
  work: dict[str, Work] = {}
  chosen = options.of.split(',')
  for count in members:
    case = Case(task, 'multimodal', options.size, members=count)
    patient = Case(task, 'multimodal', options.size, rows=1, capacity=1.0, members=count)
    variables = drawn(case)
    made = {
      'trunk': lambda case=case, variables=variables: _trunk(case, variables),
      'train': lambda case=case, variables=variables: Ours(case, variables).train,
      'predict': lambda case=patient, variables=variables: Ours(case, variables).infer,
    }
    work |= {f'{name} {count}': made[name]() for name in chosen}
  times = in_turns(work, options)
  # Members change neither.
  any_case = Case(task, 'multimodal', options.size)
  columns = sum(kind.count for _, kind in any_case.config.columns)
  row: dict[str, Any] = {'columns': columns, 'rows': any_case.rows}
  for what in chosen:
    of_each = {str(count): times[f'{what} {count}'] for count in members}
    first = of_each[str(members[0])]
    row[f'{what}_ms'] = rounded({name: 1000 * each for name, each in of_each.items()})
    row[f'{what}_ratio'] = rounded({name: each / first for name, each in of_each.items()})
    say(f'{task} {what}', row[f'{what}_ms'] | {'ratios': row[f'{what}_ratio']})
  one, several = _GOAL['members']
  if 'predict' in chosen and {one, several} <= set(members):
    ratio = times[f'predict {several}'] / times[f'predict {one}']
    row |= rounded({'predict_16_over_1': ratio}) | {'goal_met': ratio <= _GOAL['ratio']}
  return row


def _trunk(case: Case, variables: dict[str, Any]) -> Work:
  """Loss and gradient of all members, dropout included."""
  config = case.config
  assert config.ensemble
  members, rng = config.ensemble.members, np.random.default_rng(0)
  trunk = EnsembleTrunk(config.ensemble, config.outputs)
  count = sum(kind.count for _, kind in config.columns)
  x = rng.uniform(-1, 1, (case.rows, count, chunks.SIZE)).astype(np.float32)
  name = f'trunks_{case.stage}'
  params, fitted = variables['params'][name], variables['fitted'][name]

  def loss(params: Any, x: Any, label: Any, key: Any) -> Any:
    given = {'params': params, 'fitted': fitted}
    heads: Any = trunk.apply(given, x, train=True, rngs={'dropout': key})
    return jnp.mean(of_heads(losses.nll, heads, label, members))

  given = jax.tree.map(jnp.asarray, (params, x, case.batch['label']))
  key = jax.random.key(0, impl='unsafe_rbg')
  gradient = jax.jit(jax.value_and_grad(loss))
  return lambda: jax.block_until_ready(gradient(*given, key))


if __name__ == '__main__':
  main()
